"""Rows of several sources, filtered, mixed, shuffled and split, as a file of settings says.

out = "mix.jsonl"
held_out = 0.05
[[sources]]
path = "own.jsonl"
weight = 2
[[sources]]
dataset = "hf://datasets/org/name"
weight = 1
map = ["response=solution"]
[[stages]]
name = "length"
max_chars = 6000
[[stages]]
name = "exact"
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.config import to_dict
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data import card, mixing, rows, stages
from tinygpt.data.card import Card
from tinygpt.data.mixing import Pile
from tinygpt.data.tally import Tally
from tinygpt.runs import _data_out
from tinygpt.runs._prep_settings import Config
from tinygpt.runs._prep_sources import Opened


def run(config: Config, events: Events) -> dict[str, Any]:
    """Read, filter, mix, write; the facts of what was done."""
    place = config.out or Path("rows.jsonl")
    held = _data_out.held_out(place)
    if not config.dry_run:
        for path in (place, held) if config.held_out else (place,):
            _data_out.check(path, force=config.force)
    steps = [(Tally(name), step) for name, step in config.steps()]
    parts = [
        Opened(one, config.format, place.with_name(f"{place.name}.{i}"), events, config.resume, config.force)
        for i, one in enumerate(config.origins)
    ]
    written = {"--out": place, "--held-out": held if config.held_out else None}
    if not config.dry_run:
        _data_out.refuse(written, (path for one in parts for path in one.paths), force=True)
    if len({one.format for one in parts}) > 1:
        told = ", ".join(f"{one.origin}: {one.format}" for one in parts)
        raise ConfigError(f"the sources are of several formats: {told}", hint="set --format")
    with contextlib.ExitStack() as closing:
        piles, folder = list[Pile](), place.parent if config.out else Path(tempfile.gettempdir())
        for one in parts:
            piles.append(Pile(folder))
            closing.callback(piles[-1].close)
            piles[-1].fill(_through(one, steps, events))
        counts = [pile.n for pile in piles]
        taken = mixing.shares(counts, [one.weight for one in config.origins], config.limit)
        if not sum(taken):
            told = [one.tally.sentence() for one in parts] + [tally.sentence() for tally, _ in steps]
            why = ". ".join(filter(None, told))
            raise DataError(f"no row is left. {why}".strip(), hint="loosen the stages")
        facts: dict[str, Any] = {
            "format": parts[0].format, "rows": sum(taken), "held_out": 0,
            "sources": [
                {"source": str(one.origin), "read": one.tally.n_out, "kept": n, "taken": used}
                for one, n, used in zip(parts, counts, taken)
            ],
        }  # fmt: skip
        mixed = Tally("mix")
        mixed.n_in, mixed.n_out = sum(counts), sum(taken)
        mixed.dropped = {"beyond its share": mixed.n_in - mixed.n_out} if mixed.n_in > mixed.n_out else {}
        told = [*(one.tally.stage() for one in parts), *(tally.stage() for tally, _ in steps)]
        facts["stages"] = [stage.__dict__ for stage in (*told, mixed.stage())]
        if config.dry_run:
            return facts
        sources = tuple(one.source() for one in parts)
        apart = Pile(folder)
        closing.callback(apart.close)
        lines = _mixed(piles, taken, config)
        if config.shuffle:
            lines = mixing.shuffled(lines, sum(p.n_bytes for p in piles), config.seed, folder)
        facts["rows"] = rows.write(place, _split(lines, apart, config))
        facts["held_out"] = rows.write(held, map(json.loads, apart.lines())) if config.held_out else 0
        settings = {
            k: v for k, v in to_dict(config).items() if k not in ("out", "resume", "dry_run", "force")
        }
        one, other = (
            Card(
                made_by="tinygpt prep-data", settings=settings, sources=sources,
                stages=(*told, mixed.stage(), last) if config.held_out else (*told, mixed.stage()),
            )
            for last in card.held_out(facts["rows"], facts["held_out"])
        )  # fmt: skip
        facts |= {"out": str(place), "card": str(card.write(place, one))}
        if config.held_out:
            facts |= {"held_out_file": str(held), "held_out_card": str(card.write(held, other))}
    for one in parts:
        if one.journal is not None:
            one.journal.done()
    return facts


def _through(one: Opened, steps: Sequence[tuple[Tally, stages.Step]], events: Events) -> Iterator[Any]:
    """The rows of a source that come through all stages."""
    for row in one.rows():
        if one.tally.n_in % 1000 == 0:
            events.emit(Progress(task=f"read {one.origin}", done=one.tally.n_in, total=0, unit="rows"))
        for tally, step in steps:
            found = step(row)
            if isinstance(found, str):
                tally.drop(found)
                break
            tally.keep()
            row = found
        else:
            yield row


def _mixed(piles: Sequence[Pile], taken: Sequence[int], config: Config) -> Iterator[bytes]:
    for i, (pile, n) in enumerate(zip(piles, taken)):
        yield from mixing.drawn(pile, n, config.seed, str(i))


def _split(lines: Iterator[bytes], apart: Pile, config: Config) -> Iterator[Any]:
    """The rows to learn from; those that are held out go to `apart`. The same text is always on one side."""
    for line in lines:
        row = json.loads(line)
        if config.held_out and stages.drawn(row, config.seed, "held out") < config.held_out:
            apart.add(line)
        else:
            yield row
