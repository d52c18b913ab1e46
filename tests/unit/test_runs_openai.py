"""The client of servers: it goes nowhere else, waits as it is told to, and reads no half answer."""

from __future__ import annotations

from typing import Any

import pytest

from fake_openai import FakeOpenAI, Reply, chat
from tinygpt.core.errors import RemoteError
from tinygpt.runs._openai import Client, Refused, keyed
from tinygpt.runs._pace import Pace


def test_a_key_does_not_follow_a_redirect() -> None:
    with FakeOpenAI(lambda *_: chat("never")).serving() as other:

        def answer(path: str, body: dict[str, Any]) -> Reply:
            return 302, {"Location": f"{other.url}/chat/completions"}, {}

        with FakeOpenAI(answer).serving() as server:
            client = Client(server.url, tries=1, headers=keyed("secret"))
            with pytest.raises(Refused, match="HTTP 302"):
                client.post("/chat/completions", {"messages": []})
            assert server.headers[0]["Authorization"] == "Bearer secret"
    assert not other.asked


class _Noted(Pace):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(0)
        self.told: list[Any] = []

    def take(self) -> None:
        self.told.append("take")

    def hold(self, seconds: float) -> None:
        self.told.append(seconds)


def test_every_try_takes_its_turn_and_a_server_holds_all_of_them() -> None:
    replies: list[Reply] = [(429, {"Retry-After": "7"}, {}), (500, {}, {}), (529, {"Retry-After": "999"}, {})]

    def answer(path: str, body: dict[str, Any]) -> Reply:
        return replies.pop(0) if replies else chat("yes")

    waits, pace = list[float](), _Noted()
    with FakeOpenAI(answer).serving() as server:
        client = Client(server.url, tries=4, pause=waits.append, first=8.0, pace=pace)
        assert client.post("/chat/completions", {"messages": []})["choices"]
    assert pace.told == ["take", 7.0, "take", "take", 300.0, "take"]
    assert waits[0] == 7.0 and 8.0 <= waits[1] <= 16.0 and waits[2] == 300.0


def test_an_answer_that_cannot_be_read_is_asked_for_again() -> None:
    replies: list[Reply] = [{"choices": []}, chat("yes")]

    def read(found: dict[str, Any]) -> str:
        if not found["choices"]:
            raise RemoteError("nothing there")
        return found["choices"][0]["message"]["content"]

    with FakeOpenAI(lambda *_: replies.pop(0)).serving() as server:
        client = Client(server.url, tries=2, pause=lambda _: None)
        assert client.read("/chat/completions", {"messages": []}, read) == "yes"
        replies += [{"choices": []}, {"choices": []}]
        with pytest.raises(RemoteError, match="nothing there"):
            client.read("/chat/completions", {"messages": []}, read)
        assert len(server.asked) == 4
