"""Supervised tuning: learn the answers, as an adapter, in all weights, or from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.source import chat
from tinygpt.peft._adapter import PEFT
from tinygpt.runs import _directory, _pieces, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._tuned import Tuned
from tinygpt.train.loop import Result
from tinygpt.train.objective import next_token, response
from tinygpt.train.world import world


@dataclass(frozen=True, kw_only=True)
class Config(Tuned):
    """Settings of a supervised tuning run."""

    adapter: Annotated[Pick, "How few weights learn.", PEFT] = Pick("dora")
    data: Annotated[
        tuple[Path, ...], "JSONL files of conversations or question-answer rows; may be repeated."
    ]
    learn: Annotated[Literal["answers", "all"], "Learn the assistant's tokens, or every token."] = "answers"
    prompt_weight: Annotated[
        float,
        "Weight of the prompt's tokens beside the answers', which have 1; from scratch 0.1 to 0.3 helps.",
    ] = 0.0
    template: Annotated[Pick, "How a conversation is written as text.", chat.TEMPLATES] = Pick("chatml")
    held_out: Annotated[float, "Fraction of the rows kept for evaluation."] = 0.05
    strict: Annotated[bool, "Refuse bad rows and answers that are too long, instead of counting them."] = (
        False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        response.Config(prompt_weight=self.prompt_weight)
        if self.prompt_weight and self.learn == "all":
            raise ConfigError(
                "prompt_weight says nothing where all tokens are learned", hint="leave one of them out"
            )
        if self.sample_every and self.sample_prompt is None:
            raise ConfigError("--sample-every needs a request to answer", hint="add --sample-prompt TEXT")


def run(config: Config, events: Events) -> Result:
    """Tune and leave `out/final`: an adapter directory in PEFT's format, or a model directory."""
    if not config.data:
        raise ConfigError("there is nothing to learn from", hint="give --data a JSONL file")
    directory = RunDirectory("sft", config, world())
    opened = config.open(directory.seed)
    model, tokenizer, base = opened
    source = chat.build(
        chat.Config(
            paths=config.data,
            template=config.template,
            learn=config.learn,
            held_out=config.held_out,
            strict=config.strict,
        ),
        tokenizer,
        length=config.row_length(model.config, whole=config.whole),
        batch_size=config.amounts.batch,
        seed=directory.seed,
        events=events,
        packs=getattr(model, "packs", True),
    )
    write, resume = config.learned(opened, directory.seed)
    if config.learn == "answers":
        knobs = response.Config(prompt_weight=config.prompt_weight, z_loss=config.z_loss)
        objective = response.build(model, knobs)
        measured = response.build(model)
    else:
        objective = measured = next_token.build(model, next_token.Config(z_loss=config.z_loss))
    facts = {"learned_parameters": _pieces.n_parameters(model), **source.describe()}
    return _train.train(
        directory, source=source, held_out=source.held_out, objective=objective, measured=measured,
        inputs=_directory.inputs(source, tokenizer, base), write=write, resume=resume, events=events,
        facts=facts, tokenizer=tokenizer, template=chat.TEMPLATES.load(config.template.name),
    )  # fmt: skip
