"""Settings of a preference run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinygpt.core.config import Pick, refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family
from tinygpt.data.template import _choice
from tinygpt.infer.config import SampleConfig
from tinygpt.peft import _adapter
from tinygpt.runs import _pieces
from tinygpt.runs._tuned import Tuned

if TYPE_CHECKING:
    from tinygpt.model.quantized import Packing
    from tinygpt.runs._tuned import Opened

LOSSES = Family("tinygpt.train.preference", verb="losses")
# Settings of training runs that mean nothing here; they have no flags.
IDLE = ("z_loss", "tokenizer", "preset", "depth", "regime", "model")


@dataclass(frozen=True, kw_only=True)
class Config(Tuned):
    """Settings of a preference run."""

    # Required here, where other runs may begin with a fresh model; all fields are keywords, so their order
    # is free.
    base: Annotated[Path, "Model to tune: a model, run or specialist directory."]  # pyright: ignore[reportGeneralTypeIssues]
    data: Annotated[
        tuple[Path, ...],
        "JSONL files of preferences: {prompt, chosen, rejected}, or {prompt, completion, label} for kto.",
    ]
    loss_type: Annotated[Pick, "What makes the better answer likelier.", LOSSES] = Pick("dpo")
    template: Annotated[str, _choice.HELP, _choice.TEMPLATES] = _choice.AUTO
    held_out: Annotated[float, "Fraction of the prompts kept for evaluation."] = 0.05
    strict: Annotated[bool, "Refuse bad rows and answers that are too long, instead of counting them."] = (
        False
    )
    start_adapter: Annotated[
        Path | None,
        "Adapter of the base, as sft makes them, to go on with; the reference is where it starts.",
    ] = None
    reference: Annotated[
        Path | None, "Another reference model, with the same tokenizer; not given: the model as it starts."
    ] = None
    reward_fn: Annotated[
        str | None,
        "Rows are prompts: answer each --samples times, and learn from the best and worst by this reward: a "
        ".toml or .json file of dimensions, or file.py:function.",
    ] = None
    samples: Annotated[int, "With --reward-fn: answers to a prompt."] = 8
    temperature: Annotated[float, "With --reward-fn: how freely they are drawn."] = 1.0
    answer_tokens: Annotated[int, "With --reward-fn: longest answer in tokens."] = 128
    reward_margin: Annotated[float, "With --reward-fn: by how much the best must beat the worst."] = 0.0
    lr: Annotated[
        float | None, "Peak learning rate; not given: 5e-5 for an adapter, the loss's own for --full."
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_idle(
            self, dict.fromkeys(("samples", "temperature", "answer_tokens", "reward_margin"), "reward_fn")
        )
        if self.samples < 2:
            raise ConfigError(f"--samples must be at least 2 to make a pair, got {self.samples}")
        if self.reward_fn is not None and self.sampling(0).greedy:
            raise ConfigError("--temperature 0 gives the same answer each time", hint="raise it")
        if self.z_loss:
            raise ConfigError("z_loss means nothing to a preference loss", hint="leave it out")
        if self.reference is not None and not self.loss_type.options.reference:
            raise ConfigError(
                f"--reference: the loss '{self.loss_type.name}' has no reference model", hint="leave it out"
            )
        if self.start_adapter is not None:
            if self.full:
                raise ConfigError(
                    "--start-adapter goes on as an adapter, and with --full all weights learn",
                    hint="leave one of them out, or bake the adapter into the base first",
                )
            if self.qlora:
                raise ConfigError(
                    "--start-adapter packs the base as it was when that adapter was trained",
                    hint="leave --qlora and its settings out",
                )
            if self.adapter != Pick("lora").resolve(_adapter.PEFT, "adapter"):
                raise ConfigError(
                    "--start-adapter brings its own kind and settings",
                    hint="leave --adapter and its knobs out",
                )

    def derived(self) -> dict[str, Any]:
        return {"lr": self.loss_type.options.rate if self.full else 5e-5}

    def packed_as(self) -> Packing | None:
        if self.start_adapter is None:
            return self.packing
        return _pieces.packing_of(_pieces.model_path(self.start_adapter))

    def sampling(self, seed: int) -> SampleConfig:
        """How answers are drawn for --reward-fn."""
        return SampleConfig(temperature=self.temperature, max_tokens=self.answer_tokens, seed=seed)

    def answer_length(self, opened: Opened) -> int:
        """Most tokens of an answer with its prompt."""
        most = opened.model.config.max_position_embeddings
        if self.context > most:
            raise ConfigError(
                f"--context {self.context} is longer than the model's own, {most}",
                hint="choose a shorter one",
            )
        return self.context or most
