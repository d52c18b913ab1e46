"""Conversations of the desk as files: token by token, gone on with, without secrets, and never in the way."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import shutil
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from desks import HI, TOKENIZER, TOOL, Scripted, calls_of, heard, on, opened, text_of, tiny
from tinygpt.data import atraj, replaying
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.serve import traced
from tinygpt.serve.desk import FrontDesk
from tinygpt.serve.job import Chat
from tinygpt.serve.toolbox import Toolbox
from tinygpt.serve.traced import Traces

DRAWN = SampleConfig(temperature=1.0, max_tokens=12, seed=5)
KEY = "sk-" + "aB3dE5gH7jK9mN1pQ3sT5vW7"


@contextlib.asynccontextmanager
async def desk(
    folder: Path, told: list[str] | None = None, **options: Any
) -> AsyncGenerator[tuple[FrontDesk, Engine]]:
    warn = (told if told is not None else []).append
    traces = Traces(folder, lambda engine: {"hash": "abc"}, warn)
    async with opened(traces=traces, **options) as (found, engine):
        yield found, engine


def found(folder: Path) -> list[atraj.Trajectory]:
    return [atraj.read(path) for path in sorted(folder.glob("*.atraj"))]


def check(engine: Engine, one: atraj.Trajectory) -> int:
    """That the ids give the log-probabilities again, and their texts; how many there are."""
    rows, hidden = replaying.rows(one)
    again = engine.logprobs([row.ids for row in rows])
    for row, new in zip(rows, again, strict=True):
        for at, p in row.told.items():
            assert new[at - 1] == pytest.approx(p, abs=1e-4)
    assert not hidden and all(s.text == TOKENIZER.decode(s.ids or ()) for s in one.steps)
    return sum(len(row.told) for row in rows)


def ask(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.mark.wide
def test_a_conversation_is_one_file_and_replays(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as (front, engine):
            messages = list(HI)
            for more in ("And then?", "Why?", ""):
                events = await heard(front.chat(Chat(config=DRAWN, messages=messages)))
                (one,) = found(tmp_path)  # it is there when the answer is
                assert one.end is not None and one.end.outcome == "answered"
                answer = {"role": "assistant", "content": text_of(events)}
                messages = [*messages, answer, ask(more)]
            assert await on(front, lambda: check(engine, one)) == 36
            assert [s.role for s in one.steps] == ["system", "user", *["assistant", "user"] * 2, "assistant"]
            assert one.end.summary == {"answers": 3} and one.header.source == "serve"
            assert one.header.model == {"hash": "abc", "name": "tiny"}
            assert one.header.sampling == {"temperature": 1.0, "max_tokens": 12, "seed": 5}
            assert one.steps[0].text == "<|im_start|>system\nBe brief.<|im_end|>\n"
            assert one.steps[1].text == "<|im_start|>user\nHi<|im_end|>\n"
            assert one.steps[2].text.startswith("<|im_start|>assistant\n")
            last = [*list(one.contexts())[-1][1], *(one.steps[-1].ids or ())]
            prompt = await front.prompt(Chat(messages=messages[:-2]))
            assert last[: len(prompt)] == prompt
            (file,) = tmp_path.iterdir()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600

    asyncio.run(main())


def test_others_get_files_of_their_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as (front, _):
            first = Chat(config=DRAWN, messages=HI, user="a")
            text = text_of(await heard(front.chat(first)))
            more = [*HI, {"role": "assistant", "content": text}, ask("More")]
            for job in (
                dataclasses.replace(first, messages=more, user="b"),
                dataclasses.replace(first, messages=more, config=dataclasses.replace(DRAWN, top_k=5)),
                dataclasses.replace(first, messages=more, tools=[TOOL]),
                dataclasses.replace(first, messages=[*HI, {**more[2], "content": "No."}, more[3]]),
            ):
                await heard(front.chat(job))
            assert [len(one.steps) for one in found(tmp_path)] == [3, 5, 5, 5, 5]
            await heard(front.chat(dataclasses.replace(first, messages=more)))
            await heard(front.chat(dataclasses.replace(first, messages=more)))  # it went on already
            assert sorted(len(one.steps) for one in found(tmp_path)) == [5] * 6
            longer = dataclasses.replace(DRAWN, max_tokens=3, seed=6)
            await heard(front.chat(dataclasses.replace(first, messages=HI, config=longer)))
            assert len(found(tmp_path)) == 7

    asyncio.run(main())


def test_calls_and_their_results(tmp_path: Path) -> None:
    said = 'Look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'

    async def main() -> None:
        async with desk(tmp_path, model=lambda: Scripted([said, "Sunny."])) as (front, engine):
            config = SampleConfig(temperature=0, max_tokens=200)
            job = Chat(config=config, messages=HI, tools=[TOOL])
            events = await heard(front.chat(job))
            ((name, arguments),) = calls_of(events)
            call = {"id": "other", "type": "function", "function": {"name": name, "arguments": arguments}}
            answer = {"role": "assistant", "content": "Look.", "tool_calls": [call]}
            result = {"role": "tool", "tool_call_id": "other", "name": "weather", "content": "sun"}
            await heard(front.chat(dataclasses.replace(job, messages=[*HI, answer, result])))
            (one,) = found(tmp_path)
            assert [s.role for s in one.steps] == ["system", "user", "assistant", "tool", "assistant"]
            step, tool, last = one.steps[2:]
            (written,) = step.calls
            assert (written["name"], written["arguments"]) == ("weather", {"city": "Rome"})
            assert step.content == "Look." and step.finish_reason == "tool_calls"
            assert (tool.content, tool.name, tool.call_id) == ("sun", "weather", "other")
            assert "sun" in tool.text and last.content == "Sunny." and one.header.tools == [TOOL]
            assert TOKENIZER.decode(list(last.ids or ())).endswith("Sunny.<|im_end|>")
            assert len(step.ids or ()) == len(step.logprobs or ()) and engine

    asyncio.run(main())


def test_what_the_server_answers_itself_is_in_it(tmp_path: Path) -> None:
    first = '<tool_call>\n{"name": "get_tool_info", "arguments": {"name": "weather"}}\n</tool_call>'

    async def main() -> None:
        box = Toolbox((TOOL,), "deferred")
        async with desk(tmp_path, model=lambda: Scripted([first, "Known."]), tools=box) as (front, _):
            config = SampleConfig(temperature=0, max_tokens=200)
            text = text_of(await heard(front.chat(Chat(config=config, messages=HI))))
            assert text == "Known."
            (one,) = found(tmp_path)
            roles = [s.role for s in one.steps]
            assert roles == ["system", "system", "user", "assistant", "tool", "assistant"]
            assert one.steps[3].calls[0]["name"] == "get_tool_info" and one.steps[3].logprobs
            assert '"weather"' in one.steps[4].content and one.steps[5].content == "Known."
            whole = "".join(s.text for s in one.steps[3:])
            assert "<tool_response>" in whole and whole.endswith("Known.<|im_end|>")
            more = [*HI, {"role": "assistant", "content": "Known."}, ask("Sure?")]
            await heard(front.chat(Chat(config=config, messages=more)))
            (one,) = found(tmp_path)
            assert [s.role for s in one.steps[6:8]] == ["user", "assistant"]
            assert one.steps[6].n_kept < sum(len(s.ids or ()) for s in one.steps[:6])

    asyncio.run(main())


def test_several_answers_and_beginnings(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as (front, engine):
            await heard(front.chat(Chat(config=DRAWN, messages=HI, n=2)))
            two = found(tmp_path)
            assert len(two) == 2 and two[0].steps[:2] and two[0].steps[-1].ids != two[1].steps[-1].ids
            await heard(front.chat(Chat(config=DRAWN, messages=HI, n=1, best_of=3)))
            assert len(found(tmp_path)) == 3
            begun = [*HI, {"role": "assistant", "content": "Well"}]
            events = await heard(front.chat(Chat(config=DRAWN, messages=begun, prefill=True)))
            whole = "Well" + text_of(events)
            for one in found(tmp_path):
                assert 0 < await on(front, lambda one=one: check(engine, one)) <= 12
            last = next(one for one in found(tmp_path) if one.steps[-1].content == whole)
            assert [s.role for s in last.steps] == ["system", "user", "assistant"]
            more = [*HI, {"role": "assistant", "content": whole}, ask("On")]
            await heard(front.chat(Chat(config=DRAWN, messages=more)))
            assert sorted(len(one.steps) for one in found(tmp_path)) == [3, 3, 3, 5]

    asyncio.run(main())


def test_who_leaves_leaves_a_whole_file(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as (front, engine):
            config = dataclasses.replace(DRAWN, max_tokens=500)
            events = front.chat(Chat(config=config, messages=HI))
            await anext(events)
            await events.aclose()  # type: ignore[attr-defined]
            (one,) = found(tmp_path)
            assert one.end is not None and one.end.outcome == "cancelled"
            assert one.steps[-1].finish_reason == "cancelled"
            assert 0 < await on(front, lambda: check(engine, one)) < 500

    asyncio.run(main())


def test_secrets_are_in_no_file(tmp_path: Path) -> None:
    async def main() -> None:
        told: list[str] = []
        async with desk(tmp_path, told) as (front, _):
            text = text_of(await heard(front.chat(Chat(config=DRAWN, messages=[ask(f"use {KEY} now")]))))
            more = [ask(f"use {KEY} now"), {"role": "assistant", "content": text}, ask("Go on")]
            await heard(front.chat(Chat(config=DRAWN, messages=more)))
            (one,) = found(tmp_path)
            assert len(one.steps) == 4 and one.steps[0].redacted and one.steps[0].content.endswith("] now")
            (file,) = tmp_path.iterdir()
            assert KEY not in file.read_text() and atraj.REDACTED in (one.steps[0].ids or ())
            for i in range(len(KEY) - 8):  # nor spelled by ids
                assert str(list(KEY[i : i + 8].encode()))[1:-1] not in file.read_text()
            assert one.steps[2].n_kept > len(one.steps[0].ids or ())  # what is hidden is still known here
            assert not told

    asyncio.run(main())


def test_what_cannot_be_written_is_told_once_and_answers_come(tmp_path: Path) -> None:
    async def main() -> None:
        told: list[str] = []
        folder = tmp_path / "traces"
        async with desk(folder, told) as (front, _):
            text = text_of(await heard(front.chat(Chat(config=DRAWN, messages=HI))))
            shutil.rmtree(folder)
            folder.write_text("in the way")
            more = [*HI, {"role": "assistant", "content": text}, ask("private words")]
            for messages in (more, HI, HI):
                assert text_of(await heard(front.chat(Chat(config=DRAWN, messages=messages))))
            assert len(told) == 1 and "a trajectory is lost" in told[0] and "private" not in told[0]
            assert front.traces is not None and front.traces.n_lost == 3

    asyncio.run(main())


def test_a_disk_that_is_full_for_a_while_leaves_files_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = os.write, [700]

    def full(file: int, data: bytes) -> int:
        n = write(file, data[: max(0, left[0])])
        left[0] -= n
        if not n:
            raise OSError(errno.ENOSPC, "No space left on device")
        return n

    async def main() -> None:
        told: list[str] = []
        async with desk(tmp_path, told) as (front, _):
            job = Chat(config=DRAWN, messages=HI)
            with monkeypatch.context() as patch:
                patch.setattr(atraj.os, "write", full)
                text = text_of(await heard(front.chat(job)))
            (one,) = found(tmp_path)
            assert one.n_lost == 1 and one.end is None and "No space left" in told[0]
            more = [*HI, {"role": "assistant", "content": text}, ask("More")]
            await heard(front.chat(dataclasses.replace(job, messages=more)))
            assert [len(one.steps) for one in found(tmp_path)][1:] == [5] and len(told) == 1

    asyncio.run(main())


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced, "REMEMBERED", 2)

    async def main() -> None:
        async with desk(tmp_path) as (front, _):
            texts: list[str] = []
            for word in "abc":
                texts.append(text_of(await heard(front.chat(Chat(config=DRAWN, messages=[ask(word)])))))
            assert front.traces is not None and len(front.traces.known) == 2
            for word, text in zip("cba", reversed(texts), strict=True):
                more = [ask(word), {"role": "assistant", "content": text}, ask("more")]
                await heard(front.chat(Chat(config=DRAWN, messages=more)))
            assert sorted(len(one.steps) for one in found(tmp_path)) == [2, 4, 4, 4]
            monkeypatch.setattr(traced, "TOKENS", 10)
            await heard(front.chat(Chat(config=DRAWN, messages=HI)))
            assert len(front.traces.known) == 1

    asyncio.run(main())


def test_refused_jobs_leave_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path, model=tiny) as (front, _):
            with pytest.raises(Exception, match="no room"):
                await heard(front.chat(Chat(config=DRAWN, messages=[ask("x" * 2000)])))
            assert not list(tmp_path.iterdir())

    asyncio.run(main())
