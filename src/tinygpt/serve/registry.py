"""The models of a server, opened at first use and dropped when memory is short or nobody uses them.

A name is that of a model, or "model+adapter" (also with several adapters): such a one has an engine and a
lane of its own and shares its base's arrays, so the base stays as long as it does. "" is the default model,
and "name:latest", as Ollama's clients say, is "name".

All methods belong to the event loop's thread; models are opened and freed on the worker's, which owns the
device.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from tinygpt.core.errors import BusyError, UnknownModel, nearest
from tinygpt.infer.lane import Lane
from tinygpt.infer.worker import Worker
from tinygpt.serve import cards
from tinygpt.serve.job import ModelCard
from tinygpt.serve.trace import CURRENT

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tinygpt.data.template._choice import Template
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.engine import Engine

FOREVER = -1.0
SOON = 1.0  # seconds between a model's loading and its first use, which a --keep-alive of 0 leaves


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What opening a model gives. own_bytes: memory of its arrays, without those that it shares with its
    base."""

    engine: Engine
    lane: Lane
    card: ModelCard
    own_bytes: int


class Open(Protocol):
    """Opens a model by its name, on the worker's thread; `base`: the engine that it is to share arrays with,
    where the name is "base+adapter"."""

    def __call__(self, name: str, base: Engine | None) -> Opened: ...


@dataclass(eq=False)
class Served:
    """A model in memory.

    opened_at, last_used: seconds since the epoch. load_seconds: how long opening took. keep: seconds that it
    stays after its last use, FOREVER where it stays. pins: how many use it now, adapted models on it
    included."""

    name: str
    engine: Engine
    lane: Lane
    opened: ModelCard
    own_bytes: int
    keep: float
    load_seconds: float
    base: Served | None = None
    opened_at: float = field(default_factory=time.time)
    last_used: float = field(default_factory=time.time)
    pins: int = 0
    timer: asyncio.TimerHandle | None = None

    @property
    def template(self) -> Template | None:
        return self.engine.template

    @property
    def tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer

    @property
    def expires(self) -> float | None:
        """When it goes, in seconds since the epoch, if nobody uses it; None: it stays."""
        if self.keep == FOREVER:
            return None
        return (time.time() if self.pins else self.last_used) + self.keep

    @property
    def card(self) -> ModelCard:
        """The model as listings show it, now."""
        details = {**self.opened.details, **cards.facts(self.engine)}
        return replace(
            self.opened, loaded=True, memory_bytes=self.own_bytes, expires=self.expires, details=details
        )


