"""Supervised tuning: learn the answers, as an adapter, in all weights, or from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.source import chat
from tinygpt.peft._adapter import PEFT
from tinygpt.runs import _directory, _pieces, _train
from tinygpt.runs._conversations import Conversations
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._mask import MaskedRow, mask_view
from tinygpt.train.loop import Result
from tinygpt.train.objective import next_token, response
from tinygpt.train.world import world


@dataclass(frozen=True, kw_only=True)
class Config(Conversations):
    """Settings of a supervised tuning run."""

    adapter: Annotated[Pick, "How few weights learn.", PEFT] = Pick("dora")
    show_mask: Annotated[int, "Print so many rows with what is learned of them, and train nothing."] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.show_mask < 0:
            raise ConfigError(f"--show-mask must be at least 0, got {self.show_mask}")


def masks(config: Config, events: Events) -> list[MaskedRow]:
    """The first `show_mask` rows as they would be learned; nothing is trained or written."""
    _some(config)
    opened = config.open(config.seed or 0)
    tokenizer, _ = _pieces.templated(opened.tokenizer, config.template, events)
    length = config.row_length(opened.model.config, whole=config.whole)
    found = chat.examples(config.rows(), tokenizer, length=length, events=events)
    return mask_view(found, tokenizer, config.show_mask, learn_all=config.learn == "all")


def _some(config: Config) -> None:
    if not config.data:
        raise ConfigError("there is nothing to learn from", hint="give --data a file of rows")


def run(config: Config, events: Events) -> Result:
    """Tune and leave `out/final`: an adapter directory in PEFT's format, or a model directory."""
    _some(config)
    if config.show_mask:
        raise ConfigError("show_mask shows rows and trains nothing", hint="call masks, or leave it out")
    directory = RunDirectory("sft", config, world())
    opened = config.open(directory.seed)
    tokenizer, template = _pieces.templated(opened.tokenizer, config.template, events)
    opened = opened._replace(tokenizer=tokenizer)
    model, _, base = opened
    source = chat.build(
        config.rows(),
        tokenizer,
        length=config.row_length(model.config, whole=config.whole),
        batch_size=config.amounts.batch,
        seed=directory.seed,
        events=events,
        packs=getattr(model, "packs", True),
    )
    directory.config = config.counted(source)
    write, resume = config.learned(opened, directory.seed)
    if config.learn != "all":
        knobs = response.Config(prompt_weight=config.prompt_weight, z_loss=config.z_loss)
        objective = response.build(model, knobs)
        measured = response.build(model)
    else:
        objective = measured = next_token.build(model, next_token.Config(z_loss=config.z_loss))
    facts = {"learned_parameters": _pieces.n_parameters(model), **source.describe()}
    facts["epochs"] = source.epochs(directory.config.amounts.steps)
    return _train.train(
        directory, source=source, held_out=source.held_out, objective=objective, measured=measured,
        inputs=_directory.inputs(source, tokenizer, base), write=write, resume=resume, events=events,
        facts=facts, tokenizer=tokenizer, template=template,
    )  # fmt: skip
