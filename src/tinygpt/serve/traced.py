"""Conversations of a server as `.atraj` files, token by token: see data/atraj.py.

A request that goes on with a conversation is added to its file: its messages begin with those that were said
there, and it comes from the same user, with the same tools and sampling. So many conversations are
remembered; one that is forgotten begins a new file. What was asked is on its way to the disk while the model
writes, and the answer is there before the request ends, all by one thread beside the loop and the device. A
disk that is full is told once, and serving goes on. What files hold is in no log.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import dataclasses
import datetime
import hashlib
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import DataError, TinyGPTError
from tinygpt.data import atraj
from tinygpt.data.message import ROLES
from tinygpt.infer.config import SampleConfig
from tinygpt.serve import calls, prompts
from tinygpt.serve.job import Chat
from tinygpt.serve.rows import Best, Heard, Row
from tinygpt.serve.turn import Turn

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine
    from tinygpt.serve.registry import Served

REMEMBERED = 1024  # conversations that may be gone on with
TOKENS = 1 << 23  # that they may have together
SPLIT = 32  # messages of a request whose own tokens are looked for
ENCODED = 200_000  # tokens that may be made for that
EACH = ("seed", "max_tokens")  # what may differ from request to request
Message = Mapping[str, Any]


@dataclass
class _Known:
    """A file that can be gone on with: its bytes before its end, the context then, how many messages of the
    client were said, and how many answers were given."""

    path: Path
    size: int
    context: array.array[int]
    n_said: int
    n_answers: int


class Traces:
    """A folder of trajectories. `facts` says what the header tells of a model; `warn` hears once that
    something cannot be written."""

    def __init__(
        self, folder: Path, facts: Callable[[Engine], dict[str, str]], warn: Callable[[str], None]
    ) -> None:
        self.folder, self.facts, self._warn = folder, facts, warn
        self.n_lost = 0
        self.known: OrderedDict[str, _Known] = OrderedDict()
        self._n_tokens = 0
        self._thread = ThreadPoolExecutor(1, "tinygpt-traces")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder} cannot be made: {error}", hint="choose another --trace-dir") from error

    def close(self) -> None:
        """Write what there is; the thread ends."""
        self._thread.shutdown()

    @contextlib.asynccontextmanager
    async def of(
        self, served: Served, job: Chat, turn: Turn, rows: Sequence[Row], best: Best
    ) -> AsyncGenerator[None]:
        """One request, whose rows were just queued. It is on the disk when this is left."""
        talk = _Talk(self, served.engine, served.name, job, turn)
        begun = self._thread.submit(self._guarded, talk, talk.begin, rows[0])
        outcome = "cancelled"
        try:
            yield
        except Exception:
            outcome = "error"
            raise
        finally:
            given = best.given or [row for row in rows if row.heard[-1].ids][: job.n]
            ended = self._thread.submit(self._guarded, talk, talk.end, given, best.ended.copy(), outcome)
            await asyncio.wait([asyncio.wrap_future(future) for future in (begun, ended)])

    def take(self, keys: Sequence[str]) -> _Known | None:
        """The longest of these conversations that is known; whoever takes it gives it back."""
        for key in reversed(keys):
            if (found := self.known.pop(key, None)) is not None:
                self._n_tokens -= len(found.context)
                return found
        return None

    def keep(self, key: str, one: _Known) -> None:
        """Remember a conversation, and forget those not heard of for longest."""
        self.take([key])
        self.known[key] = one
        self._n_tokens += len(one.context)
        while len(self.known) > REMEMBERED or (self._n_tokens > TOKENS and len(self.known) > 1):
            self._n_tokens -= len(self.known.popitem(last=False)[1].context)

    def _guarded(self, talk: _Talk, work: Callable[..., None], *given: Any) -> None:
        """On the thread: an answer must not fail because a file cannot be written."""
        try:
            work(*given)
        except Exception as error:
            talk.drop()
            self.n_lost += 1
            if self.n_lost == 1:  # what is no error of ours may spell what was said
                told = error.message if isinstance(error, TinyGPTError) else type(error).__name__
                self._warn(f"a trajectory is lost: {told}; the next ones are not told")


@dataclass
class _Talk:
    """One request on the traces' thread."""

    traces: Traces
    engine: Engine
    name: str
    job: Chat
    turn: Turn
    file: atraj.Writer | None = None
    context: list[int] = field(default_factory=list[int])
    n_answers: int = 0
    started: float = field(default_factory=time.time)

    def begin(self, row: Row) -> None:
        """What was asked, as soon as the model begins to read it."""
        base = self._base(row)
        known = self.traces.take(_keys(base, self._messages))
        to_bytes = self.engine.tokenizer.id_to_bytes
        if known is None:
            self._anew(row)
        else:
            self.context, self.n_answers = known.context.tolist(), known.n_answers
            self.file = atraj.Writer.more(known.path, known.size, to_bytes, context=self.context, sync=False)
        said = self.turn.said[: len(self.turn.said) - self.job.prefill]
        own = len(self.turn.said) - len(self.job.messages)  # what the desk said before the client
        self._prompt(said, 0 if known is None else own + known.n_said, row.heard[0].answer.request.prompt)

    def end(self, given: Sequence[Row], whole: Set[int], outcome: str) -> None:
        """What was answered: the first in the file that was begun, each other in one of its own. outcome: of
        what is not whole."""
        if self.file is None:
            return  # nothing could be written from the start
        if not given:
            self._closed(outcome)
        for i, row in enumerate(given):
            if i:
                self._anew(row)
                said = self.turn.said[: len(self.turn.said) - self.job.prefill]
                self._prompt(said, 0, row.heard[0].answer.request.prompt)
            self._answer(row, "" if row.index in whole else outcome)

    def drop(self) -> None:
        """Write no more: what comes behind a line that is not whole could not be read."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def _answer(self, row: Row, broken: str) -> None:
        """All turns of an answer, and the end; `broken`: why there is no more of it."""
        begun = self._begun
        said = [dict(message) for message in self.turn.said]
        hops = iter(row.messages)
        for heard, after in zip(row.heard, row.heard[1:]):  # the server answered the calls itself
            message = next(hops)
            asked = [
                {key: call[key] for key in ("id", "name", "arguments")} for call in message["tool_calls"]
            ]
            self._said(heard, begun + heard.text, asked, "tool_calls")
            results = [next(hops) for _ in asked]
            message = {**message, "content": begun + message["content"]} if begun else message
            said = [*said[: len(said) - bool(begun)], message, *results]
            begun = ""
            self._prompt(said, len(said) - len(results), after.answer.request.prompt)
        called = [
            {"id": id, "name": name, "arguments": calls.arguments(text)} for id, name, text in row.called
        ]
        reason = broken or row.done().finish_reason
        self._said(row.heard[-1], begun + row.heard[-1].text, called, reason)
        size = self._closed(broken or "answered")
        text = self._begun + "".join(heard.text for heard in row.heard)
        answer = {"role": "assistant", "content": text, "tool_calls": called}
        messages = [*self._messages, answer]
        assert self.file is not None
        self.traces.keep(
            _keys(self._base(row), messages)[-1],
            _Known(self.file.path, size, array.array("I", self.context), len(messages), self.n_answers),
        )

    @property
    def _messages(self) -> Sequence[Message]:
        """What the client said, without the beginning of an answer."""
        return self.job.messages[: len(self.job.messages) - self.job.prefill]

    @property
    def _begun(self) -> str:
        """The beginning of the answer, where the client wrote it."""
        return str(self.job.messages[-1].get("content") or "") if self.job.prefill else ""

    # Lines

    def _anew(self, row: Row) -> None:
        tools = [dict(tool) for tool in self.turn.shown]
        when = datetime.datetime.fromtimestamp(self.started, datetime.UTC)
        header = atraj.Header(
            id=f"{when:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}", created=when.isoformat(timespec="seconds"),
            source="serve", model=self.traces.facts(self.engine) | {"name": self.name}, tools=tools,
            tools_hash=atraj.hash_of(tools), sampling=_unusual(row.heard[0].answer.request.config),
        )  # fmt: skip
        self.context, self.n_answers = [], 0
        to_bytes = self.engine.tokenizer.id_to_bytes
        self.file = atraj.Writer.begin(self.traces.folder, header, to_bytes, sync=False)

    def _prompt(self, said: Sequence[Message], first: int, prompt: list[int]) -> None:
        """The messages from `first` on, each with what it adds to the prompt, as far as that can be told:
        the template writes what comes before the next one."""
        assert self.file is not None
        at = _same(self.context, prompt)
        n_asked = min(SPLIT, max(2, ENCODED // (1 + len(prompt))))
        for i in range(first, len(said)):
            end = _same(prompt, self._encoded(said[: i + 1])) if i >= len(said) - n_asked else 0
            ids, n_kept = prompt[at : max(at, end)], at
            at += len(ids)
            message = said[i]
            role = message["role"] if message["role"] in ROLES else "system"
            self.file.step(
                atraj.Step(
                    role=role, content=str(message.get("content") or ""), ids=ids, n_kept=n_kept,
                    text=self.engine.tokenizer.decode(ids), calls=[_call(c) for c in _calls_of(message)],
                    name=str(message.get("name") or ""), call_id=str(message.get("tool_call_id") or ""),
                    started=self.started,
                )
            )  # fmt: skip
        self.context = prompt[:at]

    def _said(self, heard: Heard, text: str, called: list[dict[str, Any]], reason: str) -> None:
        """What the model wrote, behind what the template writes before it."""
        assert self.file is not None
        prompt, times = heard.answer.request.prompt, heard.answer.times
        n_kept = _same(self.context, prompt)
        before = prompt[n_kept:]
        ended = times.ended or time.perf_counter()
        self.file.step(
            atraj.Step(
                role="assistant", content=text, ids=[*before, *heard.ids], n_kept=n_kept,
                logprobs=[*[None] * len(before), *heard.logprobs], calls=called, finish_reason=reason,
                text=self.engine.tokenizer.decode([*before, *heard.ids]), started=self.started,
                seconds=round(ended - times.queued, 6),
            )
        )  # fmt: skip
        self.context = [*prompt, *heard.ids]
        self.n_answers += 1

    def _closed(self, outcome: str) -> int:
        """How many bytes there are before the end, which a next request takes away."""
        assert self.file is not None
        size = self.file.size
        self.file.end(atraj.End(outcome=outcome, summary={"answers": self.n_answers}))
        return size

    def _encoded(self, messages: Sequence[Message]) -> list[int]:
        """The ids of the first messages of a prompt; none where the template does not write them so."""
        given = [dict(message) for message in messages]
        try:
            found = prompts.of_chat(self.engine, given, self.turn.shown, think=self.job.think, answer=False)
        except TinyGPTError:
            return []
        return [*self.job.context, *found.ids]

    def _base(self, row: Row) -> str:
        """What must be the same for a conversation to go on."""
        config = _unusual(row.heard[0].answer.request.config)
        same = {name: value for name, value in config.items() if name not in EACH}
        return json.dumps([self.name, self.job.user, same, [dict(tool) for tool in self.turn.shown]])


def _keys(base: str, messages: Iterable[Message]) -> list[str]:
    """What names each beginning of a conversation. Ids of calls are not part of it: surfaces write their
    own; nor is reasoning, which clients leave out."""
    found: list[str] = []
    state = base
    for message in messages:
        called = [(call["name"], call["arguments"]) for call in map(_call, _calls_of(message))]
        said = [message.get("role"), str(message.get("content") or "").strip(), called]
        state = hashlib.sha256((state + json.dumps(said, sort_keys=True)).encode()).hexdigest()
        found.append(state)
    return found


def _calls_of(message: Message) -> Sequence[Any]:
    return message.get("tool_calls") or ()


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    about = call.get("function") or call
    return {"id": call.get("id", ""), "name": about["name"], "arguments": about["arguments"]}


def _unusual(config: SampleConfig) -> dict[str, Any]:
    """The settings that are not the usual ones, as JSON has them."""
    usual = SampleConfig()
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    told = {name: value for name, value in values.items() if value != getattr(usual, name)}
    return json.loads(json.dumps(told))


def _same(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two rows begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b)))
