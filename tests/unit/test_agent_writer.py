"""The agent's writer in process: turns of a tiny model, their ids, and replay of what was recorded."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import nano
from desks import TOKENIZER, Scripted
from tinygpt.agent.loop import Agent, Limits
from tinygpt.agent.policy import Decision
from tinygpt.agent.recorder import Recorder
from tinygpt.agent.tool import Cancel, Outcome
from tinygpt.agent.turn import Said, Turn
from tinygpt.core.errors import ConfigError
from tinygpt.data import atraj
from tinygpt.data.template import _choice
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane
from tinygpt.runs._agent_writer import LocalWriter

USER = [{"role": "user", "content": "Weather in Rome?"}]
GREEDY = SampleConfig(temperature=0.0, seed=0)


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


WEATHER = tool("weather", city={"type": "string", "maxLength": 5})
CLOCK = tool("clock")


def writer(model: Any, entries: Sequence[dict[str, Any]] = (WEATHER, CLOCK), **more: Any) -> LocalWriter:
    engine = Engine(model, TOKENIZER, _choice.of(TOKENIZER))
    return LocalWriter(engine, Lane(engine), more.pop("sampling", GREEDY), entries, **more)


def write(one: LocalWriter, **changes: Any) -> Said:
    given: dict[str, Any] = {
        "messages": USER,
        "tools": one.entries,
        "max_tokens": 200,
        "cancel": threading.Event(),
    }
    return one.write(Turn(**(given | changes)))


def scripted(*texts: str) -> LocalWriter:
    return writer(Scripted(texts), constrained=False)


def test_calls_and_words_of_a_turn() -> None:
    heard: list[str] = []
    text = 'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    said = write(scripted(text), on_text=heard.append)
    assert "".join(heard) == "Let me see." == said.message["content"]
    assert said.message["tool_calls"] == [
        {
            "id": "call00000",
            "type": "function",
            "function": {"name": "weather", "arguments": {"city": "Rome"}},
        }
    ]
    assert (said.finish_reason, said.error) == ("stop", "")
    assert TOKENIZER.decode(said.ids) == text + "<|im_end|>" and len(said.logprobs) == len(said.ids)
    assert "tool_calls" not in write(scripted("Sunny.")).message


@pytest.mark.parametrize(
    "text", ['<tool_call>\n{"name": "weather", "argum', "<tool_call>\nno call\n</tool_call>"]
)
def test_a_broken_call_is_an_error_and_no_call(text: str) -> None:
    said = write(scripted(text))
    assert said.error and "tool_calls" not in said.message and said.message["content"] == text
    long = '<tool_call>\n{"name": "weather", "arguments": {"city": "' + "R" * 300
    assert "no JSON object" in write(scripted(long)).error


@pytest.mark.wide
def test_a_random_model_can_only_write_calls_that_fit() -> None:
    for seed in range(2):
        model = nano.model(vocab_size=260, max_position_embeddings=1024, seed=seed)
        one = writer(model, sampling=SampleConfig(temperature=1.5, seed=seed))
        said = write(one, choice="required", first=["weather"], max_tokens=80)
        assert not said.error or said.finish_reason == "length"
        for call in said.message.get("tool_calls", ()):
            assert call["function"]["name"] == "weather"
            assert len(call["function"]["arguments"]["city"]) <= 5
        none = write(one, choice="none", max_tokens=40)
        assert "tool_calls" not in none.message and "<tool_call>" not in none.message["content"]


def test_a_cancelled_turn_ends() -> None:
    cancel = threading.Event()
    model = nano.model(vocab_size=260, max_position_embeddings=1024)
    said = write(writer(model, constrained=False), cancel=cancel, on_text=lambda text: cancel.set())
    assert said.finish_reason == "cancelled" and len(said.ids) < 200


class Hands:
    entries = [WEATHER, CLOCK]

    def harmless(self, name: str) -> bool:
        return True

    def run(self, name: str, arguments: Any, cancel: Cancel) -> tuple[Decision, Outcome]:
        decision = Decision(tool=name, arguments=arguments, rule="harmless", allowed=True)
        return decision, Outcome(stdout="Sunny, 21 degrees.\n")


class Silent:
    def text(self, piece: str) -> None: ...

    def tell(self, event: str, **facts: Any) -> None: ...


def recorded(folder: Path, seed: int) -> tuple[LocalWriter, atraj.Trajectory]:
    """A conversation of a random model, which calls tools now and then."""
    model = nano.model(vocab_size=260, max_position_embeddings=1024, seed=seed)
    one = writer(model, sampling=SampleConfig(temperature=1.0, seed=seed))
    file = atraj.Writer.begin(folder, atraj.Header(id=f"r{seed}"), TOKENIZER.id_to_bytes)
    agent = Agent(
        one, Hands(), Limits(max_steps=2, max_tokens=60), Silent(), threading.Event(),
        messages=[{"role": "system", "content": "Help."}],
        recorder=Recorder(file, one, Hands.entries),
    )  # fmt: skip
    agent.ask("Weather in Rome?")
    agent.ask("And the time?")
    file.end(atraj.End(outcome="answered"))
    return one, atraj.read(file.path)


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(3))
def test_replaying_the_ids_gives_the_log_probabilities_again(tmp_path: Path, seed: int) -> None:
    one, found = recorded(tmp_path, seed)
    n = 0
    for step, before in found.contexts():
        assert step.ids is not None and step.text == TOKENIZER.decode(step.ids)
        if step.logprobs is None:
            continue
        again = [None, *one.engine.logprobs([[*before, *step.ids]])[0]][len(before) :]
        pairs = [(a, b) for a, b in zip(step.logprobs, again, strict=True) if a is not None]
        assert [a for a, _ in pairs] == pytest.approx([b for _, b in pairs], abs=1e-4)
        n += len(pairs)
    assert n > 10
    whole = "".join(step.text for step in found.steps)
    assert "<|im_start|>user\nWeather in Rome?<|im_end|>" in whole and "Help." in whole


def test_a_conversation_that_cannot_be_written_is_refused() -> None:
    one = writer(nano.model(vocab_size=260, max_position_embeddings=1024))
    assert one.encode([], [], answer=False) is None
    with pytest.raises(ConfigError):
        one.encode([], [], answer=True)
    assert one.room(100) == 1024 - 100 and one.room(5000) == 1024 - 256
