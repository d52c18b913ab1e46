"""Files of rows: every kind gives the same rows, and says what is wrong with it."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import DataError, DependencyError
from tinygpt.data import rows, table

ROWS = [{"prompt": 'say "é", please\nnow', "completion": "a, b"}, {"prompt": "q", "completion": "x;y"}]


def read(path: Path) -> list[Any]:
    return [row() for _, row in table.records(path)]


def written(path: Path, delimiter: str, header: tuple[str, ...] = ("prompt", "completion")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(row.values() for row in ROWS)
    return path


def test_every_kind_of_file_gives_its_rows(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    array = "\ufeff" + json.dumps(ROWS, indent=1)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.json").write_text(lines)
    (tmp_path / "c.json").write_text(array, encoding="utf-8")
    (tmp_path / "d.json.gz").write_bytes(gzip.compress(array.encode()))
    (tmp_path / "rows").write_text(lines)
    for name, delimiter in (("e.csv", ","), ("f.csv", ";"), ("g.csv", "\t"), ("h.tsv", "\t")):
        written(tmp_path / name, delimiter)
    (tmp_path / "i.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + (tmp_path / "e.csv").read_bytes()))
    for path in sorted(tmp_path.iterdir()):
        assert read(path) == ROWS, path.name
    assert {path.suffix: table.unit(path) for path in tmp_path.iterdir()} == {
        ".jsonl": "line", ".json": "row", "": "line", ".csv": "row", ".tsv": "row", ".gz": "row",
    }  # fmt: skip


def test_a_cell_may_be_as_long_as_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,n\n" + "x" * 200_000 + ",1\n")
    assert len(read(tmp_path / "a.csv")[0]["text"]) == 200_000


def test_a_bad_row_of_a_table_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,completion\nq,a\nonly one\n\nq,a,b\nq,b\n")
    used, report = rows.read(tmp_path / "a.csv", rows.to_messages)
    assert len(used) == 2 and report.n_bad == 2
    assert report.first_bad == (
        (2, "it has 1 cells, the header 2"),
        (3, "it has 3 cells, the header 2"),
    )
    assert "2 left out: row 2: it has 1 cells" in report.sentence()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"prompt,completion\n", "is empty"),
        ("a.csv", b"prompt,prompt\na,b\n", "two columns are called 'prompt'"),
        ("a.csv", b'prompt,completion\n"a,b\n', "is no table of cells: unexpected end of data"),
        ("a.csv", b"prompt,completion\na\xff,b\n", "is not UTF-8"),
        ("a.json", b'[{"prompt": "q"', "is no JSON array: not JSON"),
        ("a.json", b"[]", "is empty"),
        ("a.json", b"[1, 2]", "none of the 2 rows .* row 1: expected a JSON object, got a number"),
        ("a.csv.gz", gzip.compress(b"prompt,completion\na,b\n" * 99, mtime=0)[:-9], "damaged gzip"),
    ],
)
def test_files_that_are_no_tables(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        rows.read(tmp_path / name, rows.to_messages)


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DependencyError, match="reading .parquet files needs the package 'pyarrow'"):
        read(tmp_path / "a.parquet")
