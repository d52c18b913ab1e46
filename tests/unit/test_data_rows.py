"""Reading JSONL: every shape, every way a file or row can be wrong, and the counts."""

from __future__ import annotations

import gzip
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import DataError
from tinygpt.data import rows, table

PAIR = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"instruction": "q", "response": "a", "input": ""},
        {"instruction": "q", "output": "a", "source": "kept out"},
        {"question": "q", "answer": "a"},
        {"messages": PAIR},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, PAIR[1]], "tools": []},
    ],
)
def test_every_shape_becomes_messages(row: dict[str, Any]) -> None:
    assert rows.to_messages(row) == rows.Conversation(messages=PAIR)


def test_input_and_system_are_kept() -> None:
    row = {"instruction": "sum", "input": "1 2", "output": "3", "system": "Be brief."}
    messages = rows.to_messages(row).messages
    assert [m["content"] for m in messages] == ["Be brief.", "sum\n\n1 2", "3"]


def test_tools_may_be_json_text() -> None:
    call = {"name": "ls", "arguments": {}}
    messages = [PAIR[0], {"role": "assistant", "content": None, "tool_calls": [call]}]
    tools = [{"type": "function", "function": {"name": "ls"}}]
    for given in (tools, json.dumps(tools)):
        conversation = rows.to_messages({"messages": messages, "tools": given})
        assert conversation.tools == tools
        assert conversation.messages[1] == {"role": "assistant", "content": "", "tool_calls": [call]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1], "expected a JSON object, got a list"),
        ({"promt": "q", "completion": "a"}, "Did you mean 'prompt'"),
        ({}, "no known row shape has the keys: none"),
        ({"text": "t"}, "plain text"),
        ({"prompt": 3, "completion": "a"}, "'prompt' must be text, got a number"),
        ({"prompt": "q", "completion": ""}, "the answer is empty"),
        ({"prompt": "q", "completion": "\ud800"}, "half of a surrogate pair"),
        ({"messages": []}, "at least one message"),
        ({"messages": [PAIR[0]]}, "no message has the role 'assistant'"),
        ({"messages": [{"role": "asistant", "content": "a"}]}, "Did you mean 'assistant'"),
        ({"messages": [{"content": "a"}]}, r"messages\[0\] must be an object with a 'role'"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "only parts of type 'text'"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "must be an object with a 'name'"),
        ({"messages": [{"role": "user", "tool_calls": [{}]}]}, "in a message of the assistant"),
        ({"messages": [{"role": "user"}, PAIR[1]]}, r"messages\[0\]: a message of the user must have"),
        ({"messages": [{"role": "system", "content": None}, *PAIR]}, "of the system must have a 'content'"),
        ({"messages": PAIR, "tools": [1]}, "'tools' must be a list of JSON schemas"),
    ],
)
def test_rows_that_do_not_fit_say_why(row: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        rows.to_messages(row)


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"\n".join(x.encode() if isinstance(x, str) else x for x in lines))
    return path


GOOD = '{"question": "q", "answer": "a"}'


def test_bad_rows_are_counted_and_the_first_three_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD, "", "{", "[1]", '{"x": 1}', "7", GOOD)
    used, report = rows.read(path, rows.to_messages)
    assert len(used) == 2
    assert (report.n_rows, report.n_used, report.n_bad) == (6, 2, 4)
    assert [line for line, _ in report.first_bad] == [3, 4, 5]
    assert report.first_bad[0][1].startswith("not JSON") and "line 3: not JSON" in report.sentence()
    with pytest.raises(DataError, match=r"a\.jsonl line 3: not JSON"):
        rows.read(path, rows.to_messages, strict=True)


def test_byte_order_mark_line_ends_and_gzip(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\r\n" + '{"question": "\u2028é", "answer": "a"}'.encode()
    (tmp_path / "a.jsonl").write_bytes(data)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(data))
    for name in ("a.jsonl", "b.jsonl.gz"):
        used, report = rows.read(tmp_path / name, rows.to_messages)
        assert report.n_bad == 0 and used[1].messages[0]["content"] == "\u2028é"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        rows.read(tmp_path / "none.jsonl", rows.to_messages)
    with pytest.raises(DataError, match="cannot read"):
        rows.read(tmp_path, rows.to_messages)
    with pytest.raises(DataError, match="is empty"):
        rows.read(write(tmp_path / "a", "", " "), rows.to_messages)
    with pytest.raises(DataError, match="none of the 1 rows .* line 2: not JSON"):
        rows.read(write(tmp_path / "a", "", "{"), rows.to_messages)
    with pytest.raises(DataError, match="not UTF-8: byte 35, on line 2"):
        rows.read(write(tmp_path / "a", GOOD, b"ab\xff"), rows.to_messages)
    zipped = gzip.compress(GOOD.encode() * 99)
    with pytest.raises(DataError, match="damaged gzip"):
        rows.read(write(tmp_path / "a", zipped[:-20]), rows.to_messages)


def test_written_rows_read_back(tmp_path: Path) -> None:
    assert rows.write(tmp_path / "a.jsonl", [{"text": "é"}, {"text": "b"}]) == 2
    assert rows.read(tmp_path / "a.jsonl", rows.to_text)[0] == ["é", "b"]


def test_a_damaged_zstd_file_where_python_unpacks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of Python 3.14: opening looks at nothing, reading raises an error that is no OSError."""

    class ZstdError(Exception):
        pass

    class Lazy(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            raise ZstdError("Unable to decompress")

    zstd = types.SimpleNamespace(ZstdError=ZstdError, open=lambda *_: io.BufferedReader(Lazy()))
    monkeypatch.setitem(sys.modules, "compression", types.SimpleNamespace(zstd=zstd))
    (tmp_path / "a.zst").write_bytes(b"\x28\xb5\x2f\xfd and so on")
    with pytest.raises(DataError, match="a.zst is a damaged zstd file: Unable to decompress"):
        list(table.lines(tmp_path / "a.zst"))
