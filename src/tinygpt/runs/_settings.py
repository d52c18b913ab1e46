"""Settings that training runs share, and the fresh model that some of them begin with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from tinygpt.core.config import Pick, fields, from_dict, refuse_idle, resolve_picks, to_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family
from tinygpt.model.config import MLP, ModelConfig
from tinygpt.model.lm import LM, initialize
from tinygpt.model.noise import Noise
from tinygpt.model.presets import Depth, by_depth, preset
from tinygpt.runs._memory import refuse_too_large
from tinygpt.train.guard import Guard
from tinygpt.train.pace import LEAST

OPTIM = Family("tinygpt.train.optim")
SCHEDULE = Family("tinygpt.train.schedule", verb="at")
OBJECTIVE = Family("tinygpt.train.objective")
# Settings that describe a fresh model, and mean nothing beside a base.
FRESH = {"tokenizer", "preset", "depth", "model"}
# Sizes of a model that are derived, and the fields that each follows from.
FOLLOWS = {
    "num_key_value_heads": {"num_attention_heads"},
    "head_dim": {"hidden_size", "num_attention_heads"},
    "intermediate_size": {"hidden_size"},
}
# Settings that mean nothing where no spikes are looked for.
SPIKES = {"spike_window", "spike_factor"}
# Settings of what is watched, and the one without which each means nothing.
WATCHES = {
    "patience": "eval_every", "keep_best": "eval_every", "min_delta": "patience", "eval_limit": "eval_tasks",
    "sample_prompt": "sample_every", "sample_tokens": "sample_every",
}  # fmt: skip
NOT_NEGATIVE = (
    "clip", "z_loss", "context", "save_every", "eval_every", "eval_batches", "max_minutes", "sample_every",
    "eval_limit", "patience", "min_delta", "max_step_rate",
)  # fmt: skip


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
    steps: Annotated[
        int | None, "Optimizer steps; not given: 500, or what another flag says, as --depth does."
    ] = None
    batch: Annotated[
        int | None, "Rows of a step; not given: 16, or what another flag says, as --depth does."
    ] = None
    accumulate: Annotated[int, "Split a step's rows into this many parts to save memory."] = 1
    context: Annotated[int, "Tokens of a row, and the context of a fresh model; 0: the model's own."] = 0
    lr: Annotated[
        float | None, "Peak learning rate; not given: 1e-3, or what another flag says, as --depth does."
    ] = None
    optimizer: Annotated[Pick, "Optimizer.", OPTIM] = Pick("adamw")
    schedule: Annotated[Pick, "Learning-rate schedule.", SCHEDULE] = Pick("cosine")
    lr_layer_decay: Annotated[
        float, "Learning rate of each block over that of the next one, and of embeddings over block 0's."
    ] = 1.0
    no_decay: Annotated[tuple[str, ...], "Parts of names of tensors without weight decay, e.g. embed."] = ()
    clip: Annotated[float, "Bound on the global gradient norm; 0: off."] = 1.0
    z_loss: Annotated[
        float, "Weight of the z-loss, mean (log Z)^2 of the logits; 1e-4 is PaLM's; 0: off."
    ] = 0.0
    dropout: Annotated[float, "Share of values set to 0 in training, on embeddings and sublayers."] = 0.0
    layer_drop: Annotated[float, "Chance that a row skips a block in training."] = 0.0
    neftune_alpha: Annotated[float, "Size of NEFTune's noise on embeddings in training; 5 is usual."] = 0.0
    grad_checkpoint: Annotated[
        bool, "Recompute each block in the backward pass: far less memory, two fifths more time."
    ] = False
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
    save_history: Annotated[bool, "Keep every resumable checkpoint, however many --keep says."] = False
    eval_every: Annotated[int, "Steps between held-out evaluations; 0: only at the end."] = 0
    eval_batches: Annotated[
        int, "Held-out batches an evaluation reads, always the same; each costs about 0.4 steps; 0: all."
    ] = 32
    keep_best: Annotated[
        bool, "Save whenever the held-out loss is the lowest so far, and keep that model in best/."
    ] = False
    patience: Annotated[int, "Stop early after so many held-out evaluations without progress; 0: never."] = 0
    min_delta: Annotated[float, "How much lower the held-out loss must be to count as progress."] = 0.0
    eval_tasks: Annotated[
        tuple[str, ...], "Suites to run beside each held-out evaluation, e.g. sort_6,executed_state."
    ] = ()
    eval_limit: Annotated[int, "Examples of each such suite; 0: as many as it has."] = 50
    eval_options: Annotated[
        dict[str, Any], "Settings of a suite, e.g. --set eval_options.exact_match.path=rows.jsonl."
    ] = field(default_factory=dict[str, Any])
    sample_every: Annotated[int, "Steps between samples of what the model writes; 0: none."] = 0
    sample_prompt: Annotated[
        str | None, "What samples go on from, or answer when conversations are learned; not given: 'The '."
    ] = None
    sample_tokens: Annotated[int, "Longest sample in tokens."] = 60
    throttle: Annotated[float, "Share of the time to work, from 0.01 to 1; rests between steps."] = 1.0
    max_step_rate: Annotated[float, "Most steps a second; 0: no bound."] = 0.0
    throttle_file: Annotated[
        Path | None, "File with a number that takes the place of --throttle while it is there."
    ] = None
    pause_on_battery: Annotated[bool, "Save and wait while the machine runs on its battery."] = False
    pause_when_hot: Annotated[bool, "Save and wait while heat holds the machine back (macOS)."] = False
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
        steps, batch, lr = self.amounts
        _ = self.noise
        warmup = getattr(self.course.options, "warmup", 0.0)
        if warmup >= steps and warmup > 1:
            raise ConfigError(
                f"--warmup {warmup:g} is not shorter than the run's {steps} steps: the rate would only rise",
                hint="give fewer warm-up steps, or a fraction of the run as 0.05",
            )
        if lr <= 0:
            raise ConfigError(f"--lr must be positive, got {lr}")
        if not 0 < self.lr_layer_decay <= 1:
            raise ConfigError(f"--lr-layer-decay must be above 0, at most 1, got {self.lr_layer_decay:g}")
        if self.no_decay and not getattr(self.optimizer.options, "weight_decay", 0.0):
            raise ConfigError(
                "--no-decay says nothing where optimizer.weight_decay is 0", hint="leave it out"
            )
        self._check_watching()
        for name in NOT_NEGATIVE:
            if getattr(self, name) < 0:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} must not be negative, got {getattr(self, name)}")
        refuse_idle(self, {"wait": "lock"})
        if self.resume and self.force:
            raise ConfigError(
                "--resume continues what is in --out, --force replaces it", hint="leave one out"
            )
        watch = None if self.auto_rollback == "off" else self.guard()
        if watch is None or not watch.detect:
            known = (f for f in fields(TrainSettings) if f.name in SPIKES)
            given = [f"--{f.name.replace('_', '-')}" for f in known if getattr(self, f.name) != f.default]
            how = "--auto-rollback off" if watch is None else "--no-spike-detect"
            if watch is None and not self.spike_detect:
                given.append("--no-spike-detect")
            if given:
                flags = ", ".join(given)
                raise ConfigError(f"{flags}: {how} looks for no spikes", hint="leave one of them out")
        if batch % self.accumulate:
            raise ConfigError(f"--batch {batch} is not a multiple of --accumulate {self.accumulate}")

    def _check_watching(self) -> None:
        """Refuse what would be looked at never, or twice."""
        if not LEAST <= self.throttle <= 1:
            raise ConfigError(f"--throttle must be from {LEAST} to 1, got {self.throttle}")
        if self.sample_tokens < 1:
            raise ConfigError(f"--sample-tokens must be at least 1, got {self.sample_tokens}")
        if self.save_history and self.keep != type(self).keep:
            raise ConfigError("--save-history keeps every checkpoint, --keep some", hint="leave one out")
        refuse_idle(self, WATCHES)
        tasks = tuple(name.replace("-", "_") for name in self.eval_tasks)
        options = {name.replace("-", "_"): value for name, value in self.eval_options.items()}
        if twice := next((name for name in tasks if tasks.count(name) > 1), None):
            raise ConfigError(f"--eval-tasks names {twice} twice", hint="name it once")
        if odd := next((name for name in options if name not in tasks), None):
            raise ConfigError(f"options for '{odd}', which is not run", hint=f"add --eval-tasks {odd}")
        object.__setattr__(self, "eval_tasks", tasks)
        object.__setattr__(self, "eval_options", options)

    @property
    def course(self) -> Pick:
        """The schedule that steps follow: the one that was chosen, unless a run changes what it says."""
        return self.schedule

    @property
    def noise(self) -> Noise:
        """The rates of training's noise, checked."""
        return Noise(dropout=self.dropout, layer_drop=self.layer_drop, neftune=self.neftune_alpha)

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

    def group_rules(self) -> dict[str, Any]:
        """What `train.groups.groups` is told."""
        return {"layer_decay": self.lr_layer_decay, "no_decay": self.no_decay}

    def row_length(self, model: ModelConfig, *, whole: bool) -> int:
        """Tokens of a row: --context, or all that the model can read. Refuses what this machine's memory
        cannot hold; `whole` says that all weights learn."""
        if self.context > model.max_position_embeddings:
            raise ConfigError(
                f"--context {self.context} is longer than the model's own, {model.max_position_embeddings}",
                hint="choose a shorter one",
            )
        length = self.context or model.max_position_embeddings
        head = getattr(model, "head", None)  # a foreign model says nothing of it
        horizons = getattr(head.options, "horizons", 1) if head is not None else 1
        if horizons > length:
            raise ConfigError(
                f"the head '{model.head.name}' predicts {horizons} tokens ahead, and a row has {length}",
                hint="lower model.head.horizons (--mtp-horizons), or choose a longer --context",
            )
        rows = self.amounts.batch // self.accumulate
        refuse_too_large(model, rows, length, self.dtype, whole=whole, recompute=self.grad_checkpoint)
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
        refuse_idle(self, {"regime": "depth"})
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
        changed = {name for name, value in self.model.items() if value != getattr(base, name, None)}
        sizes = {name: 0 for name, causes in FOLLOWS.items() if causes & changed}
        config = from_dict(ModelConfig, {**to_dict(base), **sizes, **context, **self.model}, "model")
        usual, now = (MLP.load(c.mlp.name).default_width(config.hidden_size) for c in (base, config))
        if usual != now and "intermediate_size" not in self.model:
            config = replace(config, intermediate_size=0)
        if config.vocab_size < vocab_size:
            raise ConfigError(
                f"model.vocab_size is {config.vocab_size}, but the tokenizer has {vocab_size} ids",
                hint="leave model.vocab_size out",
            )
        self.row_length(config, whole=True)
        return initialize(LM(config), seed)
