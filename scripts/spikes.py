"""Seeded spikes with and without the guard, and its false alarms over many clean steps, on the nano model.

    python scripts/spikes.py --runs 20 --steps 400 --clean 20000

The text is a Markov chain over 64 symbols, drawn anew for every batch. A run gets one fault at a step that
its seed draws, in turn of these kinds: a batch of random targets; five of them in a row; a batch whose loss
is no number; one step with the learning rate times 100; the embeddings times 10 after a step. It recovers
when its held-out loss at the end is within 2 % of the clean run's.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from tinygpt.core.errors import TinyGPTError
from tinygpt.core.events import Events, MemorySink, RolledBack, Spike
from tinygpt.data.batch import Batch
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize
from tinygpt.train.guard import Guard
from tinygpt.train.loop import Plan, fit
from tinygpt.train.objective import response
from tinygpt.train.optim import adamw
from tinygpt.train.schedule import cosine
from tinygpt.train.update import Gradient, arrays

VOCAB, ROWS, LENGTH = 64, 8, 32
FAULTS = ("poison", "burst", "nan", "rate", "weights")
HELD_OUT = 1_000_000  # batches from here on are never trained on


class Chain:
    """Batch i of a Markov chain, and the fault of a run."""

    def __init__(self, fault: str = "", at: int = -1) -> None:
        draw = np.random.default_rng(0)
        self.sums = np.cumsum(draw.dirichlet(np.full(VOCAB, 0.05), VOCAB), axis=1)
        last = at + (5 if fault == "burst" else 1)
        self.poisoned = range(at, last) if fault in ("poison", "burst", "nan") else range(0)
        self.fault = fault

    def __getitem__(self, index: int) -> Batch:
        draw = np.random.default_rng((1, index))
        ids = np.empty((ROWS, LENGTH + 1), np.int32)
        ids[:, 0] = draw.integers(0, VOCAB, ROWS)
        for i, u in enumerate(draw.random((LENGTH, ROWS)), 1):
            ids[:, i] = np.minimum((self.sums[ids[:, i - 1]] < u[:, None]).sum(axis=1), VOCAB - 1)
        ones, steps = np.ones((ROWS, LENGTH), np.int32), np.arange(LENGTH, dtype=np.int32)
        batch = Batch(
            tokens=ids[:, :-1], targets=ids[:, 1:], weights=ones.astype(np.float32),
            positions=np.broadcast_to(steps, ones.shape).copy(), segments=ones,
        )  # fmt: skip
        if index not in self.poisoned:
            return batch
        if self.fault == "nan":
            return replace(batch, weights=np.full_like(batch.weights, np.nan))
        return replace(batch, targets=draw.integers(0, VOCAB, ids[:, 1:].shape).astype(np.int32))


class Faulty(Gradient):
    """Spoils the embeddings, as a broken machine may."""

    at = -1

    def step(self, batch: Batch, step: int) -> dict[str, float]:
        facts = super().step(batch, step)
        if step == self.at:
            self.at = -1
            self.weights = {n: w * 10 if "embed_tokens" in n else w for n, w in self.weights.items()}
        return facts


def train(steps: int, guard: Guard | None, fault: str = "", at: int = -1) -> tuple[float, MemorySink]:
    """Held-out loss at the end (NaN where the run gave up) and what was told; the fault hits step at + 1."""
    config = ModelConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=LENGTH,
    )  # fmt: skip
    objective = response.build(initialize(LM(config), 0))
    shape, memory = cosine.Config(), MemorySink()

    def rate(step: int) -> float:
        return 3e-3 * cosine.at(step, steps, shape) * (100 if fault == "rate" and step == at + 1 else 1)

    updater = Faulty(objective, adamw.build(adamw.Config()), rate)
    updater.at = at + 1 if fault == "weights" else -1
    try:
        fit(Chain(fault, at), updater, Plan(steps=steps), Events(memory), guard=guard)
    except TinyGPTError:
        return math.nan, memory
    clean = Chain()
    losses = [float(objective.loss(arrays(clean[HELD_OUT + i]))[0]) for i in range(32)]
    return sum(losses) / len(losses), memory


def told(memory: MemorySink) -> str:
    return f"{len(memory.of(Spike))} spikes, {len(memory.of(RolledBack))} returns"


def study(seeds: range, steps: int) -> int:
    """How many of these runs recover."""
    clean, memory = train(steps, Guard("on"))
    print(f"clean run of {steps} steps: held-out loss {clean:.4f}, {told(memory)}")
    good = 0
    for seed in seeds:
        fault = FAULTS[seed % len(FAULTS)]
        at = int(np.random.default_rng(seed).integers(60, steps - 40))
        loss, memory = train(steps, Guard("on"), fault, at)
        alone, _ = train(steps, None, fault, at)
        off = loss / clean - 1
        good += off < 0.02  # not so for a NaN
        print(f"seed {seed:2} {fault:8} at step {at + 1:3}: {loss:.4f} ({off:+.2%}; {told(memory)}), "
              f"without a guard {alone:.4f} ({alone / clean - 1:+.2%})", flush=True)  # fmt: skip
    print(f"{good} of {len(seeds)} end within 2 % of the clean run's loss")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    sizes: dict[str, Any] = {"runs": 20, "first": 0, "steps": 400, "clean": 20_000}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"[{value}]")
    options = parser.parse_args()
    if options.runs:
        study(range(options.first, options.first + options.runs), options.steps)
    if options.clean:
        began = time.perf_counter()
        loss, memory = train(options.clean, Guard("on"))
        spent = time.perf_counter() - began
        print(f"{options.clean} clean steps: held-out loss {loss:.4f}, {told(memory)}, {spent:.0f} s")


if __name__ == "__main__":
    main()
