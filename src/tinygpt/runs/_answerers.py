"""Who answers rows: an engine in this process, or a server. Both take rows as they get room for them."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import RemoteError, TinyGPTError
from tinygpt.infer.config import SampleConfig
from tinygpt.runs._openai import Client, Refused, withheld

if TYPE_CHECKING:
    from tinygpt.infer.lane import Lane
    from tinygpt.infer.request import Answer, Constraint

FATAL = (401, 403, 404, 405)  # what a server says to every row alike
WRONG = (400, 413, 422)  # what it says to one row, and would say again
WINDOW = 4  # rows taken at once, for each that is being answered


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One answer that is wanted: to a text or ids that are continued, or to messages (`raw`: as the row has
    them, in OpenAI's form)."""

    number: int
    sample: int
    row: dict[str, Any]
    sha: str
    seed: int
    text: str | None = None
    ids: list[int] | None = None
    messages: list[dict[str, Any]] | None = None
    raw: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class Told:
    """The answer to it; `error` where there is none, and `again` where another try may give one."""

    text: str = ""
    message: dict[str, Any] | None = None
    finish_reason: str = ""
    tokens: int | None = None
    prompt_tokens: int | None = None
    error: str = ""
    again: bool = False
    seconds: float | None = None  # that a server took, with all tries and waits


class Local:
    """An engine: so many answers are written together."""

    def __init__(
        self,
        lane: Lane,
        config: SampleConfig,
        stop_ids: frozenset[int],
        batch: int,
        constraint: Callable[[], Constraint] | None = None,
    ) -> None:
        """lane: takes so many rows at once. constraint: gives a fresh one for every answer."""
        self.engine, self._config, self._stop_ids = lane.engine, config, stop_ids
        self._constraint = constraint
        self._lane, self._window = lane, WINDOW * batch

    def answers(self, asks: Iterator[Ask], *, ordered: bool) -> Iterator[tuple[Ask, Told]]:
        """Each with its answer; ordered: in their order, else as they end."""
        growing: list[tuple[Ask, Answer | Told]] = []
        more = True
        try:
            while more or growing:
                while more and len(growing) < self._window:
                    if (ask := next(asks, None)) is None:
                        more = False
                    else:
                        growing.append((ask, self._start(ask)))
                if self._lane.busy:
                    self._lane.step()
                for ask, answer in _ended(growing, _done, ordered):
                    yield ask, self._told(ask, answer)
        finally:
            self._lane.end_all()

    def _start(self, ask: Ask) -> Answer | Told:
        """Its place in the queue; a row that cannot be answered is told of."""
        try:
            if ask.ids is not None:
                ids = ask.ids
            elif ask.text is not None:
                ids = self.engine.encode(ask.text)
            else:
                ids = self.engine.encode_chat(ask.messages or [], ask.tools)
            config = replace(self._config, seed=ask.seed)
            constraint = self._constraint() if self._constraint else None
            return self._lane.submit(
                self.engine.request(ids, config, stop_ids=self._stop_ids, constraint=constraint)
            )
        except TinyGPTError as error:
            return Told(error=error.message)

    def _told(self, ask: Ask, answer: Answer | Told) -> Told:
        if isinstance(answer, Told):
            return answer
        if answer.error is not None:
            return Told(error=str(answer.error))
        message = None
        if ask.messages is not None:
            assert self.engine.template is not None
            message = self.engine.template.parse(answer.text)
        return Told(
            text=answer.text,
            message=message,
            finish_reason=answer.finish_reason or "",
            tokens=len(answer.ids),
            prompt_tokens=len(answer.request.prompt),
        )


def _done(answer: Answer | Told) -> bool:
    return isinstance(answer, Told) or answer.finish_reason is not None


def _ended(growing: list[tuple[Ask, Any]], done: Any, ordered: bool) -> list[tuple[Ask, Any]]:
    """Those that have ended, taken out of the list; ordered: only those before which all have."""
    ended = [done(answer) for _, answer in growing]
    if ordered:
        n = ended.index(False) if False in ended else len(ended)
        ended = [i < n for i in range(len(ended))]
    found = [one for one, is_done in zip(growing, ended, strict=True) if is_done]
    growing[:] = [one for one, is_done in zip(growing, ended, strict=True) if not is_done]
    return found


