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
from tinygpt.train.pace import Pace
from tinygpt.train.stop import Stop, on_signals
from tinygpt.train.watch import Watch

if TYPE_CHECKING:
    from tinygpt.data.batch import Batch

Hook = Callable[[int], dict[str, float]]
ENDS = ("done", "early", "time", "interrupted")  # by urgency; how a run ends, unless an error ends it


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
    sample_every: int = 0
    max_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run ended: status is "done", "interrupted", "time" or "early" (its watch had seen enough)."""

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
    agree: Callable[[int], int] = int,
    sample: Callable[[int], None] | None = None,
    watch: Watch | None = None,
    pace: Pace | None = None,
    tok_s_at_peak: float = 0.0,
) -> Result:
    """Run steps start+1 .. plan.steps and return how it ended.

    save(step) writes a checkpoint. evals are (name, hook) pairs whose hook(step) returns metrics. `guard`
    judges each step and may undo it. `stop` ends the run after the step in which it is set; without it the
    loop catches signals itself. Without a guard a loss that is no finite number ends the run with an error
    and leaves the last checkpoint as it is. sample(step) shows what the model writes. `watch` follows an
    evaluation's loss: it ends the run, and asks for checkpoints. `pace` waits between steps. Tokens a second
    are told as a share of `tok_s_at_peak` (0: unknown). `agree` makes the processes of one run end at one
    step: it returns the largest of their numbers.
    """
    began = time.perf_counter()
    status, step, saved, metrics = "done", start, start, dict[str, float]()
    if watch is not None and agree(int(watch.over)):
        status = "early"
    if pace is not None:
        pace.start()
    with contextlib.nullcontext(stop) if stop is not None else on_signals() as stop:
        while step < plan.steps and status == "done":
            step += 1
            metrics = _step(source, updater, step, events, guard, tok_s_at_peak)
            last, better = step == plan.steps, False
            late = plan.max_seconds and time.perf_counter() - began > plan.max_seconds and not last
            status = ENDS[agree(3 if stop else 2 if late else 0)]
            if evals and (last or status == "time" or _due(step, plan.eval_every)):
                for name, hook in evals:
                    found = hook(step)
                    metrics |= found
                    events.emit(Evaluated(step=step, name=name, metrics=found))
                    # What is seen must not depend on when a run was stopped.
                    if watch is not None and (last or _due(step, plan.eval_every)):
                        better |= watch.see(step, name, found)
                if watch is not None and agree(int(watch.over)) and status == "done" and not last:
                    status = "early"
            if sample is not None and (last or _due(step, plan.sample_every)):
                sample(step)

            def keep(step: int = step) -> None:
                nonlocal saved
                if save is not None and saved != step:
                    save(step)
                    saved = step

            if better or last or status != "done" or _due(step, plan.save_every):
                keep()
            if pace is not None and status == "done" and not last:
                over = began + plan.max_seconds - time.perf_counter() if plan.max_seconds else math.inf
                pace.wait(stop, seconds=over, pausing=keep)
                if agree(int(bool(stop))):
                    status = "interrupted"
                    keep()
    assert save is None or saved == step
    metrics |= watch.metrics() if watch is not None else {}
    seconds = time.perf_counter() - began
    events.emit(RunEnded(status=status, step=step, seconds=seconds, metrics=metrics))
    return Result(status=status, step=step, seconds=seconds, metrics=metrics)


def _step(
    source: Source, updater: Updater, step: int, events: Events, guard: Guard | None, tok_s_at_peak: float
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
    tokens = batch.n_tokens
    own = {k: v for k, v in facts.items() if k not in ("loss", "lr", "grad_norm")}
    events.emit(
        TrainStep(
            step=step,
            loss=facts["loss"],
            lr=facts["lr"],
            grad_norm=facts.get("grad_norm", 0.0),
            tokens=tokens,
            tok_s=round(tokens / seconds, 1),
            mfu=round(tokens / seconds / tok_s_at_peak, 4) if tok_s_at_peak else None,
            mem_bytes=backend.memory_peak(),
            metrics=own,
        )
    )
    if guard is not None:
        guard.after(updater, step, facts, events, lambda n: updater.step(source[n - 1], n))
    return {name: facts[name] for name in ("loss", "reward") if name in facts}


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
