"""Suites as a gate runs them: programs of their own, or suites of tinygpt in this process."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygpt.core.config import fields, from_dict
from tinygpt.core.errors import ConfigError, TinyGPTError
from tinygpt.core.events import Events
from tinygpt.core.rows import EvalRow
from tinygpt.eval.gate.evidence import Side
from tinygpt.eval.gate.spec import Budget, Spec, Suite
from tinygpt.runs import _gate_files
from tinygpt.runs._asked import NOWHERE, Asked
from tinygpt.runs._gate_process import Ended, watched
from tinygpt.runs._suites import SUITES, measure, settings

VARIABLE = re.compile(r"\$\{?(TINYGPT_EVAL_\w+)\}?")
TAIL = 500  # letters of what a crashed program wrote
Problems = list[tuple[str, str]]


def run(spec: Spec, base: Path, scratch: Path, events: Events) -> tuple[Side, Problems, dict[str, float]]:
    """The rows and records of every suite and pass, what went wrong, and the seconds of each suite."""
    if idle := next((s.name for s in spec.suites if not s.command and not s.suite), None) or (
        "" if spec.suites else "the gate"
    ):
        raise ConfigError(
            f"{idle} has nothing to run", hint="give its suites a 'command' or a 'suite', or give --candidate"
        )
    rows: list[EvalRow] = []
    records: list[dict[str, Any]] = []
    problems: Problems = []
    seconds: dict[str, float] = {}
    endpoint = _endpoint(spec, base, events) if any(s.suite for s in spec.suites) else None
    for suite in spec.suites:
        start = time.perf_counter()
        for number in range(spec.passes):
            events.note(f"{suite.name}, pass {number + 1} of {spec.passes}")
            if suite.suite:
                found, bad = _inside(endpoint, suite, spec.budget, base, events)
            else:
                found, bad = _program(spec, suite, number, base, scratch)
            rows += found.rows
            records += found.records
            problems += [
                (suite.name, f"pass {number + 1}: {what}" if spec.passes > 1 else what) for what in bad
            ]
        seconds[suite.name] = round(time.perf_counter() - start, 3)
    return Side(rows=rows, records=records), problems, seconds


def _endpoint(spec: Spec, base: Path, events: Events) -> Any:
    if spec.model is None and not spec.url:
        raise ConfigError("the gate has no model to ask", hint="give --model DIR, or 'model' in its file")
    model = NOWHERE if spec.model is None else spec.model
    told = {"model": model, "adapter": [base / path for path in spec.adapter], "url": spec.url}
    return from_dict(Asked, told).open(events)


def chosen(suite: Suite, budget: Budget, base: Path) -> Any:
    """The settings of a suite of tinygpt, within the budget; files are seen from the gate's folder."""
    made = settings(suite.suite, suite.options, where="options")
    places = {f.name: getattr(made, f.name) for f in fields(type(made)) if f.name in suite.options}
    made = dataclasses.replace(made, **{name: _seen_from(base, value) for name, value in places.items()})
    for name in ("max_tokens", "max_steps"):
        most, has = getattr(budget, name), getattr(made, name, None)
        if most is not None and has is not None and has > most:
            if name in suite.options:
                raise ConfigError(f"its {name} is {has}; the budget's is {most}", hint="lower one")
            made = dataclasses.replace(made, **{name: most})
    return made


def _seen_from(base: Path, value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_seen_from(base, one) for one in value)
    return base / value if isinstance(value, Path) else value


def _inside(
    endpoint: Any, suite: Suite, budget: Budget, base: Path, events: Events
) -> tuple[Side, list[str]]:
    """A suite in this process: time and memory are measured, and judged when it has ended."""
    if budget.sandbox_cpus is not None:
        return Side(rows=[]), ["its processors cannot be limited in this process: give it as a command"]
    start = time.perf_counter()
    try:
        SUITES.load(suite.suite)
        found, happened = measure(endpoint, suite.suite, chosen(suite, budget, base), events)
    except TinyGPTError as error:
        return Side(rows=[]), [str(error)]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    ended = Ended(code=0, seconds=time.perf_counter() - start, peak_mb=_mib(usage.ru_maxrss), why="")
    return Side(rows=found, records=happened), _spent(ended, budget)


def _program(spec: Spec, suite: Suite, number: int, base: Path, scratch: Path) -> tuple[Side, list[str]]:
    """A program that appends rows to $TINYGPT_EVAL_OUT. What it leaves counts only if it ends well."""
    folder = scratch / f"{uuid.uuid4()}"
    folder.mkdir()
    out, log = folder / "rows.jsonl", folder / "log.txt"
    told = _told(spec, number, out)
    argv = [VARIABLE.sub(lambda m: told.get(m[1], m[0]), word) for word in suite.command]
    try:
        ended = watched(argv, base, {**os.environ, **told}, log, spec.budget)
    except OSError as error:
        return Side(rows=[]), [f"cannot start {argv[0]}: {error.strerror or error}"]
    bad = [ended.why] if ended.why else []
    if ended.code and not ended.why:
        tail = log.read_text(encoding="utf-8", errors="replace").strip()[-TAIL:]
        how = f"exit code {ended.code}" if ended.code > 0 else f"signal {-ended.code}"
        bad = [f"it ended with {how}" + (f": {tail}" if tail else "")]
    bad = bad or _spent(ended, spec.budget)
    if bad:
        return Side(rows=[]), bad
    if not out.is_file():
        return Side(rows=[]), ["it wrote no rows to $TINYGPT_EVAL_OUT"]
    found, lines = _gate_files.side(out)
    return found, lines or ([] if found.rows else ["it wrote no rows to $TINYGPT_EVAL_OUT"])


def _told(spec: Spec, number: int, out: Path) -> Mapping[str, str]:
    """What a program is told: where its rows go, which pass this is, and the budget."""
    budget = {k: v for k, v in dataclasses.asdict(spec.budget).items() if v not in (None, ())}
    told = {
        "OUT": str(out), "PASS": str(number), "PASSES": str(spec.passes),
        "SEED": str((spec.budget.sampling_seed or 0) + number), "BUDGET": json.dumps(budget),
        "MODEL": "" if spec.model is None else str(spec.model if spec.url else spec.model.resolve()),
    }  # fmt: skip
    return {f"TINYGPT_EVAL_{name}": value for name, value in told.items()}


def _spent(ended: Ended, budget: Budget) -> list[str]:
    """What a suite that has ended took too much of."""
    found: list[str] = []
    if budget.wall_seconds is not None and ended.seconds > budget.wall_seconds:
        found.append(f"it took {ended.seconds:.1f} s; the budget's wall_seconds is {budget.wall_seconds:g}")
    if budget.sandbox_ram_mb is not None and ended.peak_mb > budget.sandbox_ram_mb:
        most = budget.sandbox_ram_mb
        found.append(f"it took {ended.peak_mb:.0f} MiB; the budget's sandbox_ram_mb is {most:g}")
    return found


def _mib(maxrss: int) -> float:
    """Peak memory of a process in MiB: Linux counts KiB, macOS bytes."""
    return maxrss / (1 << 20) if sys.platform == "darwin" else maxrss / 1024
