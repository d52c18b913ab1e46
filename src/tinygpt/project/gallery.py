"""The gallery: bases that are known to be small and good, and how one is picked for a task and a machine.

A manifest of one's own (`--gallery FILE`) is {"version": 1, "models": [{"id", "name", "file", "paramCount",
"tags", ...}]}; `file` is a path or an hf:// name. Facts of the entries below are those of their model cards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError, DataError

KINDS = ("mac-safetensors-hf", "mac-tinygpt")  # kinds of entries that can be tuned


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A base. `parameters` counts weights; `tags` name tasks, languages and what it is for."""

    id: str
    where: str
    parameters: int
    tags: tuple[str, ...] = ()
    licence: str = ""
    gated: bool = False


def _known(where: str, millions: int, licence: str, *tags: str, gated: bool = False) -> Entry:
    return Entry(
        id=where.rpartition("/")[2].lower(), where=f"hf://{where}", parameters=millions * 10**6, tags=tags,
        licence=licence, gated=gated,
    )  # fmt: skip


BUILT_IN = (
    _known("HuggingFaceTB/SmolLM2-135M-Instruct", 135, "apache-2.0", "instruction", "chat"),
    _known("HuggingFaceTB/SmolLM2-360M-Instruct", 362, "apache-2.0", "instruction", "chat"),
    _known("Qwen/Qwen2.5-0.5B-Instruct", 494, "apache-2.0", "instruction", "chat", "tools"),
    _known("Qwen/Qwen3-0.6B", 596, "apache-2.0", "instruction", "chat", "tools"),
    _known("meta-llama/Llama-3.2-1B-Instruct", 1236, "llama3.2", "instruction", "chat", "tools", gated=True),
    _known("google/gemma-3-1b-it", 1000, "gemma", "instruction", "chat", gated=True),
    _known("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1711, "apache-2.0", "instruction", "chat"),
    _known("Qwen/Qwen3-1.7B", 1721, "apache-2.0", "instruction", "chat", "tools"),
    _known("HuggingFaceTB/SmolLM3-3B", 3075, "apache-2.0", "instruction", "chat", "tools"),
    _known("Qwen/Qwen3-4B-Instruct-2507", 4022, "apache-2.0", "instruction", "chat", "tools"),
)


def read(path: Path) -> tuple[Entry, ...]:
    """The entries of a manifest that can be tuned."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the gallery {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"the gallery {path} is not JSON: {error}") from error
    models = data.get("models") if isinstance(data, dict) else None
    if not isinstance(models, list):
        raise DataError(f"the gallery {path} has no list 'models'", hint='{"version": 1, "models": [...]}')
    return tuple(
        _entry(model, f"{path}: models[{i}]", path.parent) for i, model in enumerate(models) if _fits(model)
    )


def _fits(model: Any) -> bool:
    return not isinstance(model, dict) or model.get("kind", KINDS[0]) in KINDS


def _entry(model: Any, where: str, folder: Path) -> Entry:
    if not isinstance(model, dict) or not isinstance(model.get("id"), str):
        raise DataError(f"{where} must be an object with an 'id'")
    file, count, tags = model.get("file"), model.get("paramCount"), model.get("tags") or []
    if not isinstance(file, str) or not file:
        raise DataError(f"{where} ({model['id']}) has no 'file': a path or an hf:// name")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise DataError(f"{where} ({model['id']}) has no 'paramCount', the number of its weights")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise DataError(f"{where} ({model['id']}): 'tags' must be a list of names")
    path = file if file.startswith("hf:") else str(folder / file)
    return Entry(id=model["id"], where=path, parameters=count, tags=tuple(tags))


def find(entries: Iterable[Entry], wanted: str) -> Entry | None:
    """The entry with this id."""
    return next((entry for entry in entries if entry.id == wanted), None)


def choose(entries: Sequence[Entry], task: str, memory: int, *, gated: bool = False) -> Entry:
    """The largest base made for the task whose tuning, packed in 4 bits, takes at most half of the memory.

    Without one for the task, any. Gated ones are left out unless asked for: they need an account."""
    able = [entry for entry in entries if gated or not entry.gated]
    fitting = [entry for entry in able if least_bytes(entry.parameters) <= memory // 2]
    if not fitting:
        smallest = min(able, key=lambda entry: entry.parameters, default=None)
        told = (
            f"; the smallest, {smallest.id}, takes {least_bytes(smallest.parameters) / 1e9:.1f}"
            if smallest
            else ""
        )
        raise ConfigError(
            f"no base of the gallery can be tuned in half of {memory / 1e9:.1f} GB{told}",
            hint="give a smaller one with --base",
        )
    made_for = [entry for entry in fitting if task in entry.tags]
    return max(made_for or fitting, key=lambda entry: entry.parameters)


def least_bytes(parameters: int) -> int:
    """What tuning an adapter takes at least: weights of 4.5 bits, and half as much again for a step."""
    return int(1.5 * parameters * 4.5 / 8)
