"""Suites of tinygpt in a gate: one child opens the model and runs them all, and is killed at a limit.

A suite that is killed, or that takes the child down, is broken; another child goes on with the next one."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import KINDS, Events
from tinygpt.eval.gate.evidence import Side
from tinygpt.eval.gate.report import Spent
from tinygpt.eval.gate.spec import Budget, Spec
from tinygpt.runs import _gate_child, _gate_files
from tinygpt.runs._gate_process import how, spent, watched


@dataclass(frozen=True, kw_only=True)
class Done:
    """One suite in one pass: what it measured, why that does not count, and what it took."""

    side: Side = field(default_factory=lambda: Side(rows=[]))
    bad: list[str] = field(default_factory=list[str])
    spent: Spent = field(default_factory=Spent)


def run(spec: Spec, base: Path, scratch: Path, events: Events) -> Mapping[tuple[str, int], Done]:
    """Every suite of tinygpt by its name and pass. ConfigError where the model cannot be opened."""
    jobs = [(i, k) for i, one in enumerate(spec.suites) if one.suite for k in range(spec.passes)]
    found: dict[tuple[str, int], Done] = {}
    while jobs:
        folder = scratch / f"{uuid.uuid4()}"
        names = [(spec.suites[i].name, k) for i, k in jobs]
        argv, log = _gate_child.command(folder, spec, base, jobs), folder / "log.txt"
        heard = _Heard(folder, names, spec.budget, events)
        ended = watched(argv, None, os.environ, log, spec.budget, begun=heard.listen)
        heard.listen()
        found |= heard.done
        if len(heard.done) == len(jobs):
            break
        if heard.full:
            jobs = jobs[len(heard.done) :]
            continue
        why = ended.why or how(ended.code, log)
        opening = "" if heard.open else "while its model was opened "
        took = Spent(seconds=time.monotonic() - heard.since, peak_mb=ended.peak_mb)
        found[names[len(heard.done)]] = Done(bad=[f"{opening}{why}"], spent=took)
        if not heard.open:
            break
        jobs = jobs[len(heard.done) + 1 :]
    return found


class _Heard:
    """What a child says while it runs."""

    def __init__(self, folder: Path, names: list[tuple[str, int]], budget: Budget, events: Events) -> None:
        self.folder, self.names, self.budget, self.events = folder, names, budget, events
        self.done: dict[tuple[str, int], Done] = {}
        self.since, self.open, self.read, self.full = time.monotonic(), False, 0, False

    def listen(self) -> float:
        """Take in the lines that are new; since when the suite has run that runs now."""
        with (self.folder / _gate_child.LINES).open("rb") as file:
            file.seek(self.read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.read += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))
        return self.since

    def _take(self, said: dict[str, Any]) -> None:
        if "closed" in said:
            raise ConfigError(said["closed"], hint=said["hint"])
        if (event := said.get("event")) is not None:
            told = {k: v for k, v in event.items() if k not in ("v", "t", "kind")}
            self.events.emit(KINDS[event["kind"]](**told))
        elif "begins" in said:
            self.open, self.since = True, said["at"]
            name, number = self.names[said["begins"]]
            self.events.note(f"{name}, pass {number + 1}")
        else:
            number, seconds = said["ended"], said["at"] - self.since
            bad = [said["why"]] if said["why"] else spent(seconds, said["peak_mb"], self.budget)
            self.full, side = said["full"], Side(rows=[])
            if not bad:
                side, bad = _gate_files.side(_gate_child.rows_of(self.folder, number))
            took = Spent(seconds=seconds, peak_mb=said["peak_mb"])
            self.done[self.names[number]], self.since = Done(side=side, bad=bad, spent=took), said["at"]
