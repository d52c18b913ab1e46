"""The directory of a training run: the rules about making, resuming and replacing it."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tinygpt
from tinygpt.core import files
from tinygpt.core.config import fields, to_dict
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.core.lock import IN_USE
from tinygpt.data import corpus
from tinygpt.data.cache import content_hash
from tinygpt.model import checkpoint
from tinygpt.runs import _pieces
from tinygpt.train.world import World

if TYPE_CHECKING:
    from tinygpt.data.source._source import Source
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.runs._settings import TrainSettings

# Settings that may differ between a run and its resumption without changing what is computed.
FREE = {
    "out",
    "resume",
    "force",
    "wait",
    "lock",
    "save_every",
    "keep",
    "save_history",
    "keep_best",
    "patience",
    "min_delta",
    "eval_every",
    "eval_batches",
    "eval_tasks",
    "eval_limit",
    "eval_options",
    "sample_every",
    "sample_prompt",
    "sample_tokens",
    "throttle",
    "max_step_rate",
    "throttle_file",
    "pause_on_battery",
    "pause_when_hot",
    "max_minutes",
    "prefetch",
    "seed",
    "workers",
}


# Settings that say where inputs lie. How a path is spelled depends on where one stands: contents count.
HASHED = {
    "corpus", "data", "val_data", "base", "tokenizer", "start_adapter", "reference", "teacher",
    "teacher_adapter", "teacher_url", "teacher_model", "cache_teacher",
}  # fmt: skip
MIXED = {"corpus", "data"}  # of these, those that may be spelled name=path:weight


def inputs(source: Source, tokenizer: Tokenizer, base: Path | None) -> dict[str, str]:
    """Hashes of what a run learns from, by the name that an error gives it."""
    parts = [source, source.held_out] if source.held_out else [source]
    read = dict.fromkeys(file for part in parts for file in part.files)
    read_all = "".join(map(content_hash, read))
    data = hashlib.sha256(f"{read_all}{source.recipe}".encode()).hexdigest()
    found = {"the tokenizer": tokenizer.hash, "the data": data}
    return found if base is None else {"the base model": checkpoint.identity(base), **found}


class RunDirectory:
    """`out/{run.json, events.jsonl, steps/000200/, best/, final/}` and the rules about making and
    resuming it.

    Of several processes only rank 0 reads and writes it."""

    def __init__(self, command: str, config: TrainSettings, world: World | None = None) -> None:
        self.path = config.out
        self.command, self.config, self.world = command, config, world or World()
        self.old: dict[str, Any] | None = None
        self.record: dict[str, Any] = {}
        self.seed: int = self.world.first(self._look() if self.world.leads else 0)

    def _look(self) -> int:
        """Check that the run may begin or go on here; returns its seed."""
        command, config = self.command, self.config
        _pieces.refuse_inside(self.path)
        if not config.resume:
            files.refuse_existing(
                self.path, force=config.force, what="run directory", mark=_pieces.RUN,
                replaced={"": _pieces.RUN_FILES},
            )  # fmt: skip
            self._refuse_own_input()
        self.old = self._written()
        if config.resume and self.old:
            self._check_same(self.old)
        elif config.resume and (self.path.is_file() or (self.path.exists() and any(self.path.glob("[!.]*")))):
            raise ConfigError(f"{self.path} holds no run to resume", hint="choose another --out")
        old_seed = self.old["config"]["seed"] if self.old else None
        seed: int = (
            config.seed
            if config.seed is not None
            else old_seed
            if old_seed is not None
            else secrets.randbelow(2**31)
        )
        if self.old and seed != old_seed:
            raise ConfigError(
                f"the run in {self.path} has seed {old_seed}, not {seed}",
                hint="leave --seed out to resume",
            )
        self.record = {
            "command": command,
            "tinygpt": tinygpt.__version__,
            # How this process was started is not part of what the run is: `--config run.json` repeats it.
            "config": to_dict(config) | {"seed": seed, "resume": False, "force": False},
        }
        return seed

    def _written(self) -> dict[str, Any] | None:
        """The record of the run that this one goes on with or would collide with."""
        file = self.path / _pieces.RUN
        if self.config.force or not file.exists():
            return None
        record = checkpoint.read_json(file)
        settings, hashes = record.get("config"), record.get("inputs", {})
        if not isinstance(settings, dict) or "seed" not in settings or not isinstance(hashes, dict):
            raise ConfigError(
                f"{file} is not the record of a run: it lacks the settings, the seed or the inputs",
                hint="restore it from the run.json of the last checkpoint, or choose another --out",
            )
        return record

    def learns_from(self, found: dict[str, str]) -> None:
        """Record the hashes of the inputs; a resumed run must have the ones it began with, and all of its
        processes the same."""
        mine = int(hashlib.sha256("".join(found.values()).encode()).hexdigest()[:7], 16)
        if self.world.largest(int(self.world.first(mine) != mine)):
            raise ConfigError(
                f"the {self.world.size} processes of this run learn from different data, tokenizers or bases",
                hint="put the same files on every machine",
            )
        if not self.world.leads:
            return
        # A run of an older version recorded none, and learns from what it finds.
        began = (self.old or {}).get("inputs") or found
        if changed := [name for name in {**began, **found} if found.get(name) != began.get(name)]:
            raise ConfigError(
                f"cannot resume {self.path}: {' and '.join(changed)} changed since the run began",
                hint="put back what it began with, or begin anew with another --out or --force",
            )
        self.record["inputs"] = found

    def start(self) -> None:
        """Write run.json. Nothing is made or replaced before the inputs are known to be good and the machine
        is ours."""
        if self._written() != self.old:
            raise ConfigError(
                f"another process has used {self.path} since this one looked",
                hint="start again, or choose another --out",
            )
        if self.config.force and self.path.exists():
            self._clear()
        self._refuse_damaged()
        for folder in (self.path, self.path / "steps"):
            files.sweep(folder)
        files.write_json(self.path / _pieces.RUN, self.record)

    def _clear(self) -> None:
        """Remove the old run but for the lock that is held. What a kill leaves is always a run, with less in
        it: its record goes last."""
        try:
            for item in sorted(self.path.iterdir(), key=lambda p: (p.name == _pieces.RUN, p.name)):
                if item.is_dir():
                    files.remove_directory(item)
                elif item.name != IN_USE:
                    item.unlink()
        except OSError as error:
            raise files.unwritable(self.path, error) from error

    def _refuse_damaged(self) -> None:
        """A run goes on from its last checkpoint; where that is damaged, say which one is not."""
        *older, latest = [None, *self._checkpoints()]
        try:
            if latest is not None:
                checkpoint.validate(latest)
        except CheckpointError as error:
            whole = next((p for p in reversed(older) if p and _is_whole(p)), None)
            if whole is None:
                hint = "no older checkpoint is whole: copy it again, or begin anew with --force"
            else:
                hint = f"remove {latest}, and --resume goes on from step {int(whole.name)}"
            raise CheckpointError(error.message, hint=hint) from error

    def _refuse_own_input(self) -> None:
        """--force must not remove what the run is about to read."""
        out = self.path.resolve()
        for f in fields(type(self.config)):
            value = getattr(self.config, f.name)
            for one in value if isinstance(value, tuple) else (value,):
                named = f.name != "out" and isinstance(one, Path) or f.name == "tokenizer" and one != "byte"
                if not named or not self.path.exists():
                    continue
                path = corpus.parse(Path(one), f"--{f.name}").path if f.name in MIXED else Path(one)
                if path.resolve().is_relative_to(out):
                    raise ConfigError(
                        f"--{f.name} {one} is inside --out {self.path}, which is to be replaced",
                        hint="choose another --out",
                    )

    def _check_same(self, old: dict[str, Any]) -> None:
        if old.get("command") != self.command:
            raise ConfigError(f"{self.path} holds a '{old.get('command')}' run", hint="choose another --out")
        new = to_dict(self.config)
        free = FREE | HASHED if old.get("inputs") else FREE
        changed = [k for k, v in old["config"].items() if k not in free and new.get(k) != v]
        if changed:
            was = ", ".join(f"{k} {old['config'][k]!r} -> {new.get(k)!r}" for k in changed)
            raise ConfigError(
                f"cannot resume {self.path}: {was}",
                hint="resume with the same settings, or choose another --out",
            )

    @property
    def latest(self) -> Path | None:
        """The newest checkpoint, None when there is none."""
        found = self._checkpoints()
        return found[-1] if found else None

    def _checkpoints(self) -> list[Path]:
        found = (p for p in (self.path / "steps").glob("[0-9]*") if p.is_dir() and p.name.isdecimal())
        return sorted(found, key=lambda p: int(p.name))

    def step(self) -> int:
        """The step of the last checkpoint, 0 when there is none."""
        latest = self.latest
        return int(latest.name) if latest else 0

    def prune(self) -> None:
        """Keep the newest checkpoints only, unless all are wanted."""
        if self.config.save_history:
            return
        for path in self._checkpoints()[: -self.config.keep]:
            files.remove_directory(path)


def _is_whole(path: Path) -> bool:
    try:
        checkpoint.validate(path)
    except CheckpointError:
        return False
    return True
