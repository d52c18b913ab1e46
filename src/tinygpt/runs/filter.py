"""Take private data and secrets out of rows, and leave out rows that are not wanted."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events, Progress
from tinygpt.core.files import writing
from tinygpt.data import card, table
from tinygpt.data.filters import Outcome
from tinygpt.data.message import json_of
from tinygpt.data.spread import cores, spread
from tinygpt.runs import _dedupe_units, _judged
from tinygpt.runs._filter_settings import Config as Config

CHUNK = 256  # rows that a process gets at once
WORTH = 8 << 20  # bytes from which a second process saves more than it takes to begin
UNREADABLE = "unreadable"


def run(config: Config, events: Events) -> dict[str, Any]:
    """Write what is left, the sidecar and the card; returns the counts."""
    filters = config.filters()
    path = config.file
    unit = _dedupe_units.kind("auto", [path])
    source = None if config.dry_run else _judged.source(path)  # before it could change
    bad, numbers = list[tuple[int, str]](), list[list[int]]()
    workers = config.workers or (min(cores(), 8) if path.is_file() and path.stat().st_size >= WORTH else 1)
    dropped, found, n_in, n_out = Counter[str](), Counter[str](), 0, 0
    n_changed = 0
    with contextlib.ExitStack() as stack:
        out = _file(stack, None if config.dry_run else config.out)
        sidecar = _file(stack, None if config.dry_run else config.sidecar)
        for outcomes in spread(filters.rows, _chunks(config, unit, numbers, bad), workers):
            for number, outcome in zip(numbers.pop(0), outcomes, strict=True):
                n_in += 1
                found.update(one.recogniser for one in outcome.found)
                _note(sidecar, number, outcome)
                if outcome.reason:
                    dropped[outcome.reason] += 1
                    continue
                n_out += 1
                n_changed += bool(outcome.found)
                if out:
                    said = json.dumps(outcome.row, ensure_ascii=False) if unit == "row" else outcome.row
                    out.write(said + "\n")
            events.emit(Progress(task="filter", done=n_in, total=0, unit=f"{unit}s"))
        for number, why in bad:
            _tell(sidecar, {"row": number, "reason": UNREADABLE, "why": why})
        if not n_in + len(bad):
            raise DataError(f"{path} is empty", hint="put rows in it")
        if not n_out and not config.dry_run:
            reasons = ", ".join(f"{why} {n}" for why, n in dropped.most_common())
            raise DataError(f"nothing is left of {path}: {reasons or bad[0][1]}", hint="loosen the filters")
    if bad:
        first = "; ".join(f"{table.unit(path)} {number}: {why}" for number, why in bad[:3])
        events.note(f"{len(bad)} rows cannot be read and are left out: {first}", "warning")
        dropped[UNREADABLE] = len(bad)
    told: dict[str, Any] = {
        "unit": unit, "read": n_in + len(bad), "kept": n_out, "changed": n_changed,
        "dropped": dict(sorted(dropped.items())), "found": dict(sorted(found.items())),
        "out": None if config.dry_run else str(config.out), "card": None,
        "sidecar": str(config.sidecar) if config.sidecar and not config.dry_run else None,
    }  # fmt: skip
    if source is not None and config.out is not None:
        stage = card.Stage(
            name="filter", n_in=told["read"], n_out=n_out, dropped=told["dropped"],
            notes={"changed": n_changed, "found": told["found"]},
        )  # fmt: skip
        made = card.Card(
            made_by="tinygpt filter", settings=config.told(),
            sources=(card.counted(source, told["read"]),), stages=(stage,),
        )  # fmt: skip
        told["card"] = str(card.write(config.out, made))
    return told


def _chunks(
    config: Config, unit: str, numbers: list[list[int]], bad: list[tuple[int, str]]
) -> Iterator[list[Any]]:
    """The rows, some at a time; their numbers are added to `numbers`, those that are none to `bad`."""
    chunk, places = list[Any](), list[int]()
    for number, read in _dedupe_units.items(config.file, unit):
        try:
            chunk.append(json_of(read(), "row") if unit == "row" else read())
        except DataError as error:
            bad.append((number, error.message))
            continue
        places.append(number)
        if len(chunk) == CHUNK:
            numbers.append(places)
            yield chunk
            chunk, places = [], []
    if chunk:
        numbers.append(places)
        yield chunk


def _file(stack: contextlib.ExitStack, path: Any) -> IO[str] | None:
    return stack.enter_context(writing(path)) if path else None


def _note(sidecar: IO[str] | None, number: int, outcome: Outcome) -> None:
    """What was done with a row: a line for each thing found, and one where it is left out. Never the text."""
    for one in outcome.found:
        said = {"row": number, "recogniser": one.recogniser, "field": one.field}
        _tell(
            sidecar,
            said | {"start": one.start, "end": one.end, "done": "dropped" if outcome.reason else "redacted"},
        )
    if outcome.reason:
        figure = {} if outcome.figure is None else {"figure": outcome.figure}
        _tell(sidecar, {"row": number, "reason": outcome.reason} | figure)


def _tell(sidecar: IO[str] | None, said: dict[str, Any]) -> None:
    if sidecar is not None:
        sidecar.write(json.dumps(said, ensure_ascii=False) + "\n")
