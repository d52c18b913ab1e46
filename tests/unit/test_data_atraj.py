"""Trajectories: written line by line, read whole or cut off, without secrets."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path

import pytest

from tinygpt.core.errors import DataError
from tinygpt.data import atraj
from tinygpt.data.atraj import MASK, REDACTED, End, Header, Step, Writer

KEY = "sk-" + "aB3dE5gH7jK9mN1pQ3sT5vW7"
HEADER = Header(id="run", created="2026-01-01T00:00:00Z", task="tidy up", tools=[{"name": "ls"}])
STEPS = [
    Step(role="system", content="Help.", text="<s>Help.", ids=[1, 2]),
    Step(role="user", content="List.", text="List.", ids=[3], n_kept=2),
    Step(
        role="assistant", content="", text="!ls", ids=[4, 5, 6], n_kept=3, logprobs=[None, -0.5, -1.0],
        calls=[{"id": "c0", "name": "ls", "arguments": {}}], finish_reason="stop",
    ),
    Step(
        role="tool", content="a", name="ls", call_id="c0", ids=[7], n_kept=5,
        result={"stdout": "a", "stderr": "", "exit_code": 0}, decision={"rule": "", "allowed": True},
    ),
]  # fmt: skip


def to_bytes(id: int) -> bytes:
    return chr(id).encode()


def write(folder: Path, steps: list[Step] = STEPS, end: End | None = None) -> Path:
    writer = Writer.begin(folder, HEADER, to_bytes)
    for step in steps:
        writer.step(step)
    if end is not None:
        writer.end(end)
    writer.close()
    return writer.path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    end = End(outcome="answered", success=False, reward={"state": 0.0}, summary={"steps": 4})
    path = write(tmp_path, end=end)
    found = atraj.read(path)
    assert (found.header, found.steps, found.end, found.n_lost) == (HEADER, STEPS, end, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [context for _, context in found.contexts()] == [[], [1, 2], [1, 2, 3], [1, 2, 3, 4, 5]]
    with pytest.raises(DataError, match="cannot be written"):
        Writer.begin(tmp_path, HEADER)


def test_ends_of_lines_and_half_letters_in_a_text_do_no_harm(tmp_path: Path) -> None:
    odd = [Step(role="user", content=f"a{letter}b") for letter in "\u2028\x85\r\x0b\x1c\ud800"]
    found = atraj.read(write(tmp_path, odd)).steps
    assert found[:-1] == odd[:-1] and found[-1].content == "a?b"


def test_secrets_are_not_in_the_header_either(tmp_path: Path) -> None:
    head = Header(id="a", task=f"use {KEY}", tools=[{"description": KEY}], sampling={"stop": [KEY]})
    path = Writer.begin(tmp_path, head).path
    assert KEY not in path.read_text() and atraj.read(path).header.sampling == {"stop": [MASK]}


def test_a_cut_file_has_all_but_its_last_line_and_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    found = atraj.read(path)
    assert (found.steps, found.end, found.n_lost) == (STEPS[:-1], None, 1)
    writer, found = Writer.again(path, to_bytes)
    assert found.steps == STEPS[:-1]
    writer.step(STEPS[-1])
    writer.end(End(outcome="answered"))
    assert path.read_bytes().startswith(data)
    assert atraj.read(path).end == End(outcome="answered")


def test_secrets_are_in_no_text_and_in_no_id(tmp_path: Path) -> None:
    said = f"use {KEY} now"
    step = Step(
        role="assistant", content=said, text=said, ids=[ord(c) for c in said],
        logprobs=list[float | None]([-1.0] * len(said)), result={"stdout": f"{KEY}\n"}, error=KEY, n_kept=0,
        calls=[{"name": "x", "arguments": {"password": "correct-Horse7-battery", "n": 1}}],
    )  # fmt: skip
    path = write(tmp_path, [step, dataclasses.replace(STEPS[1], content=KEY)])
    text = path.read_text()
    assert KEY not in text and "Horse7" not in text
    first, second = atraj.read(path).steps
    assert first.ids is not None and first.logprobs is not None
    assert "".join("*" if i == REDACTED else chr(i) for i in first.ids) == f"use {'*' * len(KEY)} now"
    assert [p is None for p in first.logprobs] == [i == REDACTED for i in first.ids]
    assert first.redacted and first.content == f"use {MASK} now" and second.redacted
    assert first.calls[0]["arguments"] == {"password": MASK, "n": 1}


def test_the_end_of_a_secret_that_is_written_again_is_hidden_too(tmp_path: Path) -> None:
    """A template that writes a turn in other tokens gives the next step the end of what was said in it."""
    said, more = f"use {KEY}", f"{KEY[9:]} now"
    steps = [
        Step(role="assistant", content="", text=said, ids=[ord(c) for c in said]),
        Step(role="tool", content="", text=more, ids=[ord(c) for c in more], n_kept=len(said) - len(KEY[9:])),
    ]
    path = write(tmp_path, steps[:1])
    again, _ = Writer.again(path, to_bytes)
    again.close()
    size = path.stat().st_size
    writer = Writer.more(path, size, to_bytes, context=steps[0].ids or [])
    writer.step(steps[1])
    writer.end(End(outcome="answered", summary={"said": KEY}))
    assert KEY[9:] not in path.read_text()
    found = atraj.read(path).steps[1]
    assert found.text == f"{MASK} now" and found.redacted
    assert found.ids == [REDACTED] * len(KEY[9:]) + [ord(c) for c in " now"]


def test_secrets_in_json_are_judged_with_what_stands_beside_them() -> None:
    value = {
        "argv": ["run", "--api-key", "q7Rt2LmZ9xVb4NcK8pWd3HsJ"],
        "env": [{"name": "DB_PASSWORD", "value": "Tr0ub4dor3x9"}, {"name": "PLACE", "value": "Tr0ub4dor3x9"}],
    }
    assert atraj.masked_json(value) == {
        "argv": ["run", "--api-key", MASK],
        "env": [{"name": "DB_PASSWORD", "value": MASK}, {"name": "PLACE", "value": "Tr0ub4dor3x9"}],
    }


def test_no_part_of_a_step_keeps_a_secret() -> None:
    step = Step(role="tool", content=KEY, name=KEY, call_id=KEY, text=KEY, error=KEY)
    assert KEY not in json.dumps(dataclasses.asdict(atraj.redacted(step, None)))


def test_without_the_bytes_of_ids_a_step_with_a_secret_has_none() -> None:
    step = Step(role="user", content=KEY, ids=[1, 2])
    assert atraj.redacted(step, None) == Step(role="user", content=MASK, redacted=True)
    assert atraj.redacted(STEPS[2], None) == STEPS[2]


def test_version_1_is_read(tmp_path: Path) -> None:
    steps = [
        {"role": "user", "content": "hi", "input_ids": [1]},
        {"role": "assistant", "content": "", "output_ids": [2], "reward": 1,
         "tool_call": {"name": "ls", "arguments_json": '{"a": 1}'}},
        {"role": "tool", "content": "x",
         "tool_result": {"name": "ls", "stdout": "x", "stderr": "", "exit_code": 0, "duration_sec": 0.5}},
    ]  # fmt: skip
    old = {"version": 1, "id": "u", "checkpoint_path": "m", "steps": steps, "summary": {"outcome": "ok"}}
    path = tmp_path / "u.atraj"
    path.write_text(json.dumps(old, indent=1))
    found = atraj.read(path)
    assert found.header == Header(id="u", source="v1", model={"path": "m"})
    assert found.steps[1] == Step(
        role="assistant", content="", calls=[{"name": "ls", "arguments": {"a": 1}}], reward={"reward": 1.0}
    )
    assert found.steps[2].result == {"stdout": "x", "stderr": "", "exit_code": 0}
    assert found.steps[2].seconds == 0.5 and found.end is not None and found.end.outcome == "ok"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": {"role": "robot", "content": ""}}', ":2: unknown role 'robot'"),
        ('{"step": {"role": "user"}}', ":2: 'content'"),
        ('{"step": {"role": "user", "content": "", "idz": []}}', "unknown key 'idz'"),
        ('{"step": {"role": "user", "content": "", "ids": [1], "logprobs": []}}', "0 log-prob.* for 1 ids"),
        ('{"step": {"role": "user", "content": "", "ids": [1], "n_kept": 9}}', "'n_kept' is 9 of"),
        ('{"step": {"role": "user", "content": "", "ids": [1], "n_kept": -1}}', "'n_kept' is -1"),
        ('{"other": 1}', "neither a step nor an end"),
        ("{", ":2 is no JSON object"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "x.atraj"
    path.write_text('{"atraj": 2, "id": "x"}\n' + line + '\n{"end": {"outcome": "answered"}}\n')
    with pytest.raises(DataError, match=message):
        atraj.read(path)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"tool_call": "x"}, r"steps\[0\]: 'tool_call' must be an object, got text"),
        ({"tool_call": {"name": "x", "arguments_json": "{bad"}}, "'arguments_json' is not JSON"),
        ({"tool_call": {"name": "x", "arguments_json": 5}}, "'arguments_json' is not JSON"),
        ({"tool_result": [1]}, "'tool_result' must be an object, got a list"),
        ({"tool_result": {"name": "x", "duration_sec": "fast"}}, "'seconds'"),
    ],
)
def test_what_is_wrong_in_version_1_is_said(tmp_path: Path, step: dict[str, object], why: str) -> None:
    path = tmp_path / "x.atraj"
    path.write_text(json.dumps({"version": 1, "steps": [{"role": "tool", "content": "", **step}]}))
    with pytest.raises(DataError, match=why):
        atraj.read(path)


@pytest.mark.parametrize("text", ["", "no", "[1]", '{"version": 1}', '{"atraj": 3, "id": "x"}\n'])
def test_what_is_no_trajectory_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.atraj"
    path.write_text(text)
    with pytest.raises(DataError, match="is no trajectory|version 3"):
        atraj.read(path)
    os.unlink(path)
    with pytest.raises(DataError, match="cannot be read"):
        atraj.read(path)
