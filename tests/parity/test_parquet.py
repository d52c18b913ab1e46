"""Tables and zstd files that pyarrow wrote are read as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.data import corpus

pytestmark = pytest.mark.parity


def read(file: Path, field: str = "text") -> tuple[list[str], dict[str, Any]]:
    facts = corpus.new_facts()
    return list(corpus.documents(file, facts, field)), facts


def test_parquet(tmp_path: Path) -> None:
    arrow, parquet = nano.require("pyarrow"), nano.require("pyarrow.parquet")
    table = arrow.table({"text": ["one", None, "two é", ""], "n": [1, 2, 3, 4]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    found, facts = read(tmp_path / "a.parquet")
    assert found == ["one", "two é", ""] and facts["bad_rows"] == 1
    assert "line 2: 'text' must be text, got null" in facts["first_bad"][0]
    assert (
        "has no column 'txt'. Did you mean 'text'" in read(tmp_path / "a.parquet", "txt")[1]["first_bad"][0]
    )
    assert "row 1: 'n' must be text" in read(tmp_path / "a.parquet", "n")[1]["first_bad"][0]
    (tmp_path / "b.parquet").write_bytes(b"no table")
    assert "cannot read" in read(tmp_path / "b.parquet")[1]["first_bad"][0]
    with arrow.CompressedOutputStream(str(tmp_path / "c.jsonl.zst"), "zstd") as out:
        out.write(b'{"text": "one"}\n{"text": "two"}\n')
    assert read(tmp_path / "c.jsonl.zst")[0] == ["one", "two"]
    whole = (tmp_path / "c.jsonl.zst").read_bytes()
    (tmp_path / "d.jsonl.zst").write_bytes(whole[:20])
    assert "damaged zstd" in read(tmp_path / "d.jsonl.zst")[1]["first_bad"][0]
