"""Take duplicates out of data, and what an evaluation will ask."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events, Progress
from tinygpt.core.files import writing
from tinygpt.data import card, corpus, rows
from tinygpt.runs import _dedupe, _dedupe_report, _dedupe_units
from tinygpt.runs._dedupe_settings import Config as Config

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Stamps = list[tuple[int, int]]


def run(config: Config, events: Events) -> dict[str, Any]:
    """Write what stays, its card and the report; returns the counts."""
    import numpy as np

    corpus.refuse_weights(config.paths, "dedupe")
    found = _dedupe_units.find(config)
    config.refuse(found)
    unit = _dedupe_units.kind(config.unit, found)
    config.refuse_of(unit)
    stamps = _dedupe_units.stamp(found)
    sources = [card.of_file(path) for path in found]
    asked, bad = config.decontaminate, list[tuple[str, str]]()
    given = _dedupe_report.evaluation(asked, config.examples(), bad) if asked else None
    _tell(bad, config.strict, events)
    sketcher = config.sketcher(given)
    of = _dedupe.read(found, unit, config.field, config.score_field, sketcher, config.workers, events)
    _tell(of.bad, config.strict, events)
    alive = of.sketch.lengths >= config.min_len
    n_short = int((~alive).sum())
    of.overlaps = {i: met for i, met in of.overlaps.items() if alive[i]}
    alive[list(of.overlaps)] = False
    clusters = _dedupe.exact(of, alive)
    n_exact = int((clusters.first != np.arange(len(of))).sum())
    with contextlib.ExitStack() as stack:
        if sketcher.bands:
            folder, least = config.out.resolve().parent, config.near_threshold
            clusters.sets = stack.enter_context(_dedupe.sets(of, folder))
            _dedupe.alike(of, clusters, alive, sketcher, config.field, least, events)
        together = _dedupe.grouped(clusters, alive)
        stay = list(map(_dedupe.best(of, config.keep), together))
        kept = alive.copy()
        kept[[i for members in together for i in members]] = False
        kept[stay] = True
        if not (n_kept := int(kept.sum())):
            raise DataError("nothing is left", hint="look at --min-len, and at what --decontaminate names")
        if clusters.n_left_out:
            events.note(f"{clusters.n_left_out} pairs in crowded buckets were not compared", "warning")
        _write(config.out, of, kept, stamps, events)
        if config.report:
            rows.write(config.report, _dedupe_report.lines(of, clusters, together, stay, given))
    dropped = {
        "unreadable": len(of.bad), "too short": n_short, "contaminated": len(of.overlaps), "exact": n_exact,
        "near": int(alive.sum()) - n_exact - n_kept,
    }  # fmt: skip
    told: dict[str, Any] = {"clusters": len(together), "sizes": _dedupe_report.sizes(together)}
    if sketcher.bands:
        told |= {"bands": sketcher.bands, "rows": sketcher.rows, "compared": clusters.n_compared}
        told |= {"left_out": clusters.n_left_out}
    if given:
        told["evaluation"] = _dedupe_report.contaminated(of, given, asked)
    counted = np.bincount(of.of, minlength=len(found)).tolist()
    made = card.Card(
        made_by="tinygpt dedupe", settings=config.told(unit),
        sources=tuple(card.counted(one, n) for one, n in zip(sources, counted, strict=True)),
        stages=(card.Stage(
            name="dedupe", n_in=len(of) + len(of.bad), n_out=n_kept,
            dropped={why: n for why, n in dropped.items() if n}, notes=told,
        ),),
    )  # fmt: skip
    where = card.write(config.out, made)
    return {
        "out": str(config.out), "card": str(where), "unit": unit, "read": len(of) + len(of.bad),
        "kept": n_kept, "dropped": dropped, **told, "report": str(config.report) if config.report else None,
    }  # fmt: skip


def _tell(bad: list[tuple[str, str]], strict: bool, events: Events) -> None:
    """Say what was left out and why; with `strict`, refuse it."""
    if not bad:
        return
    first = "; ".join(f"{place}: {why}" for place, why in bad[:3])
    if strict:
        raise DataError(first, hint="repair the rows, or leave --strict out")
    events.note(f"{len(bad)} rows cannot be read and are left out: {first}", "warning")


def _write(out: Path, of: _dedupe.Read, kept: NDArray[np.bool_], stamps: Stamps, events: Events) -> None:
    """What stays, in the order in which it was read."""
    total = int(kept.sum())

    def items() -> Iterator[Any]:
        again = _dedupe_units.picked(of.files, of.unit, of.of, of.numbers, kept)
        for n, (_, item) in enumerate(again, 1):
            yield item
            if n % _dedupe.CHUNK == 0 or n == total:
                events.emit(Progress(task="write", done=n, total=total, unit="texts"))
        if _dedupe_units.stamp(of.files) != stamps:
            raise DataError("a file changed while it was read", hint="begin again")

    if of.unit in ("row", "file"):
        rows.write(out, items())
        return
    with writing(out) as file:
        for n, item in enumerate(items()):
            file.write(("\n" if n and of.unit == "doc" else "") + item + "\n")
