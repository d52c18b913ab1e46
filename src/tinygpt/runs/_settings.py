"""Settings that training runs share, and the fresh model that some of them begin with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from tinygpt.core.config import Pick, fields, from_dict, resolve_picks, to_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize
from tinygpt.model.presets import Depth, by_depth, preset
from tinygpt.runs._memory import refuse_too_large
from tinygpt.train.guard import Guard

OPTIM = Family("tinygpt.train.optim")
SCHEDULE = Family("tinygpt.train.schedule", verb="at")
OBJECTIVE = Family("tinygpt.train.objective")
# Settings that describe a fresh model, and mean nothing beside a base.
FRESH = {"tokenizer", "preset", "depth", "model"}
# Settings that mean nothing where no spikes are looked for.
SPIKES = {"spike_window", "spike_factor"}


class Amounts(NamedTuple):
    """How much a run learns from: settings that are derived when they are not given."""

    steps: int
    batch: int
    lr: float


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of every run that takes optimizer steps."""

    out: Annotated[Path, "Run directory to make: run.json, events.jsonl, steps/ and final/."]
    resume: Annotated[
        bool, "Continue the run in --out from its last checkpoint, or start it if there is none."
    ] = False
    force: Annotated[bool, "Replace an existing --out."] = False
    steps: Annotated[int | None, "Optimizer steps; not given: 500, or what --depth derives."] = None
    batch: Annotated[int | None, "Rows of a step; not given: 16, or what --depth derives."] = None
    accumulate: Annotated[int, "Split a step's rows into this many parts to save memory."] = 1
    context: Annotated[int, "Tokens of a row, and the context of a fresh model; 0: the model's own."] = 0
    lr: Annotated[float | None, "Peak learning rate; not given: 1e-3, or what --depth derives."] = None
    optimizer: Annotated[Pick, "Optimizer.", OPTIM] = Pick("adamw")
    schedule: Annotated[Pick, "Learning-rate schedule.", SCHEDULE] = Pick("cosine")
    clip: Annotated[float, "Bound on the global gradient norm; 0: off."] = 1.0
    auto_rollback: Annotated[
        Literal["off", "warn", "on"],
        "When a loss spikes: tell (warn), or also leave the step out and go back if that is not enough (on).",
    ] = "warn"
    spike_detect: Annotated[bool, "Look for spikes; without, only for values that are no numbers."] = True
    spike_window: Annotated[int, "Recent steps that a spike is measured against."] = 50
    spike_factor: Annotated[float, "Standard deviations above them that make a spike."] = 6.0
    qat: Annotated[
        Literal["off", "int4", "int8"], "Train for being quantized: forward passes read rounded weights."
    ] = "off"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], "Compute dtype; auto: the device's best."
    ] = "auto"
    compile: Annotated[bool, "Compile the training step."] = True
    save_every: Annotated[int, "Steps between resumable checkpoints; 0: only at the end or when stopped."] = 0
    keep: Annotated[int, "Resumable checkpoints to keep."] = 2
    eval_every: Annotated[int, "Steps between held-out evaluations; 0: only at the end."] = 0
    eval_batches: Annotated[
        int, "Held-out batches an evaluation reads, always the same; each costs about 0.4 steps; 0: all."
    ] = 32
    max_minutes: Annotated[float, "Stop and save after this long; 0: no bound."] = 0.0
    seed: Annotated[int | None, "Seed of weights and data order; drawn and recorded when not given."] = None
    wait: Annotated[bool, "Wait for another run to free the machine."] = False
    lock: Annotated[bool, "Take the machine's lock (one heavy run at a time)."] = True

    def __post_init__(self) -> None:
        resolve_picks(self)
        for name, default in {"steps": 500, "batch": 16, "lr": 1e-3, **self.derived()}.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for name in ("steps", "batch", "accumulate", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1, got {getattr(self, name)}")
        _, batch, lr = self.amounts
        if lr <= 0:
            raise ConfigError(f"--lr must be positive, got {lr}")
        for name in ("clip", "context", "save_every", "eval_every", "eval_batches", "max_minutes"):
            if getattr(self, name) < 0:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} must not be negative, got {getattr(self, name)}")
        if self.resume and self.force:
            raise ConfigError(
                "--resume continues what is in --out, --force replaces it", hint="leave one out"
            )
        watch = None if self.auto_rollback == "off" else self.guard()
        if watch is None or not watch.detect:
            known = (f for f in fields(TrainSettings) if f.name in SPIKES)
            if given := [f.name for f in known if getattr(self, f.name) != f.default]:
                how = "--auto-rollback off" if watch is None else "--no-spike-detect"
                flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
                raise ConfigError(f"{flags}: {how} looks for no spikes", hint="leave one of them out")
        if batch % self.accumulate:
            raise ConfigError(f"--batch {batch} is not a multiple of --accumulate {self.accumulate}")

    def guard(self) -> Guard | None:
        """What watches the steps; None where a loss that is no number simply ends the run."""
        if self.auto_rollback == "off":
            return None
        return Guard(
            self.auto_rollback, detect=self.spike_detect, window=self.spike_window, factor=self.spike_factor
        )

    @property
    def amounts(self) -> Amounts:
        """steps, batch and lr, which `__post_init__` filled in."""
        assert self.steps is not None and self.batch is not None and self.lr is not None
        return Amounts(self.steps, self.batch, self.lr)

    def derived(self) -> dict[str, Any]:
        """Defaults that follow from other settings."""
        return {}

    def row_length(self, model: ModelConfig, *, whole: bool) -> int:
        """Tokens of a row: --context, or all that the model can read. Refuses what this machine's memory
        cannot hold; `whole` says that all weights learn."""
        if self.context > model.max_position_embeddings:
            raise ConfigError(
                f"--context {self.context} is longer than the model's own, {model.max_position_embeddings}",
                hint="choose a shorter one",
            )
        length = self.context or model.max_position_embeddings
        refuse_too_large(model, self.amounts.batch // self.accumulate, length, self.dtype, whole=whole)
        return length


@dataclass(frozen=True, kw_only=True)
class FreshModel(TrainSettings):
    """Settings of runs that start from fresh weights, or from a base with its own model and tokenizer."""

    base: Annotated[Path | None, "Model to start from; not given: a fresh one."] = None
    tokenizer: Annotated[
        str, "Tokenizer of a fresh model: 'byte', or a directory or tokenizer.json (see tokenize-train)."
    ] = "byte"
    preset: Annotated[
        str, "Size of a fresh model: tiny, small, huge, mega, behemoth, titan, or gpt2-tiny ..."
    ] = "tiny"
    depth: Annotated[int, "Size by one number instead of a preset; also derives lr, batch and steps."] = 0
    regime: Annotated[
        Literal["chinchilla", "overtrained"], "Token budget of --depth: 20 or 40 a parameter."
    ] = "chinchilla"
    model: Annotated[dict[str, Any], "Single fields of a fresh model, e.g. --set model.hidden_size=192."] = (
        field(default_factory=dict[str, Any])
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tokenizer:
            raise ConfigError("--tokenizer is empty", hint="give 'byte', a directory or a tokenizer.json")
        ignored = [
            f.name for f in fields(FreshModel) if f.name in FRESH and getattr(self, f.name) != f.default
        ]
        if self.depth and "preset" in ignored:
            raise ConfigError("--depth and --preset both say how large the model is", hint="leave one out")
        if self.base is not None and ignored:
            flags = ", ".join("--set model.*" if name == "model" else f"--{name}" for name in ignored)
            raise ConfigError(
                f"{flags}: the base {self.base} brings its own", hint="leave it out, or the base"
            )

    def derived(self) -> dict[str, Any]:
        if not self.depth:
            return {}
        found = self._by_depth(256)
        return {"lr": found.lr, "batch": found.batch, "steps": found.steps}

    def _by_depth(self, vocab_size: int) -> Depth:
        ratio = 20 if self.regime == "chinchilla" else 40
        return by_depth(
            self.depth, vocab_size=vocab_size, context=self.context or 1024, tokens_per_parameter=ratio
        )

    def fresh(self, vocab_size: int, seed: int) -> LM:
        """A model with fresh weights: the preset or depth, with the single fields of `model` on top."""
        if self.depth:
            base = self._by_depth(vocab_size).model
        else:
            base = preset(self.preset, vocab_size=vocab_size)
        if told := {"qat_bits", "qat_group_size"} & set(self.model):
            raise ConfigError(f"model.{min(told)} says how weights were trained", hint="use --qat")
        context = {"max_position_embeddings": self.context} if self.context else {}
        # Derived sizes are derived anew when what they follow from changes.
        sizes = {"num_key_value_heads": 0, "head_dim": 0, "intermediate_size": 0} if self.model else {}
        config = from_dict(ModelConfig, {**to_dict(base), **sizes, **context, **self.model}, "model")
        if config.vocab_size < vocab_size:
            raise ConfigError(
                f"model.vocab_size is {config.vocab_size}, but the tokenizer has {vocab_size} ids",
                hint="leave model.vocab_size out",
            )
        self.row_length(config, whole=True)
        return initialize(LM(config), seed)
