"""What a server's answer says beside its text: that it was withheld, or that another model wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from fake_openai import FakeOpenAI, Reply, chat
from tinygpt.core.events import Events, MemorySink, Note
from tinygpt.runs._openai import another, withheld
from tinygpt.runs._remote_endpoint import RemoteEndpoint


def asked(more: dict[str, Any], why: str = "stop") -> tuple[list[Any], list[str]]:
    """The replies to three prompts whose answers say `more`, and the notes."""

    def answer(path: str, body: dict[str, Any]) -> Reply:
        if path.endswith("/models"):
            return {"data": [{"id": "small"}]}
        found = chat("hello")
        found["choices"][0]["finish_reason"] = why
        return found | more

    memory = MemorySink()
    with FakeOpenAI(answer).serving() as server:
        endpoint = RemoteEndpoint(server.url, "small", events=Events(memory))
        replies = endpoint.complete([[{"role": "user", "content": "hi"}]] * 3, max_tokens=5)
    return replies, [event.text for event in memory.events if isinstance(event, Note)]


def test_a_withheld_answer_is_none() -> None:
    replies, _ = asked({}, "content_filter")
    assert [(r.text, r.finish_reason) for r in replies] == [("", "error")] * 3
    assert "content filter withheld" in replies[0].error, "the server answers, so that all are asked"
    assert withheld({"finish_reason": "content_filter"}) and not withheld({"finish_reason": "length"})


def test_another_model_is_told_once() -> None:
    replies, notes = asked({"model": "large"})
    assert [r.text for r in replies] == ["hello"] * 3
    assert notes == ["'small' was asked, and the server says that 'large' answers"]
    assert asked({"model": "small"})[1] == [] == asked({})[1]


@pytest.mark.parametrize("told", [None, 3, "", "qwen:4b", "qwen:4b:latest"])
def test_the_same_model_is_no_other(told: Any) -> None:
    assert another("qwen:4b", {"model": told}) == ""
