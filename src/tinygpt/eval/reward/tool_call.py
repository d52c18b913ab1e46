"""How well the answer's tool calls are those expected: names first, then arguments.

Half of a call's score is for its name, half for the share of its arguments that are right and not made up;
calls are compared in order, and one too many or too few counts as wrong.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.errors import DataError
from tinygpt.data.rows import to_call
from tinygpt.data.template import chatml
from tinygpt.eval.reward._answer import Answer


@dataclass(frozen=True, kw_only=True)
class Config:
    """How strictly."""

    names_only: Annotated[bool, "Arguments do not count."] = False


def score(answer: Answer, config: Config) -> float:
    """From 0 to 1; where no call is expected, 1 for an answer without any. DataError: nothing is expected."""
    wanted, message = _expected(answer), chatml.parse(answer.text)
    made = message["tool_calls"]
    if not wanted:
        return float(not made and not message.get("error"))
    total = sum(_alike(a, b, config) for a, b in zip(wanted, made))
    return total / max(len(wanted), len(made))


def _alike(wanted: dict[str, Any], made: dict[str, Any], config: Config) -> float:
    if wanted["name"] != made["name"]:
        return 0.0
    a, b = wanted["arguments"], made["arguments"]
    right = sum(key in b and b[key] == value for key, value in a.items())
    share = right / len(a.keys() | b.keys()) if a or b else 1.0
    return 1.0 if config.names_only else 0.5 + 0.5 * share


def _expected(answer: Answer) -> list[dict[str, Any]]:
    """Calls of the row: `tool_calls`, of its last message, or in its expected text."""
    said: Any = answer.row.get("tool_calls")
    messages = answer.row.get("messages") or [{}]
    if said is None and isinstance(messages, list) and isinstance(messages[-1], dict):
        said = messages[-1].get("tool_calls")
    if isinstance(said, str):
        said = json.loads(said)
    if said is not None:
        return [to_call(call) for call in said]
    if answer.expected is None:
        raise DataError(
            "a row has no expected tool calls", hint="add 'tool_calls', or the assistant's message"
        )
    return chatml.parse(answer.expected)["tool_calls"]
