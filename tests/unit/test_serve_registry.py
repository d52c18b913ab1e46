"""Models come into memory once, stay while they are used, and go by age or for memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import nano
from tinygpt.core.errors import BusyError, UnknownModel
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.worker import Worker
from tinygpt.serve.job import ModelCard
from tinygpt.serve.registry import Opened, Registry


def card(name: str, base: str = "") -> ModelCard:
    return ModelCard(
        name=name, created=1, context=8, size_bytes=100, n_parameters=1, digest="d", base=base,
        adapters=tuple(name.split("+")[1:]),
    )  # fmt: skip


KNOWN = {
    name: card(name, name.partition("+")[0] if "+" in name else "")
    for name in ("a", "b", "c", "e", "f", "a+x", "a+y")
}


class Opener:
    """Opens what is not there; remembers what was opened, and on which base."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, Any]] = []
        self.own_bytes = 100

    def __call__(self, name: str, base: Any) -> Opened:
        self.opened.append((name, base.name if base else None))
        if name == "c":
            raise OSError("the disk is gone")
        model = SimpleNamespace(config=nano.config())
        engine: Any = SimpleNamespace(name=name, template=None, tokenizer=ByteTokenizer(), model=model)
        lane: Any = SimpleNamespace(waiting=[], n_running=0)
        return Opened(engine=engine, lane=lane, card=card(name), own_bytes=1 if base else self.own_bytes)


@asynccontextmanager
async def registry(**more: Any) -> AsyncGenerator[tuple[Registry, Opener]]:
    opener = Opener()
    with Worker() as worker:
        yield Registry(worker, opener, lambda: KNOWN, **more), opener


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.001)


def names(found: Registry) -> set[str]:
    return {served.name for served in found.served}


def test_first_uses_at_once_open_once() -> None:
    async def go() -> None:
        async with registry() as (found, opener):

            async def use(name: str) -> Any:
                async with found.use(name) as served:
                    return served

            all_ = await asyncio.gather(*(use(name) for name in ("", "a", "a:latest", "a")))
            assert opener.opened == [("a", None)] and all(one is all_[0] for one in all_)
            cancelled = asyncio.create_task(use("b"))
            await asyncio.sleep(0)
            cancelled.cancel()
            assert (await use("b")).name == "b"  # who left did not stop it
            assert [name for name, _ in opener.opened] == ["a", "b"]

    asyncio.run(go())


def test_names_that_mean_a_model_and_those_that_do_not() -> None:
    async def go() -> None:
        async with registry() as (found, _):
            assert [found.resolve(n) for n in ("", "b:latest", "a+x", "a+x+y")] == ["a", "b", "a+x", "a+x+y"]
            assert found.card("a+x+y").adapters == ("x", "y") and found.card("a+x+y").base == "a"
            for name in ("d", "b+x", "a+z", "a+", "+x", "a++x", "A", "a:7b"):
                with pytest.raises(UnknownModel):
                    found.resolve(name)
            with pytest.raises(OSError):
                await found.load("c")
            assert not found.opening and not found.served

    asyncio.run(go())


def test_adapted_models_keep_their_base() -> None:
    async def go() -> None:
        async with registry(memory=150) as (found, opener):
            await found.load("a+x")
            await found.load("a+y")
            assert opener.opened == [("a", None), ("a+x", "a"), ("a+y", "a")]
            base = next(s for s in found.served if s.name == "a")
            assert base.pins == 2 and found.used_bytes == 102
            await found.load("b")  # which needs the room of all of them
            assert names(found) == {"b"}

    asyncio.run(go())


def test_memory_is_taken_from_what_was_not_used_for_longest() -> None:
    async def go() -> None:
        async with registry(memory=200) as (found, _):
            await found.load("a")
            await found.load("b")
            async with found.use("a"):
                found._served["b"].last_used, found._served["a"].last_used = 2.0, 1.0
                await found.load("a+x")  # takes next to nothing
                assert names(found) == {"a", "b", "a+x"}
            async with registry(memory=100) as (small, _), small.use("a"):
                with pytest.raises(BusyError):
                    await small.load("b")
                assert names(small) == {"a"}

    asyncio.run(go())


