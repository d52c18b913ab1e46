"""A recorded conversation, whatever format it was in: its messages, what became of it, and its tokens."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data import atraj
from tinygpt.data.message import Message, json_of, to_message

ANSWERED, UNKNOWN = "answered", "unknown"
Bad = Callable[[str, str], None]
"""Called with the place and the reason of what cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One of them, from the file `place`. Messages are as `data.message` has them, each call with an id that
    its result names.

    errors:  of assistant's messages that were no valid turn, by their place: what was wrong
    refused: places of results that are the policy's, since the call was not allowed
    steps:   where the tokens are known: the step of each message; `tokenizer` is the hash of whose ids they
             are
    model:   {name, hash}, as far as known
    """

    id: str
    place: str
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    task: str = ""
    outcome: str = UNKNOWN
    success: bool | None = None
    reward: dict[str, float] = field(default_factory=dict[str, float])
    redacted: bool = False
    errors: dict[int, str] = field(default_factory=dict[int, str])
    refused: frozenset[int] = frozenset()
    steps: Sequence[atraj.Step] | None = None
    tokenizer: str = ""
    model: Mapping[str, str] = field(default_factory=dict[str, str])


def masked(trace: Trace) -> Trace:
    """The trace without what looks like a secret; where its texts hold one, its tokens may, and go."""
    tools = None if trace.tools is None else json.loads(_masked(json.dumps(trace.tools)))
    bare = dataclasses.replace(
        trace, messages=atraj.masked_json(trace.messages), tools=tools, task=atraj.masked(trace.task),
        id=atraj.masked(trace.id), model=atraj.masked_json(dict(trace.model)),
    )  # fmt: skip
    return bare if bare == trace else dataclasses.replace(bare, redacted=True, steps=None)


@functools.lru_cache(maxsize=64)
def _masked(told: str) -> str:
    """JSON text without secrets: many traces have the same tools."""
    return json.dumps(atraj.masked_json(json.loads(told)))


def messages_of(value: Any, where: str) -> list[Message]:
    """A list of messages as OpenAI writes them, checked and linked."""
    if not isinstance(value, list):
        raise DataError(f"'{where}' must be a list of messages")
    return linked([to_message(m, f"{where}[{i}]") for i, m in enumerate(value)])


def linked(messages: Sequence[Message]) -> list[Message]:
    """The same with an id for each call, and with the id and the name of its call for each result: results
    that say no id answer the open calls in their order."""
    found: list[Message] = []
    names: dict[str, str] = {}
    waiting: list[str] = []
    for message in messages:
        one = dict(message)
        if calls := one.get("tool_calls"):
            one["tool_calls"] = [
                {**call, "id": str(call.get("id") or f"call_{len(found)}_{i}")}
                for i, call in enumerate(calls)
            ]
            waiting = [call["id"] for call in one["tool_calls"]]
            names |= {call["id"]: call["name"] for call in one["tool_calls"]}
        if one["role"] == "tool":
            id = one.get("tool_call_id") or next((w for w in waiting if _fits(one, names[w])), "")
            if id in waiting:
                waiting.remove(id)
            one |= {k: v for k, v in (("tool_call_id", id), ("name", names.get(id, ""))) if v}
        found.append(one)
    return found


def _fits(result: Message, name: str) -> bool:
    return not result.get("name") or result["name"] == name


def openai(messages: Sequence[Message]) -> list[Message]:
    """Messages as rows have them, in OpenAI's form: arguments are JSON text."""
    found: list[Message] = []
    for message in messages:
        one = {key: value for key, value in message.items() if key != "tool_calls"}
        if calls := message.get("tool_calls"):
            one["tool_calls"] = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {
                        "name": call["name"],
                        "arguments": json.dumps(call["arguments"], ensure_ascii=False),
                    },
                }
                for call in calls
            ]
        found.append(one)
    return found


def tools_of(value: Any) -> list[dict[str, Any]] | None:
    """Tool entries in OpenAI's form, of those that lack the outer object, too; None where there is none."""
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise DataError("'tools' must be a list of objects")
    entries: list[dict[str, Any]] = []
    for one in value:
        inner = one if "function" in one else {k: v for k, v in one.items() if k != "type"}
        entries.append(one if "function" in one else {"type": "function", "function": inner})
    return json_of(entries, "tools")


def number(value: Any) -> float | None:
    """A number of JSON, or true and false as 1 and 0; None for what is none."""
    return float(value) if isinstance(value, int | float) and abs(value) < math.inf else None


def rewards(value: Any, name: str = "reward") -> dict[str, float]:
    """A number, or numbers by their dimensions; what is no number is left out."""
    given = value if isinstance(value, dict) else {name: value}
    return {str(k): n for k, v in given.items() if (n := number(v)) is not None}