class Registry:
    """See the file's first lines.

    known:  the models that may be asked for, the default one first, and "model+adapter" for what may be
            combined; asked each time, so a folder of models may grow.
    memory: bytes that models may take together; None: no bound. The first is opened whatever it takes.
    keep:   seconds that a model stays after its last use, 0: SOON; FOREVER: until memory is short.
    """

    def __init__(
        self,
        worker: Worker,
        open_: Open,
        known: Callable[[], Mapping[str, ModelCard]],
        *,
        memory: int | None = None,
        keep: float = FOREVER,
    ) -> None:
        self.worker, self._open, self._known = worker, open_, known
        self.memory, self.keep = memory, keep or SOON
        self._served: dict[str, Served] = {}
        self._opening: dict[str, asyncio.Task[Served]] = {}
        self._sizes: dict[str, int] = {}  # bytes that models took when they were open
        self._waiting: Counter[str] = Counter()  # how many wait for one that is opening
        self._brief = set[str]()  # those that are opening, and go when nobody uses them
        self._one_at_a_time = asyncio.Lock()  # else each would take the room that is there for one
        self.n_opened = self.n_dropped = 0

    # What there is

    def cards(self) -> list[ModelCard]:
        """Every model that may be asked for, the default one first; those in memory as they are there."""
        known = dict(self._known())
        listed = known | {name: served.card for name, served in self._served.items()}
        return list(listed.values())

    def card(self, name: str) -> ModelCard:
        """One of them; UnknownModel."""
        name = self.resolve(name)
        if name in self._served:
            return self._served[name].card
        known = self._known()
        if name in known:
            return known[name]
        base, _, adapters = name.partition("+")  # a combination that no list has
        return replace(known[base], name=name, base=base, adapters=tuple(adapters.split("+")))

    def resolve(self, name: str) -> str:
        """The full name of what is meant; UnknownModel with the nearest ones."""
        known = {**self._known(), **self._served}  # what is in memory may be gone from the disk
        if not name and known:
            return next(iter(known))
        for wanted in (name, name.removesuffix(":latest")):
            base, *adapters = wanted.split("+")
            if base in known and all(f"{base}+{adapter}" in known for adapter in adapters):
                return wanted
        raise UnknownModel(
            f"the model '{name}' does not exist.{nearest(name, known)}", hint=f"known: {', '.join(known)}"
        )

    @property
    def served(self) -> list[Served]:
        """Those in memory."""
        return list(self._served.values())

    @property
    def opening(self) -> list[str]:
        """Those on their way into memory."""
        return list(self._opening)

    @property
    def used_bytes(self) -> int:
        """Memory of all that are open."""
        return sum(served.own_bytes for served in self._served.values())

    # Using one

    @contextlib.asynccontextmanager
    async def use(self, name: str) -> AsyncGenerator[Served]:
        """A model, opened if it is not, which stays in memory as long as this is entered.

        UnknownModel where there is none; BusyError where all memory is in use; what opening raises."""
        served = await self._pinned(name)
        if (record := CURRENT.get()) is not None:
            record.model = served.name
        try:
            yield served
        finally:
            self._unpin(served)

    async def load(self, name: str, keep: float | None = None) -> None:
        """Have a model in memory, for `keep` seconds after its last use (None: as configured, negative: for
        ever, 0: drop it, as soon as nobody uses it)."""
        if keep == 0:
            name = self.resolve(name)
            if (served := self._served.get(name)) is not None:
                served.keep = 0.0
                self._settle(served)
            elif name in self._opening:
                self._brief.add(name)
            return
        served = await self._pinned(name)
        served.keep = self.keep if keep is None else FOREVER if keep < 0 else keep
        self._unpin(served)

    async def close(self) -> None:
        """Drop everything, for the end of the server."""
        for task in list(self._opening.values()):
            task.cancel()
        for served in list(self._served.values()):
            if served.timer is not None:
                served.timer.cancel()
        self._served.clear()

    async def _pinned(self, name: str) -> Served:
        """A model with a pin for the caller, so that it cannot go before it is used."""
        name = self.resolve(name)
        if name in self._served:
            self._pin(self._served[name])
            return self._served[name]
        if name not in self._opening or self._opening[name].done():  # what that gave may be gone again
            task = self._opening[name] = asyncio.get_running_loop().create_task(self._load(name))
            task.add_done_callback(functools.partial(self._ended, name))
        opening = self._opening[name]
        self._waiting[name] += 1
        try:
            return await asyncio.shield(opening)  # who leaves does not stop it for the others
        except BaseException:
            if not opening.done():
                self._waiting[name] -= 1
            elif not opening.cancelled() and opening.exception() is None:
                self._unpin(opening.result())
            raise

    def _ended(self, name: str, task: asyncio.Task[Served]) -> None:
        if self._opening.get(name) is task:
            del self._opening[name]

    async def _load(self, name: str) -> Served:
        async with contextlib.AsyncExitStack() as held:
            base = None
            held.callback(self._waiting.pop, name, None)
            held.callback(self._brief.discard, name)
            if "+" in name:
                base = await held.enter_async_context(self.use(name.partition("+")[0]))
            await held.enter_async_context(self._one_at_a_time)
            await self._make_room(self.card(name), shared=base is not None)
            start = time.perf_counter()
            work = functools.partial(self._open, name, base.engine if base else None)
            opened = await asyncio.wrap_future(self.worker.call(work))
            served = Served(
                name, opened.engine, opened.lane, opened.card, opened.own_bytes,
                0.0 if name in self._brief else self.keep, time.perf_counter() - start, base,
            )  # fmt: skip
            if base is not None:
                self._pin(base)  # as long as this one is there
            self._served[name] = served
            self._sizes[name] = opened.own_bytes
            self.n_opened += 1
            served.pins = self._waiting[name]
            self._settle(served)
            return served

    async def _make_room(self, card: ModelCard, *, shared: bool) -> None:
        """Drop those not used for longest until a model has room beside the others."""
        if self.memory is None or shared:
            return
        size = self._sizes.get(card.name) or card.open_bytes or card.size_bytes
        while self._served and self.used_bytes + size > self.memory:
            idle = [served for served in self._served.values() if not served.pins]
            if not idle:
                raise BusyError(
                    f"there is no memory for '{card.name}' beside the models in use", hint="try again later"
                )
            gone = self._drop(min(idle, key=lambda served: served.last_used))
            await asyncio.wrap_future(gone)

    # Staying and going

    def _pin(self, served: Served) -> None:
        served.pins += 1
        if served.timer is not None:
            served.timer.cancel()
            served.timer = None

    def _unpin(self, served: Served) -> None:
        served.pins -= 1
        served.last_used = time.time()
        self._settle(served)

    def _settle(self, served: Served) -> None:
        """See to it that an idle model goes in time."""
        if served.timer is not None:
            served.timer.cancel()
            served.timer = None
        if served.pins or served.keep == FOREVER or self._served.get(served.name) is not served:
            return
        if not served.keep:
            self._drop(served)  # who has its answer and asks what is loaded does not find it
            return
        wait = max(0.0, served.last_used + served.keep - time.time())
        served.timer = asyncio.get_running_loop().call_later(wait, self._expire, served)

    def _expire(self, served: Served) -> None:
        if not served.pins and self._served.get(served.name) is served:
            self._drop(served)

    def _drop(self, served: Served) -> Future[None]:
        """Take a model out; what comes back is done when its memory is free."""
        del self._served[served.name]
        self.n_dropped += 1
        if served.base is not None:
            self._unpin(served.base)
        return self.worker.call(functools.partial(_free, served))


def _free(served: Served) -> None:
    """Let go of a model's arrays, on the thread that made them."""
    from tinygpt.core.backend import mx

    del served.engine, served.lane
    served.base = None
    mx.clear_cache()
