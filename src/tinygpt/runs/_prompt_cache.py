"""Beginnings of prompts that are not read again: settings of commands that have a model write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import files
from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.infer.prefix import Prefixes
from tinygpt.infer.prefix_files import Folder
from tinygpt.infer.speculate._protocol import Drafter
from tinygpt.model import checkpoint
from tinygpt.model.shards import Shards
from tinygpt.runs import _pieces
from tinygpt.runs._adapters import Adapters


@dataclass(frozen=True, kw_only=True)
class PromptCache:
    """What is kept of prompts, in memory and for the next start."""

    prompt_cache: Annotated[float, "GB for beginnings of prompts, which are not read again; 0: none."] = 1.0
    prompt_cache_dir: Annotated[Path | None, "Folder in which they are kept for the next start."] = None

    def __post_init__(self) -> None:
        if self.prompt_cache < 0:
            raise ConfigError(f"'prompt_cache' must not be negative, got {self.prompt_cache:g}")
        refuse_idle(self, {"prompt_cache_dir": "prompt_cache"})

    def prefixes(self, events: Events | None) -> Prefixes | None:
        """Where they are kept; None: nowhere."""
        if not self.prompt_cache:
            return None
        most, folder = int(self.prompt_cache * 1e9), self.prompt_cache_dir
        return Prefixes(most, folder=None if folder is None else Folder(folder, most, events))

    def lane(
        self, engine: Engine, model: Path, worn: Adapters, events: Events | None, limits: Limits | None = None
    ) -> Lane:
        """A lane of an engine that was opened from `model` with these adapters on it."""
        weights = worn.adapter_weight or [1.0] * len(worn.adapter)
        name = ""
        if self.prompt_cache_dir is not None:  # memory holds what this engine has read, and nothing else
            own = _pieces.model_path(model)
            worn_now = list(zip(worn.adapter, weights, strict=True))
            name = identity(engine, digest(own, Shards(own).entries), worn_now)
        return lane(engine, limits, self.prefixes(events), name, engine.drafter, events)


def lane(
    engine: Engine,
    limits: Limits | None,
    kept: Prefixes | None,
    name: str,
    drafter: Drafter | None,
    events: Events | None,
) -> Lane:
    """A lane that reads nothing twice, which is said where its drafter does not allow it."""
    if kept is not None and drafter is not None and drafter.points and events is not None:
        events.note("the heads want to see all of a prompt: of this model, none is kept", "warning")
    return Lane(engine, limits, drafter=drafter, prefixes=kept, identity=name)


def identity(engine: Engine, weights: str, adapters: Sequence[tuple[Path, float]]) -> str:
    """What names a model's caches, since others may get its path: its weights as they lie and as they are
    held, and what is in its adapters."""
    worn = [f"{weight:g} {content(_pieces.model_path(path))}" for path, weight in adapters]
    return " ".join((weights, _pieces.held(engine.model), *worn))


def digest(folder: Path, entries: Mapping[str, Any]) -> str:
    """SHA-256 that names a model's weights: of its tensors' hashes where a manifest has them, else of names,
    shapes and places, since hashing gigabytes at each start would be slow. Two trainings of one model agree
    in all of these, so where the files lie and when they were written is part of it."""
    if (folder / checkpoint.MANIFEST).is_file():
        return checkpoint.identity(folder)
    lines = [f"{n} {e.code} {e.shape} {e.file} {e.start} {e.end}" for n, e in sorted(entries.items())]
    for path in sorted({(folder / entry.file).resolve() for entry in entries.values()}):
        lines.append(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}")
    lines.append(json.dumps(checkpoint.read_json(folder / "config.json"), sort_keys=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def content(path: Path) -> str:
    """Hashes of what an adapter does: a file of the original, or the tensors of a folder and its settings,
    which scale them."""
    found = (
        [path] if path.is_file() else sorted([*path.glob("*.safetensors"), *path.glob("adapter_config.json")])
    )
    return " ".join(map(files.sha256, found))


def worn(adapters: Sequence[Path], weights: Sequence[float] = ()) -> str:
    """One hash of the adapters that a model wears, with their weights where some were given; "" for none."""
    shares = [f"{w:g}*" for w in weights] or [""] * len(adapters)
    told = [f"{s}{content(_pieces.model_path(one))}" for s, one in zip(shares, adapters, strict=True)]
    return hashlib.sha256(" ".join(told).encode()).hexdigest() if told else ""
