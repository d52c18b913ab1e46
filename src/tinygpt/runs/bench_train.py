"""Time training steps of a preset on random tokens: what speed to expect before a long run."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tinygpt.core import backend
from tinygpt.core.config import Pick, refuse_idle, resolve_picks
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, Progress
from tinygpt.core.lock import gpu_lock
from tinygpt.data.batch import Batch
from tinygpt.model import count
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize
from tinygpt.model.presets import preset
from tinygpt.runs._memory import refuse_too_large
from tinygpt.runs._settings import OBJECTIVE, OPTIM
from tinygpt.train.update import Gradient


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to time."""

    preset: Annotated[str, "Model size."] = "huge"
    vocab_size: Annotated[int, "Number of token ids."] = 256
    batch: Annotated[int, "Rows of a step."] = 4
    context: Annotated[int, "Tokens of a row; 0: the preset's context."] = 0
    steps: Annotated[int, "Steps to time."] = 10
    warmup: Annotated[int, "Steps to run first, compilation included."] = 2
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], "Compute dtype; auto: the device's best."
    ] = "auto"
    compile: Annotated[bool, "Compile the training step."] = True
    optimizer: Annotated[Pick, "Optimizer.", OPTIM] = Pick("adamw")
    seed: Annotated[int, "Seed of weights and tokens."] = 0
    wait: Annotated[bool, "Wait for another run to free the machine."] = False
    lock: Annotated[bool, "Take the machine's lock."] = True

    def __post_init__(self) -> None:
        resolve_picks(self)
        refuse_idle(self, {"wait": "lock"})
        for name in ("batch", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1")
        if self.context < 0 or self.warmup < 0:
            raise ConfigError("--context and --warmup must not be negative")


def run(config: Config, events: Events) -> dict[str, Any]:
    """Median and best step time, tokens per second, the share of the machine's product speed that is used."""
    longer = {"max_position_embeddings": config.context} if config.context else {}
    model_config = preset(config.preset, vocab_size=config.vocab_size, **longer)
    context = model_config.max_position_embeddings
    dtype = backend.compute_dtype(config.dtype)
    with gpu_lock("bench-train", wait=config.wait, enabled=config.lock, events=events):
        counted = time_steps(
            model_config,
            batch=config.batch,
            context=context,
            steps=config.steps,
            warmup=config.warmup,
            dtype=dtype,
            compiled=config.compile,
            seed=config.seed,
            optimizer=config.optimizer,
            events=events,
        )
    median, tokens = statistics.median(counted), config.batch * context
    gflops = count.flops_per_token(model_config, context) * tokens / median / 1e9
    product = backend.measure_gflops(dtype=dtype)
    return {
        "preset": config.preset,
        "parameters": count.parameters(model_config),
        "batch": config.batch,
        "context": context,
        "dtype": dtype,
        "step_seconds_median": median,
        "step_seconds_min": min(counted),
        "tok_s": tokens / median,
        "gflops": gflops,
        "gflops_of_a_product": product,
        "mfu": gflops / product,
        "peak_memory_bytes": backend.memory_peak(),
    }


def time_steps(
    model_config: ModelConfig,
    *,
    batch: int,
    context: int,
    steps: int,
    warmup: int = 2,
    dtype: str = "float32",
    compiled: bool = True,
    seed: int = 0,
    optimizer: Pick = Pick("adamw"),  # noqa: B008  (frozen)
    events: Events | None = None,
) -> list[float]:
    """Seconds of each timed step of a fresh model on random tokens."""
    refuse_too_large(model_config, batch, context, dtype)
    model = initialize(LM(model_config), seed)
    optimizer = optimizer.resolve(OPTIM, "optimizer")
    updater = Gradient(
        OBJECTIVE.load("next_token").build(model), OPTIM.load(optimizer.name).build(optimizer.options),
        lambda step: 1e-4, dtype=dtype, compiled=compiled,
    )  # fmt: skip
    given = random_batch(model_config.vocab_size, batch, context, seed)
    times: list[float] = []
    for step in range(1, warmup + steps + 1):
        began = time.perf_counter()
        updater.step(given, step)
        times.append(time.perf_counter() - began)
        if events is not None:
            events.emit(Progress(task="steps", done=step, total=warmup + steps, unit="steps"))
    return times[warmup:]


def random_batch(vocab_size: int, rows: int, length: int, seed: int) -> Batch:
    """Rows of random tokens, all of them learned, one document a row."""
    import numpy as np

    tokens = np.random.default_rng(seed).integers(0, vocab_size, (rows, length + 1), dtype=np.int32)
    positions = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    return Batch(
        tokens=tokens[:, :-1].copy(),
        targets=tokens[:, 1:].copy(),
        weights=np.ones((rows, length), np.float32),
        positions=positions,
        segments=np.ones((rows, length), np.int32),
    )
