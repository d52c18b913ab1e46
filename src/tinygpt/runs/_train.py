"""The call that joins a training run's pieces: updater, resumption, evaluation, saving, the locks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core import backend, files
from tinygpt.core.backend import nn
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, FileSink, RunStarted
from tinygpt.core.lock import gpu_lock, run_lock
from tinygpt.model import checkpoint
from tinygpt.runs import _watch
from tinygpt.runs._checkpoints import Checkpoints
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._held_out import held_out_loss
from tinygpt.runs._memory import expected
from tinygpt.runs._updater import Make, updater
from tinygpt.train.loop import Hook, Plan, Result, Source, fit
from tinygpt.train.preference._objective import Preference
from tinygpt.train.stop import on_signals
from tinygpt.train.update import Gradient, Objective, Rewrite

if TYPE_CHECKING:
    from tinygpt.data.template._choice import Template
    from tinygpt.data.tokenizer._protocol import Tokenizer


def train(
    directory: RunDirectory,
    *,
    source: Source,
    objective: Objective,
    inputs: dict[str, str],
    write: Callable[..., Path],
    tokenizer: Tokenizer,
    events: Events,
    facts: dict[str, Any],
    held_out: Source | None = None,
    measured: Objective | None = None,
    resume: Callable[[Path], None] | None = None,
    template: Template | None = None,
    after: Path | None = None,
    make: Make | None = None,
    rewrite: Rewrite | None = None,
    looks: Sequence[tuple[str, Hook]] = (),
    beside: nn.Module | None = None,
) -> Result:
    """Join the pieces and run the loop.

    `inputs` are the hashes of what is learned from (`_directory.inputs`); `measured` is the objective of the
    held-out loss, where that is another. `tokenizer` reads and writes what is sampled, in conversations with
    a `template`. write(path, **parts) saves the learned thing (a model or an adapter); resume(path) puts a
    checkpoint's weights back. `after` is a checkpoint of another run, with these weights, whose steps and
    optimizer state this run continues; its schedule begins anew. `make` gives an updater other than
    Gradient, `rewrite` the batch of a step where the model has a part in it; `looks` are what is measured
    beside the held-out loss; `beside` is what learns with the objective's module and is not saved with it, so
    that resumable checkpoints keep it apart. Of several processes rank 0 alone reads and writes the directory
    and tells."""
    config, world = directory.config, directory.world
    directory.learns_from(inputs)
    alone = isinstance(objective, Preference)  # it reads the two answers of a row as rows of their own
    packs = alone or getattr(objective.module, "packs", True)
    if not packs and (source[0].segments > 1).any():
        raise ConfigError(
            "this base is run by mlx_lm, which cannot keep the documents of a row apart",
            hint="give rows that are not packed, or a base of a type that tinygpt runs itself",
        )
    before = checkpoint.read_json(after / "state.json")["step"] if after is not None else 0
    steps = before + config.amounts.steps
    update = updater(directory, objective, before, make, rewrite)
    guard, watch, pace = config.guard(), _watch.watch(config, held_out), _watch.pace(config, events)
    if config.eval_every and held_out is None and not (config.eval_tasks or looks):
        raise ConfigError("--eval-every: nothing is held out", hint="raise --held-out, or leave it out")
    kept = Checkpoints(directory, update, guard, watch, write, resume, beside)
    module: Any = objective.module
    told, tasks, sample = Events(), list[tuple[str, Hook]](), None
    if world.leads:  # what is wrong with a suite or a prompt is said before anything is made
        written = (tokenizer, template, config, told)
        tasks, sample = _watch.suites(module, *written), _watch.sampler(module, *written)
    # Signals are caught as soon as something is on disk, so that a stop is never less than polite.
    with (
        gpu_lock(directory.command, wait=config.wait, enabled=config.lock and world.leads, events=events),
        run_lock(directory.path, directory.command) if world.leads else contextlib.nullcontext(True) as held,
        on_signals() as stop,
        contextlib.ExitStack() as closing,
    ):
        start, speed = 0, 0.0
        if world.leads:
            start = _begin(kept, events, held=held, before=before, steps=steps, after=after)
            sink = FileSink(directory.path / "events.jsonl", resume_at=start if config.resume else None)
            told.sinks += [*events.sinks, sink]
            closing.callback(sink.close)
            if start < steps and not (watch is not None and watch.over):
                widest = getattr(source, "widest", source.__getitem__)
                first = world.share(widest(start))
                dtype = backend.compute_dtype(config.dtype)
                gflops, speed = _watch.tok_s_at_peak(module, first.tokens.shape[1], dtype)
                facts = facts | {"gflops": round(gflops, 1)}
                if isinstance(update, Gradient):
                    facts["memory_bytes"] = expected(update, first, told)
        start = world.first(start)
        if isinstance(update, Gradient):
            update.follow()
        facts = facts | {"seed": directory.seed, "processes": world.size}
        told.emit(RunStarted(command=directory.command, step=start, steps=steps, facts=facts))
        evals: list[tuple[str, Hook]] = []
        if held_out is not None:
            hook = held_out_loss(measured or objective, held_out, config.eval_batches, world)
            evals.append(("held_out", hook))
        evals += [*looks, *tasks] if world.leads else tasks
        if isinstance(update, Gradient):  # what is looked at is what forward passes read
            evals = [(name, update.reading()(hook)) for name, hook in evals]
            sample = update.reading()(sample) if sample is not None else None
        plan = Plan(
            steps=steps, save_every=config.save_every, eval_every=config.eval_every,
            sample_every=config.sample_every, max_seconds=60 * config.max_minutes,
        )  # fmt: skip
        result = fit(
            source, update, plan, told, start=start, evals=evals, guard=guard, stop=stop,
            save=(lambda step: kept.save(step, told)) if world.leads else None,
            sample=sample, watch=watch, pace=pace, tok_s_at_peak=speed, agree=world.largest,
        )  # fmt: skip
        if world.leads and result.status != "interrupted":
            kept.finish(result.step)
    return result


def _begin(
    kept: Checkpoints, events: Events, *, held: bool, before: int, steps: int, after: Path | None
) -> int:
    """Make the directory ready and be as at its last checkpoint, or at `after`; returns the step."""
    directory, watch = kept.directory, kept.watch
    directory.start()
    if not held:
        events.note(f"nothing keeps other processes out of {directory.path}: it cannot be locked", "warning")
    start, latest = directory.step() or before, directory.latest
    if latest is not None:
        kept.take_back(latest, events)
    elif after is not None:
        kept.take_optimizer(after)
    over = watch is not None and watch.over
    if start < steps and not over and (directory.path / "final").is_dir():
        files.remove_directory(directory.path / "final")  # it will be older than the next checkpoint
    if latest is not None:
        kept.keep_best(start)
    for note in backend.setup().notes:
        events.note(note, "warning")
    return start
