"""What a run keeps on disk while it trains: resumable checkpoints, the best one, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core.backend import nn
from tinygpt.core.events import Events, Saved
from tinygpt.model import checkpoint
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._updater import Resumable
from tinygpt.train.guard import Guard
from tinygpt.train.state import fits
from tinygpt.train.update import Tensors
from tinygpt.train.watch import Watch

GUARD = "guard."  # begins the names of a guard's snapshots among the optimizer's tensors
BESIDE = "beside."  # those of what learns beside the model, and is no part of it


@dataclass
class Checkpoints:
    """write(path, **parts) saves the learned thing, resume(path) puts a checkpoint's weights back. What
    learns `beside` it is kept in resumable checkpoints only."""

    directory: RunDirectory
    updater: Resumable
    guard: Guard | None
    watch: Watch | None
    write: Callable[..., Path]
    resume: Callable[[Path], None] | None
    beside: nn.Module | None = None

    def take_back(self, latest: Path, events: Events) -> None:
        """Be as at the latest checkpoint."""
        assert self.resume is not None
        self.resume(latest)
        held = self.take_optimizer(latest)
        state = checkpoint.read_json(latest / "state.json")
        if self.guard is not None and (guarded := state.get("guard")) is not None:
            self.guard.restore(guarded, held)
        if self.watch is None or (watched := state.get("watch")) is None:
            return
        if watched.get("eval_batches") == self.directory.config.eval_batches:
            self.watch.restore(watched)
        else:  # losses over other batches cannot be compared
            events.note("--eval-batches has changed: the best held-out loss is looked for anew", "warning")

    def take_optimizer(self, path: Path) -> Tensors:
        """Restore the updater from a checkpoint; what a guard held there is returned."""
        tensors = checkpoint.read_tensors(path, "optimizer")
        held = {n.removeprefix(GUARD): tensors.pop(n) for n in list(tensors) if n.startswith(GUARD)}
        found = {n.removeprefix(BESIDE): tensors.pop(n) for n in list(tensors) if n.startswith(BESIDE)}
        if self.beside is not None:
            fits(dict(tree_flatten(self.beside.parameters())), found)
            self.beside.update(tree_unflatten(list(found.items())))
        self.updater.restore(tensors)
        return held

    def save(self, step: int, events: Events) -> None:
        """A resumable checkpoint of this step, and the best one where this is it."""
        path = self.directory.path / "steps" / f"{step:06d}"
        tensors = dict(self.updater.state())
        if self.beside is not None:
            tensors |= {BESIDE + name: value for name, value in tree_flatten(self.beside.parameters())}
        state: dict[str, Any] = {"step": step, "seed": self.directory.seed}
        if self.guard is not None:
            tensors |= {GUARD + name: value for name, value in self.guard.tensors().items()}
            state["guard"] = self.guard.state()
        if self.watch is not None:
            state["watch"] = {**self.watch.state(), "eval_batches": self.directory.config.eval_batches}
        self.write(path, state=state, optimizer=tensors, run=self.directory.record, replace=True)
        self.directory.prune()
        self.keep_best(step)
        events.emit(Saved(step=step, path=str(path), bytes=sum(p.stat().st_size for p in path.iterdir())))

    def keep_best(self, step: int) -> None:
        """The model that is held now, where its step is the best one; written after its checkpoint, so that a
        kill between them is made good on resuming."""
        watch = self.watch
        if watch is not None and watch.keep and watch.step == step:
            self._final("best", step, held_out_loss=watch.best)

    def finish(self, step: int) -> None:
        """What the run leaves."""
        self._final("final", step)

    def _final(self, name: str, step: int, **more: Any) -> None:
        self.write(self.directory.path / name, run=self.directory.record, step=step, replace=True, **more)
