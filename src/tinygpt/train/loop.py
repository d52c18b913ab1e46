"""The one training loop: take batch i, step, tell, now and then evaluate and save, stop politely.

Pretraining, tuning, distillation, SAEs, probes and routers differ in the pieces they hand in, never in this
file. `source[i]` is a pure function of (seed, i) and the updater's state is explicit, so starting at i after
a restore equals never having stopped."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tinygpt.core import backend
from tinygpt.core.events import Evaluated, Events, RunEnded, TrainStep
from tinygpt.train.guard import Guard, diverged
from tinygpt.train.stop import Stop, on_signals

if TYPE_CHECKING:
    from tinygpt.data.batch import Batch

Hook = Callable[[int], dict[str, float]]


class Source(Protocol):
    """Indexable batches."""

    def __getitem__(self, index: int, /) -> Batch: ...


class Updater(Protocol):
    """Turns a batch into a change of weights."""

    def step(self, batch: Batch, step: int) -> dict[str, float]: ...

    def state(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When things happen, in steps; 0 means never. The last step always evaluates and saves."""

    steps: int
    save_every: int = 0
    eval_every: int = 0
    max_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run ended: status is "done", "interrupted" or "time"."""

    status: str
    step: int
    seconds: float
    metrics: dict[str, float]


def fit(
    source: Source,
    updater: Updater,
    plan: Plan,
    events: Events,
    *,
    start: int = 0,
    save: Callable[[int], None] | None = None,
    evals: Sequence[tuple[str, Hook]] = (),
    guard: Guard | None = None,
    stop: Stop | None = None,
) -> Result:
    """Run steps start+1 .. plan.steps and return how it ended.

    save(step) writes a checkpoint. evals are (name, hook) pairs whose hook(step) returns metrics. `guard`
    judges each step and may undo it. `stop` ends the run after the step in which it is set; without it the
    loop catches signals itself. Without a guard a loss that is no finite number ends the run with an error
    and leaves the last checkpoint as it is.
    """
    began = time.perf_counter()
    status, step, saved, metrics = "done", start, start, dict[str, float]()
    with contextlib.nullcontext(stop) if stop is not None else on_signals() as stop:
        while step < plan.steps and status == "done":
            step += 1
            metrics = _step(source, updater, step, events, guard)
            last = step == plan.steps
            if stop:
                status = "interrupted"
            elif plan.max_seconds and time.perf_counter() - began > plan.max_seconds and not last:
                status = "time"
            if evals and (last or status == "time" or _due(step, plan.eval_every)):
                for name, hook in evals:
                    found = hook(step)
                    metrics |= found
                    events.emit(Evaluated(step=step, name=name, metrics=found))
            if save is not None and (last or status != "done" or _due(step, plan.save_every)):
                save(step)
                saved = step
    assert save is None or saved == step
    seconds = time.perf_counter() - began
    events.emit(RunEnded(status=status, step=step, seconds=seconds, metrics=metrics))
    return Result(status=status, step=step, seconds=seconds, metrics=metrics)


def _step(
    source: Source, updater: Updater, step: int, events: Events, guard: Guard | None
) -> dict[str, float]:
    if guard is not None:
        guard.before(updater, step)
    began = time.perf_counter()
    batch = source[step - 1]
    facts = updater.step(batch, step)
    seconds = time.perf_counter() - began
    finite = math.isfinite(facts["loss"]) and math.isfinite(facts.get("grad_norm", 0.0))
    if guard is None and not finite:
        raise diverged(step, facts)
    tokens = batch.tokens.size
    own = {k: v for k, v in facts.items() if k not in ("loss", "lr", "grad_norm")}
    events.emit(
        TrainStep(
            step=step,
            loss=facts["loss"],
            lr=facts["lr"],
            grad_norm=facts.get("grad_norm", 0.0),
            tokens=tokens,
            tok_s=round(tokens / seconds, 1),
            mem_bytes=backend.memory_peak(),
            metrics=own,
        )
    )
    if guard is not None:
        guard.after(updater, step, facts, events, lambda n: updater.step(source[n - 1], n))
    return {"loss": facts["loss"]}


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
