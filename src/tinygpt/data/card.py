"""Data cards: what a file of data was made of, what each stage took away, and under which licences.

Beside `rows.jsonl` lie `rows.card.json`, which other commands read, and `rows.card.md`, which people and the
hub read. A card says nothing of when it was made: the same inputs and settings give the same card. What a
source's own card says of licences and origins is carried on, so that it is not lost on the way.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinygpt.core import files
from tinygpt.data import table

UNKNOWN = "unknown"
SUFFIX = ".card.json"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One origin: a file, or a repository at a revision. `sha256` and `n_bytes` are of what was read, where
    that is a file; `licence` is an SPDX name where there is one."""

    name: str
    licence: str = UNKNOWN
    revision: str = ""
    sha256: str = ""
    n_bytes: int = 0
    n_rows: int = 0
    origins: tuple[Source, ...] = ()  # what its own card names


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step: how many came in, how many went on, and why the others did not. `notes` are its other
    figures."""

    name: str
    n_in: int
    n_out: int
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class Card:
    """All of it. `settings` are those that decide what the data are."""

    made_by: str
    settings: Mapping[str, Any]
    sources: tuple[Source, ...]
    stages: tuple[Stage, ...]

    @property
    def licences(self) -> tuple[str, ...]:
        """Of all sources and their origins, each once, those known first."""
        found = dict.fromkeys(one.licence for one in _all(self.sources))
        return tuple(sorted(found, key=lambda name: (name == UNKNOWN, name)))


def of_file(path: Path, *, licence: str = UNKNOWN, n_rows: int = 0) -> Source:
    """A file as a source. With a card beside it, its origins and, where none is given, its licences are that
    card's."""
    card = read(path)
    origins = tuple(_source(one) for one in card.get("sources", []))
    known = sorted({one.licence for one in _all(origins)} - {UNKNOWN})
    if licence == UNKNOWN and known:
        licence = " AND ".join(known)
    return Source(
        name=path.name, licence=licence, sha256=files.sha256(path), n_bytes=path.stat().st_size,
        n_rows=n_rows, origins=origins,
    )  # fmt: skip


def counted(source: Source, n_rows: int) -> Source:
    """The source with its rows counted, where that is known only after reading."""
    return dataclasses.replace(source, n_rows=n_rows)


def beside(path: Path) -> Path:
    """Where the card of a file lies: rows.card.json for rows.jsonl and rows.jsonl.gz, and
    rows.clean.card.json for rows.clean.jsonl."""
    return path.with_name(stem(path) + SUFFIX)


def stem(path: Path) -> str:
    """The name of a file without the suffix that says what is in it, packed or not."""
    return Path(_unpacked(path.name)).stem


def read(path: Path) -> dict[str, Any]:
    """The card of a file; empty where there is none. One that is of another file, as rows.jsonl beside
    rows.csv, is none; of one that was renamed the content tells."""
    found = files.peek_json(beside(path))
    told = found.get("file")
    of = told if isinstance(told, dict) else {}
    if not of or _unpacked(str(of.get("name"))) == _unpacked(path.name):
        return found
    return found if path.is_file() and of.get("sha256") == files.sha256(path) else {}


def held_out(train: int, apart: int) -> tuple[Stage, Stage]:
    """The last stage of what is learned from, and of what is held out of it."""
    one, other = {"held out": apart} if apart else {}, {"kept to learn from": train} if train else {}
    return (
        Stage(name="split", n_in=train + apart, n_out=train, dropped=one),
        Stage(name="split", n_in=train + apart, n_out=apart, dropped=other),
    )


def write(path: Path, card: Card) -> Path:
    """Write the card of the data at `path`, which is there already; returns where the JSON form is."""
    told = dataclasses.asdict(card) | {
        "licences": card.licences,
        "file": {"name": path.name, "bytes": path.stat().st_size, "sha256": files.sha256(path)},
    }
    where = beside(path)
    files.write_json(where, told)
    files.write_text(where.with_suffix(".md"), markdown(path.name, card))
    return where


def markdown(name: str, card: Card) -> str:
    """The card for people: front matter as the hub reads it, then the tables."""
    known = [licence for licence in card.licences if licence != UNKNOWN]
    licence = known[0].lower() if len(known) == len(card.licences) == 1 else "other" if known else UNKNOWN
    lines = ["---", f"license: {licence}", "---", "", f"# {name}", "", f"Made by `{card.made_by}`.", ""]
    sources = [[s.name, s.revision[:12], s.licence, _n(s.n_rows), s.sha256[:12]] for s in _all(card.sources)]
    lines += ["## Sources", "", *_table(("source", "revision", "licence", "rows", "sha256"), sources), ""]
    stages = [
        [s.name, _n(s.n_in), _n(s.n_out), ", ".join(f"{why} {n}" for why, n in s.dropped.items())]
        for s in card.stages
    ]
    lines += ["## Stages", "", *_table(("stage", "in", "out", "left out"), stages), ""]
    settings = [[key, f"`{json.dumps(value, default=str)}`"] for key, value in card.settings.items()]
    if settings:
        lines += ["## Settings", "", *_table(("setting", "value"), settings), ""]
    return "\n".join(lines)


def _all(sources: Sequence[Source]) -> list[Source]:
    return [found for one in sources for found in (one, *_all(one.origins))]


def _source(found: Mapping[str, Any]) -> Source:
    known = {name.name for name in dataclasses.fields(Source)} - {"origins"}
    origins = tuple(_source(one) for one in found.get("origins", []))
    return Source(**{key: value for key, value in found.items() if key in known}, origins=origins)


def _unpacked(name: str) -> str:
    while Path(name).suffix.lower() in table.PACKED:
        name = Path(name).stem
    return name


def _n(count: int) -> str:
    return f"{count:,}" if count else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return ["| " + " | ".join(row) + " |" for row in cells]
