"""Eval rows: the shared schema, lines that are not rows, and the interval of a proportion."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinygpt.core.errors import DataError
from tinygpt.core.rows import REQUIRED, EvalRow, append_records, read_rows, wilson, write_rows


def row(**changes: object) -> EvalRow:
    facts = dict(
        model_path="m",
        model_name="m",
        task="t",
        metric="accuracy",
        score=0.5,
        n_examples=10,
        wall_seconds=1.0,
    )
    return EvalRow(**{**facts, **changes})  # type: ignore[arg-type]


def test_round_trip_and_append(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [row(interval=wilson(5, 10), settings={"temperature": 0}), row(subtask="names", model_step=3)]
    write_rows(path, rows)
    assert read_rows(path) == (rows, [])
    write_rows(path, [row(task="u", run_id="r")], append=True)
    assert [r.task for r in read_rows(path)[0]] == ["t", "t", "u"]
    write_rows(path, rows[:1])
    assert len(read_rows(path)[0]) == 1
    assert len({r.run_id for r in rows}) == 2
    odd = [row(model_name="a\u2028b\u0085c\x0bd\re\nf")]
    write_rows(path, odd)
    assert read_rows(path) == (odd, []), "only a newline ends a row"


def test_rows_of_the_original_are_read(tmp_path: Path) -> None:
    """Only the first block of fields, and keys we do not know."""
    path = tmp_path / "old.jsonl"
    whole = json.loads(json.dumps(row().__dict__))
    path.write_text(
        json.dumps({**{k: whole[k] for k in REQUIRED}, "model_step": 7, "something_else": 1}) + "\n\n"
    )
    rows, invalid = read_rows(path)
    assert invalid == [] and rows[0].model_step == 7 and rows[0].interval is None


def test_lines_that_are_not_rows_are_counted_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(row().__dict__)
    bad_score = json.dumps({**row().__dict__, "score": "high"})
    bad = ['{"task": ', "[1]", '{"task": "t"}', bad_score, "[" * 100_000 + "]" * 100_000, "9" * 5000]
    path.write_text("\n".join([good, *bad, good]))
    rows, invalid = read_rows(path)
    assert len(rows) == 2 and len(invalid) == 6
    parts = ("not JSON", "not an eval row", "lacks run_id", "not a number", "nested too deeply", "not JSON")
    for number, (sentence, part) in enumerate(zip(invalid, parts), 2):
        assert f"rows.jsonl:{number}:" in sentence and part in sentence


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"score": math.nan}, "'score' must be a number, got nan"),
        ({"score": math.inf}, "'score' must be a number, got inf"),
        ({"score": 10**400}, "'score' must be a number"),
        ({"score": None}, "lacks score"),
        ({"task": ["a"]}, "'task' must be text"),
        ({"n_examples": "many"}, "'n_examples' must be a whole number"),
        ({"interval": 3}, "'interval' must be a list"),
        ({"interval": [0.1]}, "'interval' must be two numbers"),
        ({"interval": [0.1, math.nan]}, r"'interval\[1\]' must be a number"),
        ({"settings": 3}, "'settings' must be a table"),
        ({"interval": [0.9, 0.1]}, "'interval' must rise"),
        ({"n_failed": -1}, "'n_failed' must not be negative"),
    ],
)
def test_values_that_no_row_has(change: dict[str, object], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(row().__dict__), json.dumps({**row().__dict__, **change})]
    path.write_text("\n".join(lines))
    rows, (invalid,) = read_rows(path)
    assert len(rows) == 1 and re.search(r"rows\.jsonl:2: not an eval row.*" + reason, invalid)


def test_an_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    for name in ("a", "b"):
        with pytest.raises(DataError, match="cannot read eval rows"):
            read_rows(tmp_path / name)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (z = 1.96).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(n - successes, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_without_examples_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_what_is_appended_is_a_line_of_its_own(tmp_path: Path) -> None:
    """After a last line without an end: one that was edited by hand, or torn by a kill."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row().__dict__))
    write_rows(path, [row(task="u")], append=True)
    assert [r.task for r in read_rows(path)[0]] == ["t", "u"] and read_rows(path)[1] == []
    records = tmp_path / "records.jsonl"
    records.write_text('{"run_id": "a", "id": "0"}\n{"run_id": "a", "i')
    append_records(records, [{"run_id": "b", "id": "0"}])
    assert json.loads(records.read_text().split("\n")[2]) == {"run_id": "b", "id": "0"}


def test_half_a_pair_of_utf_16_is_written(tmp_path: Path) -> None:
    append_records(tmp_path / "records.jsonl", [{"run_id": "a", "id": "0", "got": "a\ud800é"}])
    assert json.loads((tmp_path / "records.jsonl").read_text())["got"] == "a\ud800é"


@pytest.mark.wide
def test_two_writers_of_one_file_lose_nothing(tmp_path: Path) -> None:
    """Processes that append at once."""
    paths = tmp_path / "rows.jsonl", tmp_path / "records.jsonl"
    code = (
        "import json, sys; from pathlib import Path; from tinygpt.core import rows\n"
        "given, name = json.loads(sys.argv[1]), sys.argv[4]; sys.stdin.read()\n"
        "for i in range(40):\n"
        "    told = rows.EvalRow(**{**given, 'task': f'{name}.{i}'})\n"
        "    rows.write_rows(Path(sys.argv[2]), [told], append=True)\n"
        "    rows.append_records(Path(sys.argv[3]), [{'run_id': name, 'id': 'x' * 9000}] * 2)\n"
    )
    words = [sys.executable, "-c", code, json.dumps(row().__dict__), *map(str, paths)]
    both = [subprocess.Popen([*words, name], stdin=subprocess.PIPE) for name in "ab"]
    for one in both:
        assert one.stdin is not None
        one.stdin.close()
    assert [one.wait() for one in both] == [0, 0]
    assert len({r.task for r in read_rows(paths[0])[0]}) == 80
    assert [len(json.loads(line)["id"]) for line in paths[1].read_text().splitlines()] == [9000] * 160