class Remote:
    """A server: so many requests are made at once. `fields` are those of every request; `wishes` are left out
    where the server refuses a request with them and answers it without: from then on `unheard` is true."""

    def __init__(
        self, client: Client, fields: dict[str, Any], concurrency: int, wishes: dict[str, Any] | None = None
    ) -> None:
        self._client, self._fields, self._concurrency = client, fields, concurrency
        self._wishes, self.unheard = wishes or {}, False
        self._tasks: queue.SimpleQueue[tuple[Ask, Future[Told]] | None] = queue.SimpleQueue()

    def answers(self, asks: Iterator[Ask], *, ordered: bool) -> Iterator[tuple[Ask, Told]]:
        """As Local's. Raises Refused for what the server would say to every row."""
        for _ in range(self._concurrency):  # daemons: what hangs must not keep the program from ending
            threading.Thread(target=self._work, daemon=True).start()
        growing: list[tuple[Ask, Future[Told]]] = []
        more = True
        try:
            while more or growing:
                while more and len(growing) < WINDOW * self._concurrency:
                    if (ask := next(asks, None)) is None:
                        more = False
                    else:
                        growing.append((ask, Future()))
                        self._tasks.put(growing[-1])
                running = [future for _, future in growing if not future.done()]
                if len(running) == len(growing) or (ordered and running and not growing[0][1].done()):
                    concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for ask, future in _ended(growing, Future.done, ordered):
                    yield ask, future.result()
        finally:
            for _, future in growing:
                future.cancel()
            for _ in range(self._concurrency):
                self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            ask, future = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._ask(ask))
            except BaseException as error:  # the caller's to handle, on its own thread
                future.set_exception(error)

    def _ask(self, ask: Ask) -> Told:
        began = time.perf_counter()
        try:
            told = self._heard(ask)
        except Refused as error:
            if error.status in FATAL:
                raise
            told = Told(error=error.message, again=error.status not in WRONG)
        except TinyGPTError as error:
            told = Told(error=error.message, again=True)
        return replace(told, seconds=time.perf_counter() - began)

    def _heard(self, ask: Ask) -> Told:
        if self._wishes and not self.unheard:
            try:
                return self._once(ask, self._wishes)
            except Refused as error:
                if error.status not in WRONG:
                    raise
            told = self._once(ask, {})
            self.unheard = True
            return told
        return self._once(ask, {})

    def _once(self, ask: Ask, wishes: dict[str, Any]) -> Told:
        path, body = self._request(ask)
        return self._client.read(path, body | wishes, lambda found: self._read(found, ask))

    def _request(self, ask: Ask) -> tuple[str, dict[str, Any]]:
        """Where a request goes, and its body."""
        body: dict[str, Any] = {"seed": ask.seed, **self._fields}
        if ask.messages is None:
            return "/completions", body | {"prompt": ask.text if ask.ids is None else ask.ids}
        return "/chat/completions", body | {"messages": ask.raw} | ({"tools": ask.tools} if ask.tools else {})

    def _read(self, found: dict[str, Any], ask: Ask) -> Told:
        """What an answer says; RemoteError where it says nothing that can be read."""
        return _read(found, ask)


def _read(found: dict[str, Any], ask: Ask) -> Told:
    """What a server's answer says."""
    try:
        choice = found["choices"][0]
        message = None if ask.messages is None else dict(choice["message"])
        text = str((choice["text"] if message is None else message.get("content")) or "")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RemoteError(f"the server's answer has no {error}") from error
    if why := withheld(choice):
        return Told(error=why)
    usage = found.get("usage") or {}
    return Told(
        text=text,
        message=message,
        finish_reason=str(choice.get("finish_reason") or ""),
        tokens=usage.get("completion_tokens"),
        prompt_tokens=usage.get("prompt_tokens"),
    )
