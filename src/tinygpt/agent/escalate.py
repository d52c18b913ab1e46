"""Handing a conversation to a stronger model: who asks for it, what leaves, who says yes, and what it costs.

A model hands over by calling the tool `escalate`, or by answering {"defer_to_cloud": true}. What goes out is
the conversation with its calls and results, without secrets. A person sees exactly that before, and where
they say no nothing is sent.
"""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tinygpt.agent.tool import Cancel
from tinygpt.core.errors import ConfigError, RemoteError, TinyGPTError
from tinygpt.data import escalating
from tinygpt.data.atraj import MASK, masked, masked_json
from tinygpt.data.message import to_call

Message = dict[str, Any]
OnText = Callable[[str], None]

NAME = "escalate"
ENTRY: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Hand the conversation to a stronger model, where you cannot go on well yourself.",
        "parameters": {
            "type": "object",
            "properties": {"question": {"type": "string", "description": "What it should answer."}},
            "required": ["question"],
            "additionalProperties": False,
        },
    },
}
REASON = "it says no reason"  # of a model that hands over without one
HANDED = "A smaller model hands this conversation over to you. It says: {reason}\n\nAnswer the last request."
SHOWN = 2000  # letters of a preview
CUT, CANCELLED, REFUSED = "cut", "cancelled", "refused"


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a stronger model answered.

    finish_reason: stop, length or refused, or cut or cancelled where only a part came
    n_in, n_out:   tokens, where the server told them; cost: where their price is known
    error:         why it was cut, or says nothing
    """

    text: str
    finish_reason: str
    model: str
    n_in: int | None = None
    n_out: int | None = None
    seconds: float = 0.0
    error: str = ""
    cost: float | None = None

    @property
    def whole(self) -> bool:
        return self.finish_reason not in (CUT, CANCELLED)


class Cloud(Protocol):
    """A stronger model. `leaves`: whether what it is asked leaves this machine; `host`: where it goes to;
    `key`: where its key comes from, "" where it has none; `encrypted`: whether nobody between can read it."""

    host: str
    model: str
    key: str
    leaves: bool
    encrypted: bool

    def ask(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        *,
        on_text: OnText = ...,
        cancel: Cancel | None = None,
    ) -> Told:
        """One answer, streamed. It is text: the tools are those that the messages speak of. RemoteError where
        there is no answer at all; one that is cut off in the middle is given as far as it came."""
        ...


def wanted(message: Message) -> str | None:
    """Why a message of the assistant asks for a stronger model, or what it asks; None where it does not."""
    for call in message.get("tool_calls") or ():
        known = to_call(call)
        if known["name"] == NAME:
            return str(known["arguments"].get("question") or REASON)
    said = escalating.decision(message.get("content") or "")
    return (said.reason or REASON) if said is not None and said.defer else None


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """What is sent: whole calls with their results, and no secrets, of which `n_masked` were found."""

    messages: list[Message]
    tools: list[dict[str, Any]]
    n_masked: int

    @property
    def text(self) -> str:
        """All of it, for people."""
        parts = [f"[{message['role']}]\n{_spelled(message)}" for message in self.messages]
        parts += [f"[tool]\n{json.dumps(tool, ensure_ascii=False)}" for tool in self.tools]
        return "\n\n".join(parts)

    @property
    def n_letters(self) -> int:
        said = sum(len(_spelled(message)) for message in self.messages)
        return said + sum(len(json.dumps(tool, ensure_ascii=False)) for tool in self.tools)


def outgoing(
    messages: Sequence[Message], *, reason: str = "", tools: Sequence[dict[str, Any]] = ()
) -> Outgoing:
    """A conversation as it may be sent. Calls that have no result, and turns in which a model only hands
    over, are left out; a result without its call is told by the user; calls get new ids. `reason`: why it is
    handed over, said at its end. Without a choice, tools go along only where the conversation calls some."""
    told = _paired(messages)
    if reason:
        told.append({"role": "user", "content": HANDED.format(reason=reason)})
    clean = masked_json(told)
    called = {call["function"]["name"] for m in told for call in m.get("tool_calls") or ()}
    known = {entry["function"]["name"]: entry for entry in (*tools, ENTRY)}
    entries = [known.get(name) or _bare(name) for name in sorted(called)]
    shown = masked_json(entries)
    n_masked = _marks(clean) + _marks(shown) - _marks(told) - _marks(entries)
    return Outgoing(messages=clean, tools=shown, n_masked=n_masked)


def _bare(name: str) -> dict[str, Any]:
    """A tool of which only the name is known: APIs want those that a conversation calls."""
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def _marks(value: Any) -> int:
    return json.dumps(value, ensure_ascii=False).count(MASK)


def _paired(messages: Sequence[Message]) -> list[Message]:
    """Calls with their results, under ids of our own, which every API takes."""
    found: list[Message] = []
    waiting: list[tuple[str, dict[str, Any], Message]] = []  # id, call, its message: results may come
    n_calls = 0
    for message in messages:
        role, content = message["role"], message.get("content") or ""
        if role == "tool":
            at = next((i for i, one in enumerate(waiting) if one[0] == message.get("tool_call_id")), 0)
            if not waiting:
                name = message.get("name") or "a tool"
                found.append({"role": "user", "content": f"[result of {name}]\n{content}"})
                continue
            _, call, asked = waiting.pop(at)
            n_calls += 1
            made: dict[str, Any] = {"id": f"call_{n_calls}", "type": "function", "function": to_call(call)}
            asked.setdefault("tool_calls", []).append(made)
            answers = {"tool_call_id": f"call_{n_calls}", "name": to_call(call)["name"]}
            found.append({"role": "tool", "content": content, **answers})
            continue
        decided = escalating.decision(content) if role == "assistant" else None
        if decided is not None:
            content = decided.response
        told: Message = {"role": role, "content": content}
        waiting = [(str(call.get("id") or ""), call, told) for call in message.get("tool_calls") or ()]
        found.append(told)
    return [one for one in found if one["content"] or one.get("tool_calls") or one["role"] == "tool"]


def _spelled(message: Message) -> str:
    calls = (call["function"] for call in message.get("tool_calls") or ())
    told = [f"{call['name']}({json.dumps(call['arguments'], ensure_ascii=False)})" for call in calls]
    return "\n".join([*([message["content"]] if message["content"] else []), *told])


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What would leave, and where to."""

    host: str
    model: str
    key: str
    encrypted: bool
    out: Outgoing

    def heading(self) -> list[str]:
        """Where it goes and how much it is, on two or three lines."""
        out, way = self.out, "" if self.encrypted else ", over HTTP that others can read on the way"
        told = [f"to {self.host}{way}: {self.model or 'the first model that it lists'}"]
        tools = f"tools: {len(out.tools)}, " if out.tools else ""
        count = f"messages: {len(out.messages)}, {tools}letters: {out.n_letters:,}"
        told.append(f"{count}, key: {self.key or 'none'}")
        return [*told, f"secrets that are taken out: {out.n_masked}"] if out.n_masked else told

    def lines(self, most: int | None = SHOWN) -> list[str]:
        """The same with the text, of which the middle is left out where it has more letters than `most`."""
        return [*self.heading(), "", *_shortened(self.out.text, most).splitlines()]

    def facts(self) -> dict[str, Any]:
        """For programs, without the text."""
        return {
            "host": self.host, "model": self.model, "messages": len(self.out.messages),
            "tools": len(self.out.tools), "letters": self.out.n_letters, "masked": self.out.n_masked,
        }  # fmt: skip