def test_a_first_opening_makes_the_room_that_it_will_take() -> None:
    """Of 100 bytes on the disk, packed into 40."""

    async def go() -> None:
        with Worker() as worker:
            packed = {name: replace(one, open_bytes=40) for name, one in KNOWN.items()}
            opener = Opener()
            opener.own_bytes = 40
            found = Registry(worker, opener, lambda: packed, memory=100)
            await found.load("a")
            await found.load("b")
            assert names(found) == {"a", "b"}
            await found.load("e")
            assert names(found) == {"b", "e"}

    asyncio.run(go())


def test_models_opened_at_once_do_not_take_the_same_room() -> None:
    async def go() -> None:
        async with registry(memory=200) as (found, _):
            await found.load("a")
            seen: list[int] = []

            async def use(name: str) -> None:
                async with found.use(name) as served:
                    assert found._served[name] is served  # what is opened for somebody is still there then
                    seen.append(found.used_bytes)

            await asyncio.gather(use("b"), use("e"), use("a"), use("f"))
            assert len(seen) == 4 and max(seen) <= 200 and len(names(found)) == 2
            left = asyncio.create_task(use("e" if "e" not in names(found) else "b"))
            await asyncio.sleep(0)
            assert found.opening
            left.cancel()
            await until(lambda: not found.opening)
            assert not any(
                served.pins for served in found.served
            )  # nobody holds what was opened for who left

    asyncio.run(go())


def test_room_is_made_for_what_a_model_took_before() -> None:
    """A packed model takes less than its files, which is known once it was open."""

    async def go() -> None:
        async with registry(memory=120) as (found, opener):
            opener.own_bytes = 30
            for _ in range(2):
                for name in ("a", "b", "e"):
                    await found.load(name)
            assert names(found) == {"a", "b", "e"} and len(opener.opened) == 5  # "a" and "b" went once

    asyncio.run(go())


@pytest.mark.wide
def test_a_model_that_stays_no_time_is_opened_once_for_a_request() -> None:
    async def go() -> None:
        async with registry(keep=0) as (found, opener):
            await found.load("a")  # as a surface does that wants to know what a model can do
            for _ in range(20):
                await asyncio.sleep(0)
            async with found.use("a"):
                assert opener.opened == [("a", None)]
            await until(lambda: not found.served)

    asyncio.run(go())


def test_a_model_that_is_dropped_while_it_opens_goes_once_it_is_there() -> None:
    async def go() -> None:
        async with registry() as (found, opener):
            opening = asyncio.create_task(found.load("b"))
            await asyncio.sleep(0)
            opening.cancel()  # its client left
            assert found.opening == ["b"]
            await found.load("b", 0)
            await until(lambda: found.n_dropped == 1)
            assert opener.opened == [("b", None)] and not found.served
            await found.load("b")
            (served,) = found.served
            assert served.expires is None  # it was for that time

    asyncio.run(go())


def test_what_is_in_memory_answers_when_it_is_gone_from_the_disk() -> None:
    async def go() -> None:
        there = dict(KNOWN)
        with Worker() as worker:
            found = Registry(worker, Opener(), lambda: there)
            await found.load("b")
            del there["b"]
            async with found.use("b") as served:
                assert served.name == "b"
            await found.load("b", 0)
            await until(lambda: not found.served)
            with pytest.raises(UnknownModel):
                await found.load("b")

    asyncio.run(go())


def test_models_go_when_nobody_uses_them() -> None:
    async def go() -> None:
        async with registry(keep=0.02) as (found, _):
            async with found.use("a"):
                await asyncio.sleep(0.05)
                assert names(found) == {"a"} and found.card("a").expires is not None
            await until(lambda: not found.served)
            await found.load("a", keep=-1)
            assert found.card("a").loaded and found.card("a").expires is None
            await asyncio.sleep(0.05)
            assert names(found) == {"a"}
            async with found.use("a"):
                await found.load("a", keep=0)
                await asyncio.sleep(0)
                assert names(found) == {"a"}  # it is in use
            assert not found.served, "gone before anybody else has a turn"
            await found.load("b", keep=0)  # not there, so there is nothing to drop
            assert not found.served and found.n_opened == found.n_dropped == 2

    asyncio.run(go())
