"""The call that joins a training run's pieces: updater, resumption, evaluation, saving, the locks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from mlx.utils import tree_flatten

from tinygpt.core import backend, files
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, FileSink, RunStarted, Saved
from tinygpt.core.lock import gpu_lock, run_lock
from tinygpt.model import checkpoint
from tinygpt.runs import _watch
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._memory import expected
from tinygpt.runs._settings import OPTIM, SCHEDULE
from tinygpt.train.groups import groups
from tinygpt.train.loop import Hook, Plan, Result, Source, Updater, fit
from tinygpt.train.stop import on_signals
from tinygpt.train.update import Gradient, Objective, Tensors, arrays
from tinygpt.train.watch import Watch
from tinygpt.train.world import World

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer


class Resumable(Updater, Protocol):
    """An updater that takes its state back."""

    def restore(self, tensors: Tensors) -> None: ...


Make = Callable[[Callable[[int], float], str], Resumable]
"""make(rate, dtype): an updater, from the learning rate of a step and the compute dtype."""


def train(
    directory: RunDirectory,
    *,
    source: Source,
    objective: Objective,
    inputs: dict[str, str],
    write: Callable[..., Path],
    events: Events,
    facts: dict[str, Any],
    tokenizer: Tokenizer,
    template: ModuleType | None = None,
    held_out: Source | None = None,
    measured: Objective | None = None,
    resume: Callable[[Path], None] | None = None,
    after: Path | None = None,
    make: Make | None = None,
) -> Result:
    """Join the pieces and run the loop: updater, resumption, evaluation, saving, the locks.

    `inputs` are the hashes of what is learned from (`_directory.inputs`); `measured` is the objective of the
    held-out loss, where that is another. `tokenizer` reads and writes what is sampled, in conversations with
    a `template`. write(path, **parts) saves the learned thing (a model or an adapter); resume(path) puts a
    checkpoint's weights back. `after` is a checkpoint of another run, with these weights, whose steps and
    optimizer state this run continues; its schedule begins anew. `make` gives an updater other than
    Gradient."""
    config, world = directory.config, directory.world
    directory.learns_from(inputs)
    length, _, lr = config.amounts
    before = checkpoint.read_json(after / "state.json")["step"] if after is not None else 0
    steps = before + length
    schedule = SCHEDULE.load(config.schedule.name)
    dtype = backend.setup().default_dtype if config.dtype == "auto" else config.dtype
    model: Any = objective.module
    model.noise, model.recompute = config.noise, config.grad_checkpoint
    optimizer, options = OPTIM.load(config.optimizer.name), config.optimizer.options
    learned = [name for name, _ in tree_flatten(objective.module.trainable_parameters())]

    def rate(step: int) -> float:
        return lr * schedule.at(step - before, length, config.schedule.options)

    if make and world.size > 1:
        raise ConfigError(f"'{directory.command}' runs in one process", hint="start it without a launcher")
    updater: Resumable = make(rate, dtype) if make else Gradient(
        objective, optimizer.build(options), rate,
        accumulate=config.accumulate, clip=config.clip, dtype=dtype, compiled=config.compile,
        seed=directory.seed, groups=groups(learned, **config.group_rules()),
        undecayed=optimizer.build(replace(options, weight_decay=0.0)) if config.no_decay else None,
        world=world,
    )  # fmt: skip
    watch = _watch.watch(config, held_out)
    pace = _watch.pace(config, events)
    # Signals are caught as soon as something is on disk, so that a stop is never less than polite.
    with (
        gpu_lock(directory.command, wait=config.wait, enabled=config.lock and world.leads),
        run_lock(directory.path, directory.command) if world.leads else contextlib.nullcontext(True) as held,
        on_signals() as stop,
        contextlib.ExitStack() as closing,
    ):
        start, over, told, speed = 0, False, Events(), 0.0
        tasks: list[tuple[str, Hook]] = []
        sample: Callable[[int], None] | None = None
        latest: Path | None = None
        if world.leads:
            directory.start()
            if not held:
                events.note(
                    f"nothing keeps other processes out of {directory.path}: it cannot be locked", "warning"
                )
            start, latest = directory.step() or before, directory.latest
            if watch is not None and latest is not None:
                _recall(watch, latest, config.eval_batches, events)
            over = watch is not None and watch.over
            if start < steps and not over and (directory.path / "final").is_dir():
                files.remove_directory(directory.path / "final")  # it will be older than the next checkpoint
            for note in backend.setup().notes:
                events.note(note, "warning")
            if latest is not None:
                assert resume is not None
                resume(latest)
                updater.restore(checkpoint.read_tensors(latest, "optimizer"))
            elif after is not None:
                updater.restore(checkpoint.read_tensors(after, "optimizer"))
            sink = FileSink(directory.path / "events.jsonl", resume_at=start if config.resume else None)
            told = Events(*events.sinks, sink)
            closing.callback(sink.close)
            module, written = objective.module, (tokenizer, template, config, told)
            tasks, sample = _watch.suites(module, *written), _watch.sampler(module, *written)
            if start < steps and not over:
                first = world.share(source[start])
                gflops, speed = _watch.tok_s_at_peak(module, first.tokens.shape[1], dtype)
                facts = facts | {"gflops": round(gflops, 1)}
                if isinstance(updater, Gradient):
                    facts["memory_bytes"] = expected(updater, first, told)
        start = world.first(start)
        if isinstance(updater, Gradient):
            updater.follow()
        told.emit(
            RunStarted(
                command=directory.command,
                step=start,
                steps=steps,
                facts={**facts, "seed": directory.seed, "processes": world.size},
            )
        )

        def save(step: int) -> None:
            path = directory.path / "steps" / f"{step:06d}"
            write(
                path,
                state={"step": step, "seed": directory.seed} | _seen(watch, config.eval_batches),
                optimizer=updater.state(),
                run=directory.record,
                replace=True,
            )
            directory.prune()
            keep_best(step)
            told.emit(Saved(step=step, path=str(path), bytes=sum(p.stat().st_size for p in path.iterdir())))

        def keep_best(step: int) -> None:
            """The model that is held now, where its step is the best one; written after its checkpoint, so
            that a kill between them is made good on resuming."""
            if watch is not None and watch.keep and watch.step == step:
                best = directory.path / "best"
                write(best, run=directory.record, step=step, held_out_loss=watch.best, replace=True)

        if latest is not None:
            keep_best(start)
        evals: list[tuple[str, Hook]] = []
        if held_out is not None:
            hook = held_out_loss(measured or objective, held_out, config.eval_batches, world)
            evals.append(("held_out", hook))
        evals += tasks
        plan = Plan(
            steps=steps, save_every=config.save_every, eval_every=config.eval_every,
            sample_every=config.sample_every, max_seconds=60 * config.max_minutes,
        )  # fmt: skip
        result = fit(
            source, updater, plan, told, start=start, save=save if world.leads else None, evals=evals,
            stop=stop, sample=sample, watch=watch, pace=pace, tok_s_at_peak=speed, agree=world.largest,
        )  # fmt: skip
        if world.leads and result.status != "interrupted":
            write(directory.path / "final", run=directory.record, step=result.step, replace=True)
    return result


def _seen(watch: Watch | None, batches: int) -> dict[str, Any]:
    """What a checkpoint says of the held-out losses so far, and on how many batches they were taken."""
    return {"watch": {**watch.state(), "eval_batches": batches}} if watch is not None else {}


def _recall(watch: Watch, latest: Path, batches: int, events: Events) -> None:
    """Go on watching where the checkpoint left off; losses over other batches cannot be compared."""
    state = checkpoint.read_json(latest / "state.json").get("watch")
    if state is None:
        return
    if state.get("eval_batches") == batches:
        watch.restore(state)
    else:
        events.note("--eval-batches has changed: the best held-out loss is looked for anew", "warning")


def held_out_loss(objective: Objective, source: Any, n: int, world: World | None = None) -> Hook:
    """A hook that returns the mean loss over the first n batches of a held-out source (0: all of them), for
    corpora that are mixed also that of each, over its share of the n batches; of several processes each takes
    some."""
    ranks = world or World()

    def sums(batch: dict[str, mx.array]) -> tuple[float, float]:
        """(total loss, what it is divided by) of a batch; on CPUs each core takes some rows."""
        lanes = backend.streams(len(batch["tokens"]))
        with backend.shards(lanes):
            found: list[tuple[mx.array, mx.array]] = []
            for i, lane in enumerate(lanes):
                with mx.stream(lane):
                    part = {name: value[i :: len(lanes)] for name, value in batch.items()}
                    count = objective.weights(part).sum()
                    found.append((objective.measure(part) * count, count))
            mx.eval(found)
        return sum(float(loss) for loss, _ in found), sum(float(count) for _, count in found)

    def mean(part: Any, n: int) -> float:
        total = weight = 0.0
        for i in range(ranks.rank, min(n, len(part)) if n else len(part), ranks.size):
            loss, count = sums(arrays(part[i]))
            total, weight = total + loss, weight + count
        total, weight = ranks.total([total, weight])
        return total / max(weight, 1.0)

    def hook(step: int) -> dict[str, float]:
        parts: dict[str, Any] = getattr(source, "parts", {})
        if not parts:
            return {"loss": mean(source, n)}
        # Corpora that are mixed are measured apart; the whole weighs them as the rows that train.
        found = {name: mean(part, -(-n // len(parts))) for name, part in parts.items()}
        whole = sum(source.weights[name] * loss for name, loss in found.items())
        return {"loss": whole, **{f"loss.{name}": loss for name, loss in found.items()}}

    return hook