Confirm = Callable[[Preview], bool]


def _shortened(text: str, most: int | None) -> str:
    if most is None or len(text) <= most:
        return text
    head = most // 2
    left = len(text) - most
    return f"{text[:head]}\n[... {left:,} letters are not shown ...]\n{text[len(text) - (most - head) :]}"


@dataclass(frozen=True)
class Price:
    """What a million tokens cost that are read, and that are written, in any currency."""

    read: float
    written: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Price | None:
        """Two numbers; none of them is no price. ConfigError for what is no price."""
        if not numbers:
            return None
        if len(numbers) != 2 or not all(math.isfinite(one) and one >= 0 for one in numbers):
            raise ConfigError(
                "--price needs two numbers of 0 or more, for a million tokens read and written",
                hint="such as --price 3,15",
            )
        return cls(*numbers)

    def cost(self, told: Told) -> float | None:
        """None where the server did not tell the tokens."""
        if told.n_in is None or told.n_out is None:
            return None
        return (told.n_in * self.read + told.n_out * self.written) / 1e6


@dataclass
class Tally:
    """What handing over came to. `uncounted`: answers whose tokens nobody told; cost is None without a
    price."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    cut: int = 0
    cancelled: int = 0
    uncounted: int = 0
    masked: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    cost: float | None = None

    def add(self, told: Told) -> None:
        """One answer, or a part of one."""
        self.answered += told.whole
        self.cut += told.finish_reason == CUT
        self.cancelled += told.finish_reason == CANCELLED
        self.uncounted += told.n_in is None or told.n_out is None
        self.tokens_in += told.n_in or 0
        self.tokens_out += told.n_out or 0
        self.seconds += told.seconds
        if told.cost is not None:
            self.cost = (self.cost or 0.0) + told.cost

    def summary(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass
class Escalation:
    """A stronger model behind a person's yes, as the loop has it. `confirm` is not asked where nothing
    leaves this machine."""

    cloud: Cloud
    confirm: Confirm
    price: Price | None = None
    tools: Sequence[dict[str, Any]] = ()
    tally: Tally = field(default_factory=Tally)
    entry: dict[str, Any] = field(default_factory=lambda: ENTRY)

    def wanted(self, message: Message) -> str | None:
        return wanted(message)

    def ask(self, messages: Sequence[Message], reason: str, on_text: OnText, cancel: Cancel) -> str | None:
        """The answer's text, which says so where it is cut off; None where the person refuses. RemoteError
        where no text comes."""
        told = self.tell(messages, reason=reason, on_text=on_text, cancel=cancel)
        if told is None or not told.error:
            return None if told is None else told.text
        if not told.text:
            raise RemoteError(f"{self.cloud.host}: {told.error}")
        return f"{told.text}\n[{told.error}]".lstrip()

    def tell(
        self,
        messages: Sequence[Message],
        *,
        reason: str = "",
        on_text: OnText = lambda text: None,
        cancel: Cancel | None = None,
    ) -> Told | None:
        """The same, whole, and counted. RemoteError where no answer comes."""
        out = outgoing(messages, reason=reason, tools=self.tools)
        if not out.messages:
            raise ConfigError("the conversation says nothing that could be sent", hint="give it a request")
        if self.cloud.leaves and not self.confirm(self.preview(out)):
            self.tally.refused += 1
            return None
        self.tally.masked += out.n_masked
        try:
            told = self.cloud.ask(
                out.messages, out.tools, on_text=on_text, cancel=cancel or threading.Event()
            )
        except TinyGPTError:
            self.tally.failed += 1
            raise
        if self.price is not None:
            told = dataclasses.replace(told, cost=self.price.cost(told))
        self.tally.add(told)
        return told

    def preview(self, out: Outgoing) -> Preview:
        cloud = self.cloud
        return Preview(
            host=cloud.host, model=cloud.model, key=cloud.key, encrypted=cloud.encrypted, out=out
        )  # fmt: skip


def without(key: str, text: str) -> str:
    """What a server said, without the key that it may repeat."""
    return masked(text.replace(key, MASK) if key else text)
