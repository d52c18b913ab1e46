"""Tables and zstd files that pyarrow wrote are read as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core.errors import DataError
from tinygpt.data import corpus, rows, table

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


def test_rows_of_a_table(tmp_path: Path) -> None:
    """Lists of messages come as they are; a damaged or missing file is one sentence."""
    arrow, parquet = nano.require("pyarrow"), nano.require("pyarrow.parquet")
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    parquet.write_table(arrow.table({"messages": [talk, talk, None], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    used, report = rows.read(tmp_path / "a.parquet", rows.to_messages)
    assert [c.messages for c in used] == [talk, talk] and report.first_bad[0][0] == 3
    assert "row 3: 'messages' must be a list" in report.sentence()
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-30])
    for name, message in (("b.parquet", "cannot read"), ("c.parquet", "there is no file")):
        with pytest.raises(DataError, match=message):
            list(table.records(tmp_path / name))


def test_a_table_does_not_fill_calls_with_keys_of_others(tmp_path: Path) -> None:
    """Columns of objects have every key in every row; what is null there was not in the row."""
    arrow, parquet = nano.require("pyarrow"), nano.require("pyarrow.parquet")
    calls = [{"name": "rm", "arguments": {"file": "a"}}, {"name": "ls", "arguments": {"path": "b"}}]
    talks = [
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
        for call in calls
    ]
    parquet.write_table(
        arrow.Table.from_pylist([{"messages": talk} for talk in talks]), tmp_path / "a.parquet"
    )
    used, _ = rows.read(tmp_path / "a.parquet", rows.to_messages)
    assert [c.messages[1]["tool_calls"][0] for c in used] == calls
