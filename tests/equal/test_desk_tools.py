"""Tools at the desk are called in the model's form, forced where asked, and looked up where deferred."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from desks import HI, TOKENIZER, TOOL, Scripted, calls_of, done_of, heard, opened, text_of
from tinygpt.core.errors import ConfigError
from tinygpt.infer.config import SampleConfig
from tinygpt.serve import toolbox
from tinygpt.serve.job import Chat, Delta, Format

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>'
ASK = 'I look.\n<tool_call>\n{"name": "get_tool_info", "arguments": {"name": "weather"}}\n</tool_call>'


def test_random_weights_call_the_tool_that_must_be_called() -> None:
    async def main() -> None:
        async with opened() as (desk, _):
            config = SampleConfig(temperature=1.0, seed=1, max_tokens=300)
            for choice in ("required", {"name": "weather"}):
                job = Chat(messages=HI, tools=[TOOL], tool_choice=choice, config=config, parallel=False)
                events = await heard(desk.chat(job))
                ((name, arguments),) = calls_of(events)
                assert name == "weather" and set(arguments) == {"city"} and not text_of(events)
                assert done_of(events).finish_reason == "tool_calls"

    asyncio.run(main())


def test_with_a_format_an_answer_is_in_it_or_calls() -> None:
    """What agents with a final answer in a schema ask: both are there, and the model chooses."""
    yes = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"],
           "additionalProperties": False}  # fmt: skip

    async def main() -> None:
        async with opened() as (desk, _):
            said = {"answers": 0, "calls": 0}
            for form in (Format(kind="schema", value=yes), Format(kind="json")):
                for bias in ((), ("60=100",)):  # of "<", which begins a call
                    config = SampleConfig(temperature=1.0, seed=5, max_tokens=600, logit_bias=bias)
                    job = Chat(messages=HI, tools=[TOOL], config=config, parallel=False, format=form)
                    events = await heard(desk.chat(job))
                    if found := calls_of(events):
                        ((name, arguments),) = found
                        assert name == "weather" and set(arguments) == {"city"} and not text_of(events)
                        assert done_of(events).finish_reason == "tool_calls"
                        said["calls"] += 1
                    elif done_of(events).finish_reason == "stop":
                        answer = json.loads(text_of(events))
                        assert isinstance(answer, dict) and (form.kind == "json" or set(answer) == {"yes"})
                        said["answers"] += 1
            assert said["calls"] == 2 and said["answers"], said
            regex = Chat(messages=HI, tools=[TOOL], format=Format(kind="regex", value="a"))
            with pytest.raises(ConfigError, match="not JSON cannot call tools"):
                await heard(desk.chat(regex))

    asyncio.run(main())


def test_calls_are_read_and_one_may_be_the_most() -> None:
    async def main() -> None:
        config = SampleConfig(temperature=0, max_tokens=900)
        async with opened(lambda: Scripted([f"<think>\nHm.\n</think>\n\nSo:\n{CALL}\n{CALL}"])) as (desk, _):
            events = await heard(desk.chat(Chat(messages=HI, tools=[TOOL], config=config, logprobs=0)))
            assert calls_of(events) == [("weather", {"city": "Ulm"})] * 2
            assert text_of(events) == "So:" and done_of(events).finish_reason == "tool_calls"
            assert "".join(e.reasoning for e in events if isinstance(e, Delta)) == "Hm."
            parts = [p for e in events if isinstance(e, Delta) for p in e.calls]
            ids = [p.id for p in parts if p.name]
            assert len(set(ids)) == 2 and all(id.startswith("call_") for id in ids)
            letters = [(p.index, p.arguments) for p in parts if not p.name]  # a byte is a token
            assert letters == [(i, letter) for i in (0, 1) for letter in '{"city": "Ulm"}']
            assert all(p.id == p.name == "" or p.arguments == "" for p in parts)
            tokens = [t for e in events if isinstance(e, Delta) for t in e.tokens]
            assert len(tokens) == done_of(events).usage.completion_tokens
            assert 0 < done_of(events).usage.reasoning_tokens < 20
            one = await heard(desk.chat(Chat(messages=HI, tools=[TOOL], config=config, parallel=False)))
            assert len(calls_of(one)) == 1 and done_of(one).finish_reason == "tool_calls"
            none = await heard(desk.chat(Chat(messages=HI, tools=[TOOL], config=config, tool_choice="none")))
            assert text_of(none) == f"So:\n{CALL}\n{CALL}" and done_of(none).finish_reason == "stop"

    asyncio.run(main())


def test_deferred_tools_are_looked_up_at_most_three_times(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps({"tools": [TOOL, {"name": "a_tool"}]}))
    box = toolbox.load(tmp_path / "tools.json", "deferred")
    metrics = toolbox.Metrics(tmp_path / "metrics.jsonl")

    async def main() -> None:
        config = SampleConfig(temperature=0, max_tokens=900)
        scripts = Scripted([ASK, CALL])
        async with opened(lambda: scripts, tools=box, metrics=metrics) as (desk, _):
            events = await heard(desk.chat(Chat(messages=HI, config=config, stream=True)))
            assert calls_of(events) == [("weather", {"city": "Ulm"})] and text_of(events) == "I look."
            done = done_of(events)
            assert (done.finish_reason, done.usage.tool_info_hops) == ("tool_calls", 1)
            assert done.usage.completion_tokens == len(ASK) + len(CALL)
            assert done.usage.prompt_tokens == sum(
                len(TOKENIZER.encode(p, special=True)) for p in scripts.prompts
            )
            first, second = scripts.prompts
            assert "a_tool \u2014 no description\nweather \u2014 Weather of a city." in first
            assert "Second line" not in first and '"maxLength": 5' in second.rpartition("<tool_response>")[2]
        again = Scripted([ASK] * 4)
        async with opened(lambda: again, tools=box, metrics=metrics) as (desk, _):
            events = await heard(desk.chat(Chat(messages=HI, config=config)))
            assert len(again.prompts) == 4 and not calls_of(events)
            assert toolbox.ENOUGH in again.prompts[3] and toolbox.ENOUGH not in again.prompts[2]
            done = done_of(events)
            assert (done.finish_reason, done.usage.tool_info_hops) == ("stop", 3)
            off = await heard(desk.chat(Chat(messages=HI, config=config, tool_choice="none")))
            assert text_of(off) == ASK and "weather" not in again.prompts[-1]

    asyncio.run(main())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["get_tool_info_hops"], r["streaming"]) for r in rows] == [(1, True), (3, False), (0, False)]
    assert {r["tool_mode"] for r in rows} == {"deferred"} and all(r["completion_tokens"] for r in rows)


def test_tools_of_the_server_are_shown_in_full_unless_the_client_has_its_own() -> None:
    box = toolbox.Toolbox((TOOL,))
    mine = {"type": "function", "function": {"name": "weather", "description": "mine"}}
    assert [toolbox.name_of(t) for t in box.shown([])] == ["weather"] and box.shown([mine]) == [mine]
    with pytest.raises(ConfigError, match="two tools"):
        toolbox.Toolbox((TOOL, TOOL))
    with pytest.raises(ConfigError, match="tool_mode"):
        toolbox.Toolbox((TOOL,), "half")


@pytest.mark.parametrize("mode", toolbox.MODES)
def test_where_others_may_not_be_called_tools_of_the_server_are_not_offered(mode: str) -> None:
    door = {"type": "function", "function": {"name": "door", "parameters": {"type": "object"}}}

    async def main() -> None:
        async with opened(tools=toolbox.Toolbox((TOOL,), mode)) as (desk, _):
            for more in ({"closed": True}, {"format": Format(kind="json")}):
                prompt = TOKENIZER.decode(await desk.prompt(Chat(messages=HI, tools=[door], **more)))
                assert "door" in prompt and "weather" not in prompt and toolbox.INFO not in prompt
            config = SampleConfig(temperature=1.0, seed=1, max_tokens=60)
            job = Chat(messages=HI, tools=[door], tool_choice="required", closed=True, config=config, n=8)
            deltas = [event for event in await heard(desk.chat(job)) if isinstance(event, Delta)]
            assert {call.name for delta in deltas for call in delta.calls if call.id} == {"door"}

    asyncio.run(main())


@pytest.mark.parametrize("mode", toolbox.MODES)
def test_tools_of_the_server_leave_formats_and_namesakes_alone(mode: str) -> None:
    async def main() -> None:
        box = toolbox.Toolbox((TOOL,), mode)
        config = SampleConfig(temperature=0, max_tokens=300)
        async with opened(lambda: Scripted(["{}"]), tools=box) as (desk, _):
            form = Format(kind="schema", value={"type": "object", "additionalProperties": False})
            events = await heard(desk.chat(Chat(messages=HI, config=config, format=form)))
            assert text_of(events) == "{}" and not calls_of(events)
        async with opened(tools=box) as (desk, _):
            job = Chat(
                messages=HI, tools=[TOOL], config=config, tool_choice={"name": "weather"}, parallel=False
            )
            ((name, _),) = calls_of(await heard(desk.chat(job)))
            assert name == "weather"

    asyncio.run(main())


def test_metrics_that_cannot_be_written_do_not_stop_answers(tmp_path: Path) -> None:
    said: list[str] = []
    metrics = toolbox.Metrics(tmp_path / "metrics.jsonl", said.append)
    (tmp_path / "metrics.jsonl").mkdir()  # as a full disk, an OSError
    box = toolbox.Toolbox((TOOL,))

    async def main() -> None:
        async with opened(lambda: Scripted(["Yes."]), tools=box, metrics=metrics) as (desk, _):
            for _ in range(2):
                events = await heard(desk.chat(Chat(messages=HI, config=SampleConfig(max_tokens=9))))
                assert done_of(events).finish_reason == "stop"

    asyncio.run(main())
    assert len(said) == 1 and "metrics.jsonl cannot be written" in said[0]


def test_a_strict_tool_binds_the_call_and_not_the_text() -> None:
    async def main() -> None:
        strict = {"type": "function", "function": {**TOOL["function"], "strict": True}}
        config = SampleConfig(temperature=0, max_tokens=200)
        script = CALL.replace("Ulm", "Dortmund")
        async with opened(lambda: Scripted([f"So: {script}"])) as (desk, _):
            events = await heard(desk.chat(Chat(messages=HI, tools=[strict], config=config)))
            assert text_of(events) == "So:" and calls_of(events) == [("weather", {"city": "Dortm"})]
            free = await heard(desk.chat(Chat(messages=HI, tools=[TOOL], config=config)))
            assert calls_of(free) == [("weather", {"city": "Dortmund"})]

    asyncio.run(main())


@pytest.mark.parametrize("mode", toolbox.MODES)
@pytest.mark.parametrize("choice", ("required", {"name": "weather"}), ids=str)
def test_a_choice_may_be_of_the_servers_tools(mode: str, choice: Any) -> None:
    async def main() -> None:
        config = SampleConfig(temperature=1.0, seed=2, max_tokens=900)
        script = Scripted([CALL, CALL])
        async with opened(lambda: script, tools=toolbox.Toolbox((TOOL,), mode)) as (desk, _):
            job = Chat(messages=HI, tool_choice=choice, config=config, parallel=False)
            assert calls_of(await heard(desk.chat(job))) == [("weather", {"city": "Ulm"})]
            with pytest.raises(ConfigError, match="none of the tools: .*weather"):
                await heard(desk.chat(Chat(messages=HI, tool_choice={"name": "x"})))

    asyncio.run(main())
