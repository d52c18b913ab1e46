"""The call that joins a training run's pieces: updater, resumption, evaluation, saving, the locks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinygpt.core import backend, files
from tinygpt.core.backend import mx, nn
from tinygpt.core.events import Events, FileSink, RunStarted, Saved
from tinygpt.core.lock import gpu_lock, run_lock
from tinygpt.model import checkpoint
from tinygpt.model.lm import LM
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._settings import OPTIM, SCHEDULE
from tinygpt.train.loop import Hook, Plan, Result, Source, fit
from tinygpt.train.qat import BITS, group_size, transform
from tinygpt.train.stop import on_signals
from tinygpt.train.update import Gradient, Objective, Transform, arrays

GUARD = "guard."  # begins the names of a guard's snapshots among the optimizer's tensors


def train(
    directory: RunDirectory,
    *,
    source: Source,
    objective: Objective,
    inputs: dict[str, str],
    write: Callable[..., Path],
    events: Events,
    facts: dict[str, Any],
    held_out: Source | None = None,
    measured: Objective | None = None,
    resume: Callable[[Path], None] | None = None,
) -> Result:
    """Join the pieces and run the loop: updater, resumption, evaluation, saving, the locks.

    `inputs` are the hashes of what is learned from (`_directory.inputs`); `measured` is the objective of the
    held-out loss, where that is another. write(path, **parts) saves the learned thing (a model or an
    adapter); resume(path) puts a checkpoint's weights back."""
    config = directory.config
    directory.learns_from(inputs)
    steps, _, lr = config.amounts
    schedule = SCHEDULE.load(config.schedule.name)
    dtype = backend.setup().default_dtype if config.dtype == "auto" else config.dtype
    updater = Gradient(
        objective, OPTIM.load(config.optimizer.name).build(config.optimizer.options),
        lambda step: lr * schedule.at(step, steps, config.schedule.options),
        accumulate=config.accumulate, clip=config.clip, dtype=dtype, compiled=config.compile,
        transform=_grid(config.qat, objective.module),
    )  # fmt: skip
    guard = config.guard()
    # Signals are caught as soon as something is on disk, so that a stop is never less than polite.
    with (
        gpu_lock(directory.command, wait=config.wait, enabled=config.lock),
        run_lock(directory.path, directory.command) as held,
        on_signals() as stop,
    ):
        directory.start()
        if not held:
            events.note(
                f"nothing keeps other processes out of {directory.path}: it cannot be locked", "warning"
            )
        start, latest = directory.step(), directory.latest
        if start < steps and (directory.path / "final").is_dir():
            files.remove_directory(directory.path / "final")  # it will be older than the next checkpoint
        for note in backend.setup().notes:
            events.note(note, "warning")
        if latest is not None:
            assert resume is not None
            resume(latest)
            tensors = checkpoint.read_tensors(latest, "optimizer")
            held = {n.removeprefix(GUARD): tensors.pop(n) for n in list(tensors) if n.startswith(GUARD)}
            updater.restore(tensors)
            watched = checkpoint.read_json(latest / "state.json").get("guard")
            if guard is not None and watched is not None:
                guard.restore(watched, held)
        sink = FileSink(directory.path / "events.jsonl", resume_at=start if config.resume else None)
        told = Events(*events.sinks, sink)
        told.emit(
            RunStarted(
                command=directory.command,
                step=start,
                steps=steps,
                facts={**facts, "seed": directory.seed},
            )
        )

        def save(step: int) -> None:
            path = directory.path / "steps" / f"{step:06d}"
            write(
                path,
                state={"step": step, "seed": directory.seed} | ({"guard": guard.state()} if guard else {}),
                optimizer=updater.state()
                | {GUARD + n: w for n, w in (guard.tensors() if guard else {}).items()},
                run=directory.record,
                replace=True,
            )
            directory.prune()
            told.emit(Saved(step=step, path=str(path), bytes=sum(p.stat().st_size for p in path.iterdir())))

        evals: list[tuple[str, Hook]] = []
        if held_out is not None:
            hook = held_out_loss(measured or objective, held_out, config.eval_batches)
            evals.append(("held_out", updater.reading()(hook)))
        plan = Plan(
            steps=steps, save_every=config.save_every, eval_every=config.eval_every,
            max_seconds=60 * config.max_minutes,
        )  # fmt: skip
        result = fit(source, updater, plan, told, start=start, save=save, evals=evals, guard=guard, stop=stop)
        if result.status != "interrupted":
            write(directory.path / "final", run=directory.record, step=result.step, replace=True)
        sink.close()
    return result


def _grid(qat: str, module: nn.Module) -> Transform | None:
    """What the forward pass reads, and the same in the model's config; None: the weights themselves."""
    bits = BITS.get(qat, 0)
    size = group_size(module) if bits else 0
    if isinstance(module, LM):
        module.trained_for(bits, size)
    return transform(bits, size) if bits else None


def held_out_loss(objective: Objective, source: Any, n: int) -> Hook:
    """A hook that returns the mean loss over the first n batches of a held-out source (0: all of them)."""

    def sums(batch: dict[str, mx.array]) -> tuple[float, float]:
        """(total loss, what it is divided by) of a batch; on CPUs each core takes some rows."""
        lanes = backend.streams(len(batch["tokens"]))
        with backend.shards(lanes):
            found: list[tuple[mx.array, mx.array]] = []
            for i, lane in enumerate(lanes):
                with mx.stream(lane):
                    part = {name: value[i :: len(lanes)] for name, value in batch.items()}
                    count = objective.weights(part).sum()
                    found.append((objective.loss(part)[0] * count, count))
            mx.eval(found)
        return sum(float(loss) for loss, _ in found), sum(float(count) for _, count in found)

    def hook(step: int) -> dict[str, float]:
        total = weight = 0.0
        for i in range(min(n, len(source)) if n else len(source)):
            loss, count = sums(arrays(source[i]))
            total, weight = total + loss, weight + count
        return {"loss": total / max(weight, 1.0)}

    return hook
