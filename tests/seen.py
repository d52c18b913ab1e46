"""What the contract tests saw of each technique, counted while they run and kept in contract/seen.json.

docs/techniques.md shows it. `--seen write` (make docs) keeps what a run saw; `--seen check` (make test) ends
with 1 where a run saw something else than the file says.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

FILE = Path(__file__).parent / "contract" / "seen.json"


class Seen:
    """Passed tests by family, claim and technique."""

    def __init__(self, how: str) -> None:
        self.how, self.passed = how, Counter[tuple[str, str, str]]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = dict(report.user_properties).get("technique")
        if told and report.when == "call" and report.passed:
            family, name = map(str, told)
            test = report.nodeid.rpartition("::")[2].partition("[")[0]
            self.passed[family, test.removeprefix("test_").replace("_", " "), name] += 1

    def text(self) -> str:
        table: dict[str, dict[str, dict[str, int]]] = {}
        for (family, claim, name), n in sorted(self.passed.items()):
            table.setdefault(family, {}).setdefault(claim, {})[name] = n
        return json.dumps(table, indent=1) + "\n"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus != pytest.ExitCode.OK:
            return
        if self.how == "write":
            FILE.write_text(self.text(), encoding="utf-8")
        elif not FILE.exists() or FILE.read_text(encoding="utf-8") != self.text():
            line = f"\n{FILE.name} is not what the contract tests saw: run `make docs`"
            session.config.get_terminal_writer().line(line, red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
