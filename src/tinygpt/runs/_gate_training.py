"""Whether a gate's examples stand in what the model learned from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tinygpt.core.config import load_file
from tinygpt.core.errors import DataError, TinyGPTError
from tinygpt.core.events import Events
from tinygpt.data import corpus, rows, table
from tinygpt.data.source import text as text_source
from tinygpt.eval.gate.evidence import Side
from tinygpt.eval.gate.leak import overlap, question
from tinygpt.eval.gate.spec import Spec, Suite
from tinygpt.runs._gate_child import chosen
from tinygpt.runs._suites import SUITES

READ = ("corpus", "data")  # settings of a run that name what it learns from
RUN = "run.json"


def check(
    spec: Spec, base: Path, new: Side, events: Events, without: Collection[str] = ()
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """For each suite but those `without` rows how many of its examples are in the training data, and what is
    too many. A suite whose questions are not known is a problem: it cannot be shown to be clean."""
    if not spec.train_data:
        return {}, []
    suites = spec.suites or [Suite(name=task) for task in dict.fromkeys(row.task for row in new.rows)]
    found: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    for suite in (one for one in suites if one.name not in without):  # running those said why
        asked, unknown = _questions(suite, spec, base, new)
        if unknown or not asked:
            what = f"{unknown} of its examples do" if asked else "its examples do"
            problems.append((suite.name, f"{what} not say what was asked, so train_data cannot be checked"))
            continue
        bad = list[tuple[int, str]]()
        seen = overlap(asked, _training(spec, base, bad), spec.likeness)
        if bad:
            line, why = bad[0]
            events.note(f"{len(bad)} rows of the training data cannot be read; {line}: {why}", "warning")
        found[suite.name] = {
            "examples": seen.n, "seen": len(seen.seen), "ids": list(seen.seen[:20]),
            "trainingTexts": seen.n_training, "unreadable": len(bad), "allowedShare": spec.max_overlap,
            "likeness": spec.likeness,
        }  # fmt: skip
        if seen.share > spec.max_overlap:
            what = f"{len(seen.seen)} of {seen.n} examples are in the training data"
            problems.append(
                (suite.name, f"{what} ({', '.join(seen.seen[:5])}); max_overlap is {spec.max_overlap:g}")
            )
    return found, problems


def _questions(suite: Suite, spec: Spec, base: Path, new: Side) -> tuple[dict[str, str], int]:
    """What is asked in each example by its id, and of how many that is not known."""
    if suite.suite:
        try:
            given: list[Mapping[str, Any]] = (
                SUITES.load(suite.suite).load(chosen(suite, spec.budget, base)).items
            )
        except TinyGPTError:
            return {}, 0  # running it said why
    else:
        given = [record for record in new.records if record.get("task") == suite.of_task]
    asked = {str(one.get("id")): question(one) for one in given}
    known = {id: text for id, text in asked.items() if text}
    return known, len(asked) - len(known)


def _training(spec: Spec, base: Path, bad: list[tuple[int, str]]) -> Iterator[str]:
    for path in spec.train_data:
        place = base / path
        if (place / RUN).is_file():
            for part in _of_run(place):
                yield from _of_file(part, bad)
        else:
            yield from _of_file(place, bad)


def _of_run(folder: Path) -> list[Path]:
    """The files that a run learned from, as its run.json names them."""
    settings, found = load_file(folder / RUN), list[Path]()
    for name in READ:
        value = settings.get(name) or []
        found += [corpus.parse(Path(one)).path for one in ([value] if isinstance(value, str) else value)]
    if not found:
        raise DataError(
            f"{folder / RUN} names no data that it learned from", hint=f"known: {', '.join(READ)}"
        )
    return [path if path.is_absolute() or path.exists() else folder.parent / path for path in found]


def _of_file(path: Path, bad: list[tuple[int, str]]) -> Iterator[str]:
    """Every text of a file's rows; of other files their text."""
    for file in corpus.find(text_source.Config(paths=(path,))):
        if not corpus.has_rows(file):
            yield from corpus.documents(file, corpus.new_facts())
            continue
        for number, row in table.records(file):
            try:
                yield from rows.strings(row())
            except DataError as error:
                bad.append((number, f"{file}: {error.message}"))
