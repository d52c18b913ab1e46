"""Distill: a student learns a teacher's distributions, on plain text or on answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.source import chat, text
from tinygpt.distill import distillation, on_policy
from tinygpt.infer.engine import Engine
from tinygpt.runs import _directory, _pieces, _teacher, _teacher_cache, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._distill import LOSSES, Config
from tinygpt.train.loop import Result
from tinygpt.train.world import world

if TYPE_CHECKING:
    from tinygpt.data.source._source import Source
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.runs._tuned import Opened


def run(config: Config, events: Events) -> Result:
    """Distill and leave `out/final`: an adapter directory in PEFT's format, or a model directory."""
    directory, opened, template, source = _begun(config, events)
    model, tokenizer, base = opened
    write, resume = config.learned(opened, directory.seed)
    batches: Any = source
    if config.cache_teacher is not None:
        kept = _kept(config, directory, source, tokenizer, events)
        taught, batches = kept.taught, kept.wrap(source)
    else:
        assert config.teacher is not None
        taught = _teacher.opened(config.teacher, config.teacher_adapter, tokenizer, events)
    objective = distillation.build(
        model, taught.teacher, LOSSES.load(config.loss.name), config.mixed(), config.loss.options
    )
    facts: dict[str, Any] = {"learned_parameters": _pieces.n_parameters(model), **source.describe()}
    facts |= {"epochs": source.epochs(directory.config.amounts.steps), **taught.facts}
    rewrite = None
    if config.on_policy:
        engine = Engine(model, tokenizer, template)
        rewrite = on_policy.OnPolicy(engine, config.writing(), seed=directory.seed)
    return _train.train(
        directory, source=batches, held_out=batches.held_out, objective=objective,
        inputs=_directory.inputs(source, tokenizer, base) | taught.inputs, write=write, resume=resume,
        events=events, facts=facts, tokenizer=tokenizer, template=template, rewrite=rewrite,
    )  # fmt: skip


def cache(config: Config, events: Events) -> dict[str, Any]:
    """Fill the teacher's cache with what the run would read; its facts, and where. --out is left alone."""
    directory, opened, _, source = _begun(config, events)
    kept = _kept(config, directory, source, opened.tokenizer, events)
    return {**kept.store.facts(), "path": str(kept.store.path)}


def _begun(config: Config, events: Events) -> tuple[RunDirectory, Opened, Any, Source]:
    """The run's directory, student, template and source, and the steps that --epochs means."""
    if config.teacher is None and config.cache_teacher is None:
        raise ConfigError("there is no teacher", hint="give --teacher a model")
    if not config.data and not config.corpus:
        raise ConfigError("there is nothing to learn from", hint="give --data rows, or --corpus text")
    directory = RunDirectory("distill", config, world())
    opened = config.open(directory.seed)
    distillation.refuse_odd_heads(opened.model)
    template = None
    if config.data:
        tokenizer, template = _pieces.templated(opened.tokenizer, config.template, events)
        opened = opened._replace(tokenizer=tokenizer)
    source = _source(config, opened, directory.seed, events)
    directory.config = config.counted(source)
    return directory, opened, template, source


def _kept(
    config: Config, directory: RunDirectory, source: Source, tokenizer: Tokenizer, events: Events
) -> _teacher_cache.Kept:
    how: dict[str, Any] = {"steps": directory.config.amounts.steps, "held_out": config.eval_batches}
    how |= {"temperature": config.temperature, "prompts": config.prompt_weight > 0}
    return _teacher_cache.filled(config, source, tokenizer, events=events, **how)


def _source(config: Config, opened: Any, seed: int, events: Events) -> Source:
    """Batches of the text, or of the rows."""
    how: dict[str, Any] = {
        "length": config.row_length(opened.model.config, whole=config.whole),
        "batch_size": config.amounts.batch, "seed": seed, "events": events,
        "packs": getattr(opened.model, "packs", True),
    }  # fmt: skip
    if config.corpus:
        return text.build(config.words(), opened.tokenizer, **how)
    return chat.build(config.rows(), opened.tokenizer, **how)
