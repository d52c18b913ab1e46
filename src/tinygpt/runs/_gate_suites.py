"""Suites as a gate runs them: programs of their own, or suites of tinygpt, which one child of ours runs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.core.rows import EvalRow
from tinygpt.eval.gate.evidence import Side
from tinygpt.eval.gate.report import Spent
from tinygpt.eval.gate.spec import Spec, Suite
from tinygpt.runs import _gate_files, _gate_inside
from tinygpt.runs._gate_process import how, spent, watched

VARIABLE = re.compile(r"\$\{?(TINYGPT_EVAL_\w+)\}?")
Problems = list[tuple[str, str]]


def run(spec: Spec, base: Path, scratch: Path, events: Events) -> tuple[Side, Problems, dict[str, Spent]]:
    """The rows and records of every suite and pass, what went wrong, and what each suite took."""
    if idle := next((s.name for s in spec.suites if not s.command and not s.suite), None) or (
        "" if spec.suites else "the gate"
    ):
        raise ConfigError(
            f"{idle} has nothing to run", hint="give its suites a 'command' or a 'suite', or give --candidate"
        )
    if any(s.suite for s in spec.suites) and spec.model is None and not spec.url:
        raise ConfigError("the gate has no model to ask", hint="give --model DIR, or 'model' in its file")
    inside = _gate_inside.run(spec, base, scratch, events)
    rows: list[EvalRow] = []
    records: list[dict[str, Any]] = []
    problems: Problems = []
    took: dict[str, Spent] = {}
    for suite in spec.suites:
        for number in range(spec.passes):
            if suite.suite:
                done = inside.get((suite.name, number), _gate_inside.Done(bad=["it was not run"]))
            else:
                events.note(f"{suite.name}, pass {number + 1} of {spec.passes}")
                done = _program(spec, suite, number, base, scratch)
            done = _own(spec, suite, done)
            rows += done.side.rows
            records += done.side.records
            problems += [
                (suite.name, f"pass {number + 1}: {what}" if spec.passes > 1 else what) for what in done.bad
            ]
            took[suite.name] = took.get(suite.name, Spent()) + done.spent
    return Side(rows=rows, records=records), problems, took


def _own(spec: Spec, suite: Suite, done: _gate_inside.Done) -> _gate_inside.Done:
    """The same without rows of a task that is another suite's: that suite alone measures it."""
    owners = {one.of_task: one.name for one in spec.suites if one.of_task != suite.of_task}
    foreign = [task for task in dict.fromkeys(row.task for row in done.side.rows) if task in owners]
    if not foreign:
        return done
    bad = [f"it wrote rows of the task '{task}', which is of the suite '{owners[task]}'" for task in foreign]
    side = Side(
        rows=[row for row in done.side.rows if row.task not in owners],
        records=[record for record in done.side.records if record.get("task") not in owners],
    )
    return dataclasses.replace(done, side=side, bad=[*done.bad, *bad])


def _program(spec: Spec, suite: Suite, number: int, base: Path, scratch: Path) -> _gate_inside.Done:
    """A program that appends rows to $TINYGPT_EVAL_OUT. What it leaves counts only if it ends well."""
    folder = scratch / f"{uuid.uuid4()}"
    folder.mkdir()
    out, log = folder / "rows.jsonl", folder / "log.txt"
    told = _told(spec, number, out)
    argv = [VARIABLE.sub(lambda m: told.get(m[1], m[0]), word) for word in suite.command]
    try:
        ended = watched(argv, base, {**os.environ, **told}, log, spec.budget)
    except OSError as error:
        return _gate_inside.Done(bad=[f"cannot start {argv[0]}: {error.strerror or error}"])
    took = Spent(seconds=ended.seconds, peak_mb=ended.peak_mb)
    bad = [ended.why] if ended.why else [how(ended.code, log)] if ended.code else []
    bad = bad or spent(ended.seconds, ended.peak_mb, spec.budget)
    if bad:
        return _gate_inside.Done(bad=bad, spent=took)
    found, lines = _gate_files.side(out) if out.is_file() else (Side(rows=[]), [])
    bad = lines or ([] if found.rows else ["it wrote no rows to $TINYGPT_EVAL_OUT"])
    return _gate_inside.Done(side=found, bad=bad, spent=took)


def _told(spec: Spec, number: int, out: Path) -> Mapping[str, str]:
    """What a program is told: where its rows go, which pass this is, and the budget."""
    budget = {k: v for k, v in dataclasses.asdict(spec.budget).items() if v not in (None, ())}
    told = {
        "OUT": str(out), "PASS": str(number), "PASSES": str(spec.passes),
        "SEED": str((spec.budget.sampling_seed or 0) + number), "BUDGET": json.dumps(budget),
        "MODEL": "" if spec.model is None else str(spec.model if spec.url else spec.model.resolve()),
    }  # fmt: skip
    return {f"TINYGPT_EVAL_{name}": value for name, value in told.items()}
