"""How to tune a base on these rows on this machine: from facts to settings, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinygpt.project.survey import Survey

FEW, MANY = 500, 5000  # rows
MOST_STEPS = 3000
BATCH = 8
CONTEXTS = (256, 512, 1024, 2048, 4096)
# Adam's rate for a matrix falls as one over its width (Yang et al. 2022, arXiv:2203.03466, table 3). Measured
# in docs/log.md: 2e-4 for all leaves a base of width 256 almost as it was.
RATE, WIDTH, HIGHEST = 2e-4, 2048, 5e-3
PACKED = 0.6  # of the memory: a base whose half-precision weights take more is tuned packed in 4 bits


@dataclass(frozen=True, kw_only=True)
class Base:
    """What the resolver asks of a base. `layers` and `width` are for the activations' size."""

    parameters: int
    context: int
    layers: int
    width: int
    packed: bool = False  # its weights are quantized as they lie
    noise: bool = True  # it can be trained with noise on its embeddings


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Memory in bytes, products in GFLOP/s, bytes of a weight that is computed with."""

    memory: int
    gflops: float
    value_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of the tuning run, what they cost, and why they are as they are."""

    adapter: str
    rank: int
    alpha: float
    targets: str
    steps: int
    batch: int
    context: int
    lr: float
    neftune: float
    qlora: bool
    memory_bytes: int
    seconds: float
    reasons: tuple[str, ...]


def resolve(survey: Survey, tokens: tuple[int, int], base: Base, machine: Machine, steps: int = 0) -> Plan:
    """The plan for rows of so many tokens (mean, length that 99 of 100 do not pass), or for exactly `steps`.

    More rows can teach more, so the rank grows with them and the epochs shrink; a batch holds BATCH rows of
    `context` tokens, into which several conversations are packed."""
    mean, long = tokens
    n, told = survey.n_rows, list[str]()
    rank, epochs = (8, 5) if n < FEW else (16, 3) if n < MANY else (32, 2)
    told.append(f"rank {rank}, {epochs} epochs: {n} rows")
    context = next((size for size in CONTEXTS if size >= long), CONTEXTS[-1])
    context = min(context, base.context)
    told.append(f"context {context}: 99 of 100 rows have at most {long} tokens")
    if long > context:
        told.append(
            "longer rows lose their beginning"
            + ("; the base reads no more" if context == base.context else "")
        )
    a_row = max(1, context // max(1, mean))  # conversations of a packed row
    batch = max(1, min(BATCH, math.ceil(n / (8 * a_row))))  # at least eight steps an epoch
    wanted = math.ceil(epochs * n / (a_row * batch))
    if steps:
        told.append(f"{steps} steps, as asked: {steps * a_row * batch / n:.1f} epochs")
    elif wanted > MOST_STEPS:
        told.append(f"{MOST_STEPS} steps at most: {MOST_STEPS * a_row * batch / n:.1f} epochs")
    steps = steps or max(20, min(MOST_STEPS, wanted))
    lr = float(f"{min(HIGHEST, RATE * max(1.0, WIDTH / base.width)):.2g}")
    told.append(f"learning rate {lr:g}: a base of width {base.width}")
    neftune = 0.0 if survey.task == "tools" or not base.noise else 5.0
    why = "mlx_lm runs this base, and has none" if not base.noise else "calls are copied exactly"
    told.append(f"no noise on embeddings: {why}" if not neftune else "NEFTune 5: prose")
    weights = base.parameters * machine.value_bytes
    qlora = not base.packed and weights > PACKED * machine.memory
    if qlora:
        told.append(f"packed in 4 bits: whole weights take {weights / 1e9:.1f} GB")
    held = base.parameters * (4.5 / 8 if qlora or base.packed else machine.value_bytes)
    # A block keeps about 34 values a token and feature (Korthikanti et al. 2022, arXiv:2205.05198, eq. 1).
    activations = 34 * base.layers * base.width * batch * context * machine.value_bytes // 2
    # Forward, and backward through frozen weights, which takes no gradient of them: 4 of the usual 6 N.
    seconds = 4 * base.parameters * batch * context * steps / (machine.gflops * 1e9)
    return Plan(
        adapter="dora", rank=rank, alpha=2.0 * rank, targets="all-linear", steps=steps, batch=batch,
        context=context, lr=lr, neftune=neftune, qlora=qlora, memory_bytes=int(held + activations),
        seconds=seconds, reasons=tuple(told),
    )  # fmt: skip
