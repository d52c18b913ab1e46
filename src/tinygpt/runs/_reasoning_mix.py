"""Rows with the depth of their questions: read, drawn by a mix of classes, and told of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tinygpt.core.errors import DataError, nearest
from tinygpt.core.events import Events
from tinygpt.data import card, rows, table
from tinygpt.data.message import json_of
from tinygpt.runs import _judged
from tinygpt.runs._reasoning_settings import CLASSES, SHORT, Config

DEPTH = "reasoning_depth"
SHAPE = "{prompt | text | messages, reasoning_depth}"


def depth_of(row: Any) -> str:
    """The class that a row has. DataError where it has none that is known."""
    given = row.get(DEPTH) if isinstance(row, dict) else None
    name = SHORT.get(str(given), given)
    if name not in CLASSES:
        raise DataError(f"'{DEPTH}' is {given!r}.{nearest(str(given), CLASSES)}", hint=", ".join(CLASSES))
    return str(name)


def draw(config: Config, events: Events) -> dict[str, Any]:
    """Write rows of a mix of classes, drawn by the seed; returns the counts."""
    path, mix = config.filter, config.mix
    assert path is not None
    bad, source = list[tuple[int, str]](), _judged.source(path)
    counts = dict.fromkeys(CLASSES, 0)
    for depth in rows.each(path, depth_of, bad, known=SHAPE):
        counts[depth] += 1
    taken = mixed(counts, mix)
    if not sum(taken.values()):
        lacking = ", ".join(name for name in CLASSES if mix[name] and not counts[name])
        raise DataError(
            f"{path} cannot give this mix: it has no {lacking or 'rows enough'}", hint="change it"
        )
    left, need = dict(counts), dict(taken)
    draws = {name: Random(f"{config.seed} mix {name}") for name in CLASSES}

    def drawn() -> Iterator[Any]:
        """Each class in order, so many of it, all choices alike likely (selection sampling)."""
        for row, depth in rows.each(path, lambda row: (json_of(row, "row"), depth_of(row)), [], known=SHAPE):
            if draws[depth].random() * left[depth] < need[depth]:
                need[depth] -= 1
                yield row
            left[depth] -= 1

    n = rows.write(config.out, drawn())
    tell(bad, path, events)
    dropped = {f"beyond the share of {name}": counts[name] - taken[name] for name in CLASSES}
    dropped = {why: k for why, k in (dropped | {"without a class": len(bad)}).items() if k}
    had = {"classes": taken, "had": counts}
    return end(config, source, sum(counts.values()) + len(bad), n, dropped, had)


def mixed(counts: dict[str, int], mix: dict[str, float]) -> dict[str, int]:
    """How many rows of each class: the most that have these shares."""
    total = min((counts[name] / share for name, share in mix.items() if share), default=0.0)
    return {name: int(total * share + 1e-9) for name, share in mix.items()}


def end(
    config: Config, source: card.Source, n_in: int, n_out: int, dropped: dict[str, int], notes: dict[str, Any]
) -> dict[str, Any]:
    """Write the card of what was written; returns the counts."""
    settings = (
        {"target_mix": config.mix, "seed": config.seed} if config.filter else {"model": str(config.model)}
    )
    stage = card.Stage(name="reasoning-classify", n_in=n_in, n_out=n_out, dropped=dropped, notes=notes)
    made = card.Card(
        made_by="tinygpt reasoning-classify", settings=settings, sources=(card.counted(source, n_in),),
        stages=(stage,),
    )  # fmt: skip
    where = card.write(config.out, made)
    return {
        "out": str(config.out),
        "card": str(where),
        "read": n_in,
        "kept": n_out,
        "dropped": dropped,
        **notes,
    }


def tell(bad: list[tuple[int, str]], path: Path, events: Events) -> None:
    """Say which rows are left out, and why."""
    if bad:
        first = "; ".join(f"{table.unit(path)} {number}: {why}" for number, why in bad[:3])
        events.note(f"{len(bad)} rows of {path} are left out: {first}", "warning")
