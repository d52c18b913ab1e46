"""What a data set is, here or on the hub: its files, configurations and splits, columns, licence, rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core import files, hub
from tinygpt.core.errors import ConfigError, DataError, TinyGPTError
from tinygpt.core.events import Events
from tinygpt.data import card, hub_files, recognise, table
from tinygpt.data.message import kind_of
from tinygpt.runs import _hub_data, _rows_in

LARGEST = 64 << 20  # bytes of a file of the hub that is fetched to look into it
SHOWN = 3  # first rows that are shown
MODEL = ("config.json", "adapter_config.json", files.MANIFEST, files.LOCK, "run.json")


def is_data(path: Path) -> bool:
    """Whether a path means data: a name of the hub's, a file of rows, or a folder with rows and no model."""
    if hub.is_hub(path):
        return hub.is_dataset(path)
    if path.is_file():
        return hub_files.is_rows(path.name)
    if not path.is_dir() or any((path / name).exists() for name in MODEL) or any(path.glob("*.safetensors")):
        return False
    return any(hub_files.is_rows(name) for name in _names(path))


def inspect(path: Path, events: Events) -> dict[str, Any]:
    """The facts. Of the hub the card is fetched, and the first file where it is not large."""
    return _on_hub(path, events) if hub.is_hub(path) else _here(path)


def _on_hub(path: Path, events: Events) -> dict[str, Any]:
    found = _hub_data.look(hub.dataset(path), events)
    sizes = {one.name: one.size for one in found.listed.values()}
    facts: dict[str, Any] = {
        "kind": "data set", "path": str(found.name), "pinned": str(found.pinned), "page": found.page,
        "licence": found.licence, "gated": found.gated,
    }  # fmt: skip
    facts |= _files(sizes) | _splits(found.front, sizes)
    usual = facts["usual"]
    first = next((n for names in facts["configs"].get(usual, {}).values() for n in names), "")
    if not first:
        first = next((n for c in facts["configs"].values() for names in c.values() for n in names), "")
    facts["features"] = hub_files.features(found.front, usual)
    why = ""
    if first and sizes[first] > LARGEST:
        why = f"{first} has {sizes[first]:,} bytes: it is not fetched to look into it"
    elif first:
        try:
            return _shortened(facts) | _rows(_hub_data.fetch(found, [found.listed[first]], events), facts)
        except TinyGPTError as error:
            why = error.message
    return _shortened(facts) | {"rows": [], "no_rows": why or facts["why"]}


def _here(path: Path) -> dict[str, Any]:
    names = [path.name] if path.is_file() else _names(path)
    folder = path.parent if path.is_file() else path
    sizes = {name: (folder / name).stat().st_size for name in names}
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() and path.is_dir() else ""
    front = hub_files.front_matter(text)
    licence = hub_files.licence(front)
    beside = card.read(path) if path.is_file() else {}
    if beside.get("licences"):
        licence = " AND ".join(map(str, beside["licences"]))
    facts: dict[str, Any] = {"kind": "data set", "path": str(path), "licence": licence, "gated": ""}
    facts |= _files(sizes) | _splits(front, sizes)
    facts["features"] = hub_files.features(front, facts["usual"])
    data = [n for c in facts["configs"].values() for found in c.values() for n in found]
    return _shortened(facts) | _rows([folder / data[0]] if data else [], facts)


def _names(folder: Path) -> list[str]:
    return sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and not p.name.endswith(card.SUFFIX)
    )


def _files(sizes: Mapping[str, int]) -> dict[str, Any]:
    kinds: dict[str, int] = {}
    for name in sizes:
        kind = hub_files.kind(name) if hub_files.is_rows(name) else "other"
        kinds[kind] = kinds.get(kind, 0) + 1
    return {"files": len(sizes), "bytes": sum(sizes.values()), "kinds": dict(sorted(kinds.items()))}


def _splits(front: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Configurations with the files of each split, and which one is meant where none is named."""
    try:
        found = hub_files.layout(front, sizes)
    except DataError as error:
        return {"configs": {}, "usual": "", "why": error.message}
    told = {name: {k: list(v) for k, v in splits.items()} for name, splits in found.configs.items()}
    return {"configs": told, "usual": found.usual, "why": ""}


def _shortened(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same with numbers in place of long lists of files."""
    counts = {n: {split: len(found) for split, found in c.items()} for n, c in facts["configs"].items()}
    return {k: v for k, v in facts.items() if k not in ("configs", "why")} | {"configs": counts}


def _rows(paths: Sequence[Path], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The first rows, what they are for, and their columns where the card names none."""
    if not paths:
        return {"rows": [], "no_rows": facts["why"] or "there are no rows"}
    found = _rows_in.sample(paths, ())
    told: dict[str, Any] = {"rows": found[:SHOWN], "no_rows": "" if found else f"{paths[0].name} has none"}
    if not facts["features"] and found and isinstance(found[0], dict):
        told["features"] = {str(k): re.sub(r"^an? ", "", kind_of(v)) for k, v in found[0].items()}
    try:
        guess = recognise.agreed(found)
        told |= {"format": guess.format, "confidence": guess.confidence, "shape": guess.shape}
    except (DataError, ConfigError):
        told |= {"format": "", "confidence": 0.0, "shape": ""}
    return told | {"unit": table.unit(paths[0])}
