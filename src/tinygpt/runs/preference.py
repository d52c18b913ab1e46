"""Preference tuning: make better answers likelier than worse ones, as an adapter or in all weights."""

from __future__ import annotations

from typing import Any

from tinygpt.core import backend
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.source import pairs
from tinygpt.data.template._choice import AUTO
from tinygpt.eval.reward import _composite
from tinygpt.infer.engine import Engine
from tinygpt.model import checkpoint
from tinygpt.peft import _adapter
from tinygpt.runs import _directory, _learned, _pieces, _ranked, _reference, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._memory import refuse_too_large
from tinygpt.runs._preference import LOSSES, Config
from tinygpt.train.loop import Result
from tinygpt.train.preference import _objective
from tinygpt.train.world import world


def run(config: Config, events: Events) -> Result:
    """Tune and leave `out/final`: an adapter directory in PEFT's format, or a model directory with --full."""
    if not config.data:
        raise ConfigError("there is nothing to learn from", hint="give --data a JSONL file")
    directory = RunDirectory("dpo", config, world())
    judged = _composite.load(config.reward_fn) if config.reward_fn else None
    opened = config.open(directory.seed)
    tokenizer = opened.tokenizer
    if config.start_adapter is not None and config.template == AUTO:
        tokenizer = _pieces.asked_as(tokenizer, _pieces.model_path(config.start_adapter))
    tokenizer, template = _pieces.templated(tokenizer, config.template, events)
    opened = opened._replace(tokenizer=tokenizer)
    model, _, base = opened
    assert base is not None
    started, inputs = None, dict[str, str]()
    if config.start_adapter is not None:
        started = _adapter.load_adapter(_pieces.model_path(config.start_adapter), model, base=base)
        inputs["the start adapter"] = _reference.adapter_hash(started.path)
    options = config.loss_type.options
    settings = pairs.Config(
        paths=config.data, template=config.template, paired=options.paired, held_out=config.held_out,
        strict=config.strict,
    )  # fmt: skip
    how: dict[str, Any] = {
        "length": config.answer_length(opened), "batch_size": config.amounts.batch, "seed": directory.seed,
        "events": events,
    }  # fmt: skip
    made = None
    if judged is None:
        source = pairs.build(settings, tokenizer, **how)
    else:
        inputs["the reward"] = judged.hash
        made = _ranked.Made(Engine(model, tokenizer, template), judged, config.data, strict=config.strict)
        who = checkpoint.identity(base) + inputs.get("the start adapter", "") + tokenizer.hash
        who += _pieces.held(model)
        made.rank(
            config.sampling(directory.seed), config.samples, margin=config.reward_margin,
            identity=f"{who} {config.template}", events=events,
        )  # fmt: skip
        source = pairs.from_rows(made.preferred(), settings, tokenizer, facts=made.facts, **how)
    rows, widest = 2 * config.amounts.batch // config.accumulate, max(source.widths)
    refuse_too_large(
        model.config, rows, widest, config.dtype, whole=config.full, recompute=config.grad_checkpoint
    )
    inputs |= _directory.inputs(source, tokenizer, base)
    facts: dict[str, Any] = {}
    if options.reference:
        facts["reference_cached"] = _reference.refer(
            source, opened, config.reference, inputs, events=events, world=directory.world,
            dtype=backend.compute_dtype(config.dtype) if config.full else None,
        )  # fmt: skip
    if started is None:
        write, resume = config.learned(opened, directory.seed)
    else:
        write, resume = _learned.learned(
            model, tokenizer, base=base, adapter=started.pick, packing=config.packed_as(), carried=True
        )
    objective = _objective.over(model, LOSSES.load(config.loss_type.name).losses, options)
    facts |= {"learned_parameters": _pieces.n_parameters(model), **source.describe()}
    result = _train.train(
        directory, source=source, held_out=source.held_out, objective=objective, inputs=inputs, write=write,
        resume=resume, events=events, facts=facts, tokenizer=tokenizer, template=template,
        looks=made.looks(source.held_out, config.answer_tokens) if made else (),
    )  # fmt: skip
    if made is not None and directory.world.leads:
        made.write(config.out / "pairs.jsonl")
    return result
