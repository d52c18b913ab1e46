"""Which model a conversation goes to, and what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from desks import GREEDY, HI, opened, text_of
from desks import heard as events_of
from tinygpt.core.errors import BusyError
from tinygpt.serve.job import Chat
from tinygpt.serve.routed import Route, Routes
from tinygpt.serve.trace import CURRENT, Record

USER = [{"role": "user", "content": "q"}]


def now(work: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(work())
    return future


def resolve(name: str) -> str:
    return name.removesuffix(":latest") or "general"


def saying(*told: tuple[str, float]) -> Callable[[str], Sequence[tuple[str, float]]]:
    return lambda query: told


def route(model: str, router: Any, *labels: str, threshold: float = 0.7) -> Route:
    return Route(model=model, router=router, labels=frozenset(labels), threshold=threshold)


async def fits(job: Chat) -> bool:
    return job.model != "small"


def sent(routes: Sequence[Route], messages: Any = USER, model: str = "") -> tuple[str, str]:
    """The model that a conversation goes to, and the header; that of "small" has no room."""

    async def main() -> tuple[str, str]:
        record = Record("r")
        CURRENT.set(record)
        job = await Routes("general", routes, now, resolve).send(Chat(model=model, messages=messages), fits)
        return job.model, record.decision

    return asyncio.run(main())


def test_a_claim_counts_from_its_threshold_on() -> None:
    sql = route("sql", saying(("query", 0.7), ("none", 0.3)), "query", "insert")
    said = "model=sql; reason=claimed; label=query; p=0.7; threshold=0.7"
    assert sent([sql]) == ("sql", said) == sent([sql], model="general:latest")
    low = route("sql", saying(("query", 0.69), ("none", 0.31)), "query")
    said = "model=general; reason=below-threshold; label=query; p=0.69; threshold=0.7"
    assert sent([low]) == ("general", said)
    other = route("sql", saying(("none", 0.99), ("query", 0.01)), "query")
    assert sent([other]) == ("general", "model=general; reason=not-claimed; label=none; p=0.99")
    assert sent([]) == ("general", "model=general; reason=none-armed")


def test_what_has_no_room_at_the_specialist_is_the_general_ones() -> None:
    small = route("small", saying(("query", 0.9)), "query")
    said = "model=general; reason=too-long; label=query; p=0.9; threshold=0.7"
    assert sent([small]) == ("general", said)


def test_the_likeliest_of_several_claims() -> None:
    asked: list[str] = []

    def both(query: str) -> list[tuple[str, float]]:
        asked.append(query)
        return [("query", 0.8)]

    first, second = route("a", both, "other"), route("b", both, "query")
    third = route("c", saying(("x", 0.9)), "x")
    assert sent([first, second, third])[0] == "c" and asked == ["q"], "a router is asked once"
    assert sent([first, second])[0] == "b"
    strict = route("c", saying(("x", 0.9)), "x", threshold=0.95)
    assert sent([second, strict])[0] == "b", "a claim that does not reach its threshold is none"


def test_who_is_named_answers() -> None:
    all_ = route("sql", saying(("query", 1.0)), "query")
    assert sent([all_], model="other") == ("other", "")
    assert sent([all_], model="sql") == ("sql", "")


def test_the_last_words_of_a_user_decide() -> None:
    echo = route("sql", lambda query: [(query, 1.0)], "now")
    call = {"role": "assistant", "content": "", "tool_calls": []}
    messages = [{"role": "user", "content": "old"}, {"role": "user", "content": "now"}, call]
    assert sent([echo], [*messages, {"role": "tool", "content": "x"}])[0] == "sql"
    for none in ([{"role": "system", "content": "now"}], [{"role": "user", "content": " "}]):
        assert sent([echo], none) == ("general", "model=general; reason=no-request")


def test_a_header_holds_any_label() -> None:
    odd = route("sql", saying(("a; b=\r\nc\u2028", 0.5)), "a; b=\r\nc\u2028")
    header = sent([odd])[1]
    assert "label=a%3B b%3D%0D%0Ac%E2%80%A8; p=0.5" in header and header.isascii()


def test_the_end_of_the_server_is_told() -> None:
    def closed(work: Any) -> Any:
        raise RuntimeError("the worker is closed")

    async def main() -> None:
        routes = Routes("general", [route("sql", saying(("x", 1.0)), "x")], closed, resolve)
        with pytest.raises(BusyError):
            await routes.send(Chat(messages=USER), fits)

    asyncio.run(main())


def test_the_desk_goes_where_it_is_sent() -> None:
    async def main() -> None:
        async with opened() as (desk, _):
            asked: list[str] = []

            def router(query: str) -> list[tuple[str, float]]:
                asked.append(query)
                return [("hi", 0.9)]

            route_ = route("tiny", router, "hi")
            desk.routes = Routes("tiny", [route_], desk.registry.worker.call, desk.registry.resolve)
            assert text_of(await events_of(desk.chat(Chat(config=GREEDY, messages=HI))))
            assert asked == ["Hi"]
            job = Chat(model="tiny", config=GREEDY, messages=HI)
            assert await desk._fits(job)
            said = [{"role": "user", "content": "Hi " * desk.registry.card("tiny").context}]
            assert not await desk._fits(Chat(model="tiny", config=GREEDY, messages=said))

    asyncio.run(main())
