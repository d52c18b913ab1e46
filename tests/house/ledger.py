"""PLAN.md keeps its word: known states, proofs that exist, reasons for skipping, a row for every name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from house.tree import parse

PLAN = "PLAN.md"
NAMES = "tests/golden/original.txt"
STATES = ("shipped", "skipped", "to do")
COLUMNS = ["what", "status", "file", "test", "note"]


@dataclass(frozen=True)
class Row:
    """One row of the ledger; pointers are bare, several are separated by spaces."""

    line: int
    what: str
    status: str
    files: list[str]
    tests: list[str]
    note: str


def rows(root: Path) -> Iterator[Row | str]:
    """Every row, or a sentence for a line that is not one."""
    for number, line in enumerate((root / PLAN).read_text(encoding="utf-8").splitlines(), 1):
        cells = [c.strip().replace("\\|", "|") for c in line.replace("\\|", "\0").strip("|").split("|")]
        cells = [c.replace("\0", "|") for c in cells]
        if not line.startswith("|") or set(line) <= set("|-: ") or cells == COLUMNS:
            continue
        if len(cells) != len(COLUMNS):
            yield f"{PLAN}:{number}: {len(cells)} cells, a row has {len(COLUMNS)}: {' | '.join(COLUMNS)}"
            continue
        what, status, files, tests, note = cells
        yield Row(number, what.strip("`"), status, _pointers(files), _pointers(tests), note)


def _pointers(cell: str) -> list[str]:
    return [p for p in cell.replace("`", "").replace(",", " ").split() if p != "-"]


def check(root: Path) -> list[str]:
    """One line for each row that claims more than it shows."""
    if not (root / PLAN).is_file():
        return [f"{PLAN}: missing"]
    found = []
    for row in rows(root):
        found += (
            [row]
            if isinstance(row, str)
            else [f"{PLAN}:{row.line}: {row.what}: {e}" for e in _errors(root, row)]
        )
    return found + list(_missing(root))


def _errors(root: Path, row: Row) -> Iterator[str]:
    if row.status not in STATES:
        yield f"the status {row.status!r} is none of {', '.join(STATES)}"
    if row.status == "skipped" and not row.note:
        yield "skipped without a reason"
    if row.status != "shipped":
        return
    if not row.files or not row.tests:
        yield "shipped without a proof: name its file and its test"
    for pointer in row.files:
        if not (root / pointer).exists():
            yield f"its file {pointer} does not exist"
    for pointer in row.tests:
        if not resolves(root, pointer):
            yield f"its test {pointer} does not exist"


def resolves(root: Path, pointer: str) -> bool:
    """Whether `tests/x.py::test_name` (or ::TestClass::test_name) names a test function."""
    file, *names = pointer.partition("[")[0].split("::")
    path = root / file
    if not path.is_file() or not names or not names[-1].startswith("test"):
        return False
    body = parse(path).body
    for name in names:
        found = [
            n
            for n in body
            if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and n.name == name
        ]
        if not found:
            return False
        body = found[0].body
    return True


def _missing(root: Path) -> Iterator[str]:
    """Names of the original that have no row, or two."""
    listed = [row.what for row in rows(root) if isinstance(row, Row)]
    for name in (root / NAMES).read_text(encoding="utf-8").split():
        if listed.count(name) != 1:
            yield f"{PLAN}: the original's command {name} has {listed.count(name)} rows, not 1"
