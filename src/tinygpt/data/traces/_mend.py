"""What of a recorded conversation is worth learning: valid turns, allowed calls, texts that say something.

Left out are turns that were no turns, with the message that asked for them again; calls that the policy
refused, with its answers; and texts of the assistant that only repeat a call or a result. A request that has
lost its whole reply goes, too, and so does all behind the last answer.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinygpt.data.message import Message
from tinygpt.data.traces._trace import Trace
from tinygpt.data.traces._values import parsed


@dataclass(frozen=True, kw_only=True)
class Mend:
    """What is left out. repair: what the loop says where a turn was none, with {error} in it."""

    repair: str
    refused: bool = True
    echoes: bool = True


@dataclass(frozen=True, kw_only=True)
class Mended:
    """What is left: messages, each with its place in the trace, and the places of those that are as they
    were; and how much was left out of what. No messages: there is no answer left."""

    messages: list[Message]
    places: list[int]
    whole: frozenset[int]
    n_errors: int = 0
    n_refused: int = 0
    n_echoes: int = 0

    def last(self) -> Mended:
        """The system messages and the last turn: the last request and what follows."""
        asked = max((i for i, m in enumerate(self.messages) if m["role"] == "user"), default=0)
        kept = [i for i, m in enumerate(self.messages) if i >= asked or (m["role"] == "system" and i < asked)]
        return dataclasses.replace(
            self, messages=[self.messages[i] for i in kept], places=[self.places[i] for i in kept]
        )


def mended(trace: Trace, how: Mend) -> Mended:
    """A trace without what is left out."""
    left: list[Message | None] = list(trace.messages)
    whole = set(range(len(left)))
    head, _, tail = how.repair.partition("{error}")
    for i in trace.errors:
        left[i] = None
        after = trace.messages[i + 1] if i + 1 < len(left) else None
        if after and after["role"] == "user" and _between(after["content"], head, tail):
            left[i + 1] = None
    n_refused = sum(_refuse(left, whole, i) for i in sorted(trace.refused)) if how.refused else 0
    n_echoes = sum(_echo(left, whole, i) for i in range(len(left))) if how.echoes else 0
    _unanswered(left)
    places = [i for i, m in enumerate(left) if m is not None]
    while places and not _answers(left[places[-1]]):
        places.pop()
    if not any(_answers(left[i]) for i in places):
        places = []
    return Mended(
        messages=[m for i in places if (m := left[i]) is not None], places=places,
        whole=frozenset(whole & set(places)), n_errors=len(trace.errors), n_refused=n_refused,
        n_echoes=n_echoes,
    )  # fmt: skip


def _between(text: str, head: str, tail: str) -> bool:
    return bool(head) and text.startswith(head) and text.endswith(tail)


def _answers(message: Message | None) -> bool:
    return message is not None and message["role"] == "assistant" and _says(message)


def _says(message: Message) -> bool:
    return bool(message["content"].strip() or message.get("tool_calls"))


def _refuse(left: list[Message | None], whole: set[int], i: int) -> bool:
    """Take out the result at `i` and its call; with its last call the turn goes."""
    result, left[i] = left[i], None
    if result is None:
        return False
    for at in range(i - 1, -1, -1):
        said = left[at]
        if said is None or said["role"] != "assistant":
            continue
        calls = said.get("tool_calls") or []
        rest = [call for call in calls if call["id"] != result.get("tool_call_id")]
        if len(rest) < len(calls):
            left[at] = {**said, "tool_calls": rest} if rest else None
            whole.discard(at)
            return True
    return True


def _echo(left: list[Message | None], whole: set[int], i: int) -> bool:
    """Take out a text that is only its own calls, a call that was not made, or the result before it."""
    message = left[i]
    if message is None or message["role"] != "assistant" or not message["content"].strip():
        return False
    before = next((m for m in reversed(left[:i]) if m is not None), None)
    result = before["content"].strip() if before is not None and before["role"] == "tool" else ""
    text = message["content"].strip()
    made = [(call["name"], _key(call["arguments"])) for call in message.get("tool_calls") or ()]
    said = _calls(text)
    if made and said and set(said) <= set(made):
        left[i] = {**message, "content": ""}
    elif not made and (said or (result and " ".join(text.split()) == " ".join(result.split()))):
        left[i] = None
    else:
        return False
    whole.discard(i)
    return True


def _calls(text: str) -> list[tuple[str, str]]:
    """The calls that a text consists of: one as JSON, or a list; none where it says anything else."""
    value = parsed(text)
    found: list[tuple[str, str]] = []
    for one in value if isinstance(value, list) else [value]:
        inner = one.get("function", one) if isinstance(one, dict) else None
        inner = inner if isinstance(inner, dict) else one if isinstance(one, dict) else {}
        name = inner.get("name") or inner.get("tool")
        if not isinstance(name, str) or "answer" in inner or len(inner) > 4:
            return []
        given = parsed(next((inner[k] for k in ("arguments", "args", "parameters") if k in inner), {}))
        if "name" in inner and not {"arguments", "args", "parameters"} & inner.keys():
            return []
        found.append((name, _key(given)))
    return found


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _unanswered(left: list[Message | None]) -> None:
    """Take out requests of whose replies nothing is left, where there was one."""
    users = [i for i, m in enumerate(left) if m is not None and m["role"] == "user"]
    for at, after in zip(users, [*users[1:], len(left)]):
        if after > at + 1 and all(m is None for m in left[at + 1 : after]):
            left[at] = None


def split(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """(what was asked, the reply): before and from the first message of the assistant on."""
    n = next((i for i, m in enumerate(messages) if m["role"] == "assistant"), len(messages))
    return list(messages[:n]), list(messages[n:])
