"""Synthesize: a teacher answers rows, and a student can learn from them. What is answered is never lost."""

from __future__ import annotations

import collections
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tinygpt.core import lock
from tinygpt.core.errors import DataError, LockedError, RemoteError
from tinygpt.core.events import Events, Progress
from tinygpt.data import card, rows, table
from tinygpt.data.unanswered import SHAPES
from tinygpt.runs._checked import Check
from tinygpt.runs._journal import Journal
from tinygpt.runs._labels import Labels
from tinygpt.runs._synthesize import Config
from tinygpt.runs._teachers import Teacher, open_teacher

GIVE_UP = 10  # rows in turn that have no answer
AGAIN = "give the same command with --resume: what is answered is kept"


def run(config: Config, events: Events) -> dict[str, Any]:
    """Answer the rows and write them in their order, with a card, and what was rejected beside them.

    Nothing is written before every row has an answer or a reason to have none: RemoteError where a server
    left some without, which --resume asks for again."""
    with lock.only_one(config.out.parent / f".{config.out.name}.tinygpt.lock", lambda: _busy(config.out)):
        config.check_files()
        check = Check(config.format, keep_cut=config.keep_cut)
        teacher = open_teacher(config, events)
        total = sum(1 for _ in table.records(config.inputs))
        settings = config.decides() | {"teacher": teacher.identity}
        with Journal(config.out, settings, resume=config.resume) as journal:
            work = Labels(config, teacher, journal, check)
            _label(work, total, events)
            result = _written(work, events)
            journal.done()
    return result


def _label(work: Labels, total: int, events: Events) -> None:
    """Until every row has a line in the journal."""
    missed, count = 0, work.count
    for told in work.results():
        missed = missed + 1 if told.error and told.again else 0
        if missed >= GIVE_UP:
            raise RemoteError(f"{missed} rows in turn have no answer: {told.error}", hint=AGAIN)
        done = len(work.journal) + len(count.bad)
        events.emit(Progress(task="synthesize", done=done, total=total, unit="rows"))
    if work.teacher.unheard():
        events.note(
            f"{work.teacher.where} does not take the fields that tell it what an answer must be: answers "
            "were checked here alone", "warning",
        )  # fmt: skip
    if count.missing:
        number, why = count.missing[0]
        raise RemoteError(
            f"{len(count.missing)} of {count.rows} rows have no answer; row {number}: {why}", hint=AGAIN
        )


class _Sums:
    """What the lines of the journal add up to."""

    def __init__(self) -> None:
        self.rejected: collections.Counter[str] = collections.Counter()
        self.seconds: list[float] = []
        self.read = self.written = self.labelled = 0
        self.first = ""

    def add(self, line: Mapping[str, Any]) -> None:
        self.read, self.written = self.read + line["spent"][0], self.written + line["spent"][1]
        if line["seconds"] is not None:
            self.seconds.append(line["seconds"])
        self.labelled += "row" in line
        if "row" not in line:
            self.rejected[line["kind"]] += 1
            self.first = self.first or line["rejected"]["why"]


def _written(work: Labels, events: Events) -> dict[str, Any]:
    """The files, made of the journal, and the command's result."""
    config, count, journal = work.config, work.count, work.journal
    if not len(journal):
        why = f": {count.bad[0][1]}" if count.bad else ""
        raise DataError(f"no row of {config.inputs} asks anything{why}", hint=f"known shapes: {SHAPES}")
    numbers = [number for number, _ in table.records(config.inputs) if str(number) in journal]
    sums = _Sums()
    for number in numbers:
        sums.add(journal[str(number)])
    n_rejected = sum(sums.rejected.values())
    if not sums.labelled:
        raise DataError(
            f"none of the {n_rejected} answers can be kept: {sums.first}",
            hint=f"--resume --retry-rejected asks again; for other settings remove {journal.path}",
        )

    def lines(key: str) -> Iterator[Any]:
        return (line[key] for number in numbers if key in (line := journal[str(number)]))

    if n_rejected:
        rows.write(config.rejects, lines("rejected"))
    rows.write(config.out, lines("row"))
    if count.bad:
        first = "; ".join(f"{table.unit(config.inputs)} {n}: {why}" for n, why in count.bad[:3])
        events.note(f"{config.inputs}: {len(count.bad)} of {count.rows} rows ask nothing: {first}", "warning")
    where = card.write(config.out, _card(config, work.teacher, count.rows, len(count.bad), sums))
    paid = config.price_in or config.price_out
    cost = (sums.read * config.price_in + sums.written * config.price_out) / 1e6
    taken = sorted(sums.seconds)
    return {
        "out": str(config.out), "card": str(where), "rejects": str(config.rejects) if n_rejected else None,
        "rows": count.rows, "labelled": sums.labelled, "rejected": dict(sorted(sums.rejected.items())),
        "skipped": len(count.bad), "kept_from_before": count.kept, "teacher": work.teacher.name,
        "endpoint": work.teacher.where, "prompt_tokens": sums.read, "completion_tokens": sums.written,
        "cost": cost if paid else None,
        "seconds_median": statistics.median(taken) if taken else None,
        "seconds_p95": taken[math.ceil(0.95 * len(taken)) - 1] if taken else None,
    }  # fmt: skip


def _card(config: Config, teacher: Teacher, n: int, n_bad: int, sums: _Sums) -> card.Card:
    """No times and no prices: the same rows and settings give the same card."""
    licence = config.licence or card.UNKNOWN
    asked = [
        card.Stage(name="read", n_in=n, n_out=n - n_bad, dropped={"asks nothing": n_bad} if n_bad else {}),
        card.Stage(
            name="answer", n_in=n - n_bad, n_out=sums.labelled, dropped=dict(sorted(sums.rejected.items()))
        ),
    ]
    sources = (
        card.of_file(config.inputs, n_rows=n),
        card.Source(name=f"answers of {teacher.name} ({teacher.where})", licence=licence),
    )
    return card.Card(
        made_by="tinygpt synthesize", settings=config.decides(), sources=sources, stages=tuple(asked)
    )


def _busy(out: Path) -> None:
    raise LockedError(f"another process is writing {out}", hint="wait for it, or name another file")
