"""The child of a gate that runs suites of tinygpt: it can be killed when it takes too long or too much.

It opens the model once, measures the suites it is told to, and says on lines of JSON how far it is; rows and
records go into files that count only when their suite has ended."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from tinygpt.core import resident
from tinygpt.core.config import fields, from_dict
from tinygpt.core.errors import ConfigError, TinyGPTError
from tinygpt.core.events import Event, Events, to_json
from tinygpt.core.files import write_json
from tinygpt.core.rows import append_records, beside, write_rows
from tinygpt.eval.gate.spec import Budget, Spec, Suite, parse
from tinygpt.runs._asked import NOWHERE, Asked
from tinygpt.runs._suites import measure, settings

JOB, LINES = "job.json", "lines.jsonl"


def command(folder: Path, spec: Spec, base: Path, jobs: list[tuple[int, int]]) -> list[str]:
    """The command line of a child that runs `jobs`, (suite, pass) by number, in a folder of its own."""
    told = {k: v for k, v in dataclasses.asdict(spec).items() if v is not None}
    told["suites"] = [{k: v for k, v in one.items() if v is not None} for one in told["suites"]]
    told["budget"] = {k: v for k, v in told["budget"].items() if v is not None}
    folder.mkdir()
    plain = json.loads(json.dumps({"spec": told, "base": base, "jobs": jobs}, default=str))
    write_json(folder / JOB, plain)
    (folder / LINES).touch()
    return [sys.executable, "-m", "tinygpt.runs._gate_child", str(folder)]


def rows_of(folder: Path, number: int) -> Path:
    """Where the rows of a job go."""
    return folder / f"{number}.jsonl"


def chosen(suite: Suite, budget: Budget, base: Path, number: int = 0) -> Any:
    """The settings of a suite of tinygpt in a pass, within the budget; files are seen from the gate's folder.
    Where answers are drawn, each pass draws others."""
    made = settings(suite.suite, suite.options, where="options")
    places = {f.name: getattr(made, f.name) for f in fields(type(made)) if f.name in suite.options}
    made = dataclasses.replace(made, **{name: _seen_from(base, value) for name, value in places.items()})
    if hasattr(made, "temperature") and hasattr(made, "seed"):
        first = made.seed if "seed" in suite.options else budget.sampling_seed or 0
        made = dataclasses.replace(made, seed=first + number)
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


class _Lines:
    """A sink of events, and of what else the gate is told."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def say(self, **told: Any) -> None:
        self.file.write(json.dumps({"at": time.monotonic(), **told}) + "\n")
        self.file.flush()

    def write(self, event: Event) -> None:
        self.say(event=to_json(event))

    def close(self) -> None:
        self.file.close()


def _main(folder: Path) -> None:
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    spec, base = parse(job["spec"], JOB), Path(job["base"])
    with (folder / LINES).open("a", encoding="utf-8") as file:
        lines = _Lines(file)
        events = Events(lines)
        model = NOWHERE if spec.model is None else spec.model
        told = {"model": model, "adapter": [base / path for path in spec.adapter], "url": spec.url}
        try:
            endpoint = from_dict(Asked, told).open(events)
        except TinyGPTError as error:
            lines.say(closed=error.message, hint=error.hint)
            return
        for number, (at, of_pass) in enumerate(job["jobs"]):
            suite = spec.suites[at]
            lines.say(begins=number)
            why = ""
            try:
                found, happened = measure(
                    endpoint, suite.suite, chosen(suite, spec.budget, base, of_pass), events
                )
                out = rows_of(folder, number)
                append_records(beside(out), happened)
                write_rows(out, found)
            except TinyGPTError as error:
                why = str(error)
            peak = resident.peak() / (1 << 20)
            most = spec.budget.sandbox_ram_mb
            full = most is not None and peak > most
            lines.say(ended=number, why=why, peak_mb=peak, full=full)
            if full:  # the next suite's peak would be this one's: another child measures it
                return


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
