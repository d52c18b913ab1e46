"""The agent with a server that writes: what it is told, and what it may do wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e2e.shell import good, refused, tinygpt
from e2e.test_agent import lines, place, ran, words
from scripted_cloud import ScriptedCloud, refusing, said
from scripted_turns import ScriptedTurns, call
from tinygpt.data import atraj

__all__ = ["place"]  # a fixture


def test_a_request_that_fails_does_not_end_the_conversation_and_is_no_success(
    place: Path, tmp_path: Path
) -> None:
    kept = ("--trajectory-dir", tmp_path)
    with ScriptedCloud(refusing(400, "no such thing"), said("Two.")) as server:
        line = ("agent", "--endpoint", server.url, "--workspace", place, *kept, "--json")
        done = good(*line, stdin="first\nsecond\n")
        assert "no such thing" in done.err and done.json["answers"][0]["text"] == "Two."
    with ScriptedCloud(refusing(400, "no such thing")) as server:
        line = ("agent", "--endpoint", server.url, "--workspace", place, "--trajectory-dir", tmp_path / "x")
        refused(tinygpt(*line, "--single", "first"), "no such thing")
    (path,) = (tmp_path / "x").glob("*.atraj")
    end = atraj.read(path).end
    assert end is not None and end.outcome == "error"
    with ScriptedTurns("Now.") as server:
        tools = ("--tools", "builtin:list_files,read_file,search_files")
        assert ran(server, place, *tools, "--resume", path).out == "Now.\n"


@pytest.mark.parametrize(
    "told",
    [
        "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens.",
        "the request exceeds the available context size, try increasing it",
        "the prompt has 5000 tokens and leaves no room in a context of 4096",
    ],
)
def test_a_server_whose_context_is_full_is_asked_with_less(place: Path, told: str) -> None:
    full = refusing(400, told)
    with ScriptedCloud(said("One."), said("Two."), full, full, said("Three.")) as server:
        line = ("agent", "--endpoint", server.url, "--workspace", place, "--json")
        done = good(*line, stdin="first " * 200 + "\nsecond " + "more " * 100 + "\nthird\n")
        sent = [body["messages"] for _, body in server.asked if body]
    assert [one["text"] for one in done.json["answers"]] == ["One.", "Two.", "Three."]
    assert [len(messages) for messages in sent] == [1, 3, 5, 3, 1] and sent[-1][0]["content"] == "third"
    assert done.json["dropped_messages"] == 4
    with ScriptedCloud(full) as server:
        line = ("agent", "--endpoint", server.url, "--workspace", place, "--single", "too long", "--json")
        found = tinygpt(*line)
    assert found.code == 1 and found.json["answers"][0]["outcome"] == "context" and len(server.asked) == 2


@pytest.mark.parametrize(
    "odd", [{"id": 5}, {"id": "\ud800"}, {"arguments": '{"path": "a.txt", "last": NaN}'}]
)
def test_an_odd_call_of_a_server_leaves_a_trace_that_is_read(
    place: Path, tmp_path: Path, odd: dict[str, Any]
) -> None:
    first = call("read_file", path="a.txt") | odd
    kept = ("--trajectory-dir", tmp_path / "traces", "--transcript", tmp_path / "t.jsonl")
    with ScriptedTurns([first], "\ud800 It is fine.") as server:
        done = ran(server, place, "--single", "go", *kept)
    assert "It is fine." in done.out and lines(tmp_path / "t.jsonl")
    (path,) = (tmp_path / "traces").glob("*.atraj")
    assert atraj.read(path).end is not None


def test_a_stream_that_breaks_is_not_mixed_with_the_next(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinygpt.runs._agent_remote.pause", lambda seconds, cancel: None)
    with ScriptedCloud(said("It is fo", then="cut"), said("It is four.")) as server:
        done = good("agent", "--endpoint", server.url, "--workspace", place, "--single", "2 + 2?")
    assert done.out == "It is fo\nIt is four.\n" and "asked again" in done.err


def test_a_server_that_repeats_its_key_does_not_show_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-like-no-other")
    with ScriptedCloud(refusing(401, "{key} is no key")) as server:
        line = ("agent", "--endpoint", server.url, "--workspace", place, "--single", "hi")
        done = tinygpt(*line)
    assert done.code == 2 and "a-key-like" not in done.err and "is no key" in done.err


def test_a_server_is_told_how_to_sample(place: Path) -> None:
    with ScriptedTurns("One.") as server:
        more = ("--top-k", 5, "--min-p", 0.1, "--stop", "END", "--temperature", 0.5, "--seed", 3)
        ran(server, place, "--single", "hi", "--max-tokens", 9, *more)
    told = {"top_k": 5, "min_p": 0.1, "stop": ["END"], "temperature": 0.5, "seed": 3, "max_tokens": 9}
    assert told.items() <= server.asked[0].items()


def test_a_budget_counts_though_a_server_tells_no_tokens(place: Path) -> None:
    turns = [[call("read_file", path="a.txt")]] * 4
    with ScriptedTurns(*turns, usage=False) as server:
        done = tinygpt(*words(server, place, "--single", "go", "--budget", 4, "--json"))
    assert done.json["answers"][0]["outcome"] == "budget" and len(server.asked) == 2
    assert done.json["written_tokens"] == 6
