"""Reading JSONL: every shape, every way a file or row can be wrong, and the counts."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import rows, table

PAIR = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def calls(arguments: Any) -> dict[str, Any]:
    """A row in which a tool is called."""
    said = {"role": "assistant", "tool_calls": [{"name": "f", "arguments": arguments}]}
    return {"messages": [PAIR[0], said]}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"instruction": "q", "response": "a", "input": ""},
        {"instruction": "q", "output": "a", "source": "kept out"},
        {"question": "q", "answer": "a"},
        {"messages": PAIR},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, PAIR[1]], "tools": []},
        {"messages": json.dumps(PAIR)},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversations": PAIR},
        {"prompt": PAIR[:1], "completion": PAIR[1:]},
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
        (
            {"conversations": [{"from": "humann", "value": "q"}]},
            "unknown role 'humann'. Did you mean 'human'",
        ),
        ({"conversations": [{"from": "function_call", "value": "ls"}]}, "not JSON"),
        ({"conversations": [{"from": "function_call", "value": "3"}]}, "must be an object, got a number"),
        ({"prompt": PAIR[:1], "completion": "a"}, "must both be text, or both lists of messages"),
        ({"prompt": PAIR, "completion": PAIR[:1]}, "no answer has a weight"),
        (calls({"v": "\ud800"}), "half of a surrogate pair"),
        (calls({"\ud800": 1}), "half of a surrogate pair"),
        (calls({"v": float("nan")}), "holds nan, which is no number of JSON"),
        (calls(json.loads('{"a":' * 400 + "1" + "}" * 400)), "nested more than 64 levels"),
        (calls({"day": datetime.date(2020, 1, 1)}), "holds a date, which JSON has not"),
        ({"messages": PAIR, "tools": [{"name": "\ud800"}]}, "'tools' holds half of a surrogate pair"),
        ({"messages": PAIR, "tools": "[" * 90 + "{}" + "]" * 90}, "must be a list of JSON schemas"),
        ({"messages": PAIR, "tools": '[{"a":' + "[" * 90 + "]" * 90 + "}]"}, "'tools' is nested more than"),
        ({"messages": [PAIR[0], {**PAIR[1], "weight": 0}]}, "no answer has a weight"),
        ({"messages": [PAIR[0], {**PAIR[1], "weight": 2}]}, r"messages\[1\]: 'weight' must be 0 or 1, got 2"),
    ],
)
def test_rows_that_do_not_fit_say_why(row: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        rows.to_messages(row)


def test_sharegpt_with_tools() -> None:
    """LLaMA-Factory's spelling of calls and results, OpenAI's old one and its new one say the same."""
    tools = [{"name": "ls", "parameters": {}}]
    call = {"name": "ls", "arguments": {"path": "."}}
    sharegpt = rows.to_messages({
        "conversations": [
            {"from": "human", "value": "list"},
            {"from": "function_call", "value": json.dumps(call)},
            {"from": "observation", "value": "a.txt"},
            {"from": "gpt", "value": "one file"},
        ],
        "system": "Be brief.", "tools": json.dumps(tools),
    })  # fmt: skip
    old = {"name": "ls", "arguments": json.dumps(call["arguments"])}
    shared = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "list"}]
    spelled = (
        ({"content": None, "function_call": old}, "function"),
        ({"tool_calls": [{"type": "function", "function": old}]}, "tool"),
    )
    for asked, role in spelled:
        asked, given = {"role": "assistant", **asked}, {"role": role, "content": "a.txt"}
        messages = [*shared, asked, given, {"role": "assistant", "content": "one file"}]
        assert rows.to_messages({"messages": messages, "tools": tools}) == sharegpt
    assert [m["role"] for m in sharegpt.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert sharegpt.messages[2] == {"role": "assistant", "content": "", "tool_calls": [call]}


def test_what_templates_may_write_is_kept() -> None:
    """Ids of calls, names of results and thoughts: some templates need them."""
    called = {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "function": {"name": "ls", "arguments": "{}"}}],
    }
    result = {"role": "tool", "tool_call_id": "c1", "name": "ls", "content": "a"}
    answer = {**PAIR[1], "reasoning_content": "hm", "other": 3}
    found = rows.to_messages({"messages": [PAIR[0], called, result, answer]}).messages
    assert found[1]["tool_calls"] == [{"name": "ls", "arguments": {}, "id": "c1"}]
    assert found[2] == result and found[3] == {**PAIR[1], "reasoning_content": "hm"}


def test_answers_that_are_context_only() -> None:
    """OpenAI's weight, and the prompt of a pair as TRL has it."""
    again = [{"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]
    weighed = rows.to_messages({"messages": [PAIR[0], {**PAIR[1], "weight": 0}, *again]})
    paired = rows.to_messages({"prompt": [*PAIR, again[0]], "completion": [again[1]]})
    assert weighed == paired == rows.Conversation(messages=[*PAIR, *again], unlearned=(0,))
    with_system = rows.to_messages({"prompt": [*PAIR, again[0]], "completion": [again[1]], "system": "s"})
    assert with_system.unlearned == (0,) and len(with_system.messages) == 5


def test_columns_are_renamed() -> None:
    row = {"query": "q", "data": {"reply": {"text": "a"}}, "text": "else", "a.b": "dotted"}
    pairs = rows.renames(["prompt=query", "completion=data.reply.text"])
    found = rows.renamed(row, pairs)
    assert (found["prompt"], found["completion"]) == ("q", "a") and "query" not in found and "data" in found
    assert rows.renamed(row, rows.renames(["prompt=a.b"]))["prompt"] == "dotted"
    assert rows.renamed({"prompt": "p"}, rows.renames(["prompt=query"])) == {"prompt": "p"}
    with pytest.raises(DataError, match="there is no column 'quer'. Did you mean 'query'"):
        rows.renamed(row, rows.renames(["prompt=quer"]))
    with pytest.raises(DataError, match="there is no column 'replay' in 'data'. Did you mean 'reply'"):
        rows.renamed(row, rows.renames(["prompt=data.replay"]))
    with pytest.raises(DataError, match="there is no column 'z'. It has: query, data, text, a.b"):
        rows.renamed(row, rows.renames(["prompt=z"]))
    for given, message in (
        (["prompt"], "is no new=old"), (["promt=a"], "no shape has a column 'promt'. Did you mean 'prompt'"),
        (["prompt=a", "prompt=b"], "gives 'prompt' twice"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            rows.renames(given)


def test_shapes_are_shown_by_their_columns() -> None:
    assert rows.columns({"question": "q", "answer": "a", "id": 3}) == "{question, answer}"
    assert rows.columns({"instruction": "q", "input": "i", "output": "a"}) == "{instruction, input, output}"
    assert rows.columns({"messages": PAIR, "tools": [{}], "system": ""}) == "{messages, tools}"
    assert rows.columns({"text": "t"}) == "{text}"


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


def test_all_that_a_row_says() -> None:
    assert rows.whole({"text": "a"}) == "a"
    asked = {"role": "user", "content": "hi"}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1, "a": 2}'}}
    said = {"role": "assistant", "content": "", "tool_calls": [call]}
    other = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"a": 2, "b": 1}}]}
    expected = 'user: hi\n\nassistant: \n[{"arguments": {"a": 2, "b": 1}, "name": "f"}]'
    assert rows.whole({"messages": [asked, said]}) == rows.whole({"messages": [asked, other]}) == expected
    assert rows.whole({"prompt": "p", "completion": "c"}) == "user: p\n\nassistant: c"
    assert rows.whole({"prompt": "p", "chosen": "c", "rejected": ["r"]}) == "p\nc\nr"
    for wrong in ({"x": 1}, {"text": 3}, [1], {"x": "\ud800"}):
        with pytest.raises(DataError):
            rows.whole(wrong)


def test_strings_are_found_at_any_depth() -> None:
    assert list(rows.strings({"a": "x", "b": [{"c": "y", "d": 3}, "z"], "e": None})) == ["x", "y", "z"]
    assert list(rows.strings({"a": "x", "b": [{"a": "y"}, "z"]}, lambda key: key == "a")) == ["z"]
    deep: list[object] = ["end"]
    for _ in range(5000):
        deep = [deep]
    assert list(rows.strings(deep)) == ["end"]
