"""Rows that teach a model when to hand over, of rows that say who was right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events
from tinygpt.data import card, rows, table
from tinygpt.data.escalating import DEFERRED, KEPT, REASON, SHAPE, Escalating
from tinygpt.runs import _data_out

BAD = "does not fit"


def build(source: Path, out: Path, events: Events, *, reason: str = REASON) -> dict[str, Any]:
    """Write the rows and their card. DataError where none can be used."""
    _data_out.check(out, force=True, read=(source,))
    bad: list[tuple[int, str]] = []
    make = Escalating(reason)
    found = rows.each(source, make, bad, known=SHAPE)
    first = next((row for row in found if row is not None), None)
    if first is None:
        raise DataError(f"{source}: nothing can be learned of its rows", hint=f"it needs {SHAPE}")

    def all_rows() -> Any:
        yield first
        yield from (row for row in found if row is not None)

    n = rows.write(out, all_rows())
    dropped = {why: count for why, count in sorted(make.seen.items()) if why not in (KEPT, DEFERRED)}
    if bad:
        told = "; ".join(f"{table.unit(source)} {number}: {why}" for number, why in bad[:3])
        events.note(f"{source}: {len(bad)} rows were left out: {told}", "warning")
        dropped[BAD] = len(bad)
    n_in = n + sum(dropped.values())
    counts = {KEPT: make.seen[KEPT], DEFERRED: make.seen[DEFERRED]}
    made = card.Card(
        made_by="tinygpt build-escalate-data", settings={"reason": reason},
        sources=(card.of_file(source, n_rows=n_in),),
        stages=(card.Stage(name="escalate", n_in=n_in, n_out=n, dropped=dropped, notes=counts),),
    )  # fmt: skip
    return {
        "out": str(out), "card": str(card.write(out, made)), "rows": n_in, **counts, "dropped": dropped,
    }  # fmt: skip
