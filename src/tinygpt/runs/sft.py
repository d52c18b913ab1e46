"""Supervised tuning: learn the answers, as an adapter, in all weights, or from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.source import chat
from tinygpt.peft import _adapter
from tinygpt.runs import _directory, _learned, _pieces, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._settings import FreshModel
from tinygpt.train.loop import Result
from tinygpt.train.objective import next_token, response
from tinygpt.train.world import world


@dataclass(frozen=True, kw_only=True)
class Config(FreshModel):
    """Settings of a supervised tuning run."""

    data: Annotated[
        tuple[Path, ...], "JSONL files of conversations or question-answer rows; may be repeated."
    ]
    adapter: Annotated[Pick, "How few weights learn.", _adapter.PEFT] = Pick("lora")
    full: Annotated[bool, "Learn all weights instead of an adapter; a fresh model always does."] = False
    learn: Annotated[Literal["answers", "all"], "Learn the assistant's tokens, or every token."] = "answers"
    prompt_weight: Annotated[
        float,
        "Weight of the prompt's tokens beside the answers', which have 1; from scratch 0.1 to 0.3 helps.",
    ] = 0.0
    lora_plus_ratio: Annotated[
        float, "LoRA+: learning rate of the adapter's matrices B over that of A; the paper has 16."
    ] = 1.0
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
        whole = self.full or self.base is None
        if self.lora_plus_ratio <= 0:
            raise ConfigError(f"--lora-plus-ratio must be positive, got {self.lora_plus_ratio:g}")
        if whole and self.lora_plus_ratio != 1:
            raise ConfigError(
                "--lora-plus-ratio is about an adapter, but all weights will learn",
                hint="leave it out, or give a base without --full",
            )
        if self.qat != "off" and not whole:
            raise ConfigError(
                "--qat rounds the matrices that learn, and an adapter learns beside them",
                hint="leave it out, or learn all weights with --full",
            )
        if whole and self.adapter != Pick("lora").resolve(_adapter.PEFT, "adapter"):
            raise ConfigError(
                "an adapter was described, but all weights will learn",
                hint="leave --adapter out, or give a base without --full",
            )

    def group_rules(self) -> dict[str, Any]:
        return {**super().group_rules(), "lora_plus": self.lora_plus_ratio}


def run(config: Config, events: Events) -> Result:
    """Tune and leave `out/final`: an adapter directory in PEFT's format, or a model directory."""
    if not config.data:
        raise ConfigError("there is nothing to learn from", hint="give --data a JSONL file")
    directory = RunDirectory("sft", config, world())
    base = None
    if config.base is None:
        tokenizer = _pieces.open_tokenizer(config.tokenizer)
        model = config.fresh(tokenizer.vocab_size, directory.seed)
    else:
        loaded, tokenizer = _pieces.open_model(config.base)
        base, model = loaded.path, loaded.model
    whole = config.full or base is None
    source = chat.build(
        chat.Config(
            paths=config.data,
            template=config.template,
            learn=config.learn,
            held_out=config.held_out,
            strict=config.strict,
        ),
        tokenizer,
        length=config.row_length(model.config, whole=whole),
        batch_size=config.amounts.batch,
        seed=directory.seed,
        events=events,
    )
    write, resume = _learned.learned(
        model, tokenizer, base=base, adapter=None if whole else config.adapter, seed=directory.seed
    )
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
