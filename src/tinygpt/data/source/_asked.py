"""Prompts to be answered: rows of any shape, with the answer that is expected where they have one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data import rows
from tinygpt.data.rows import Message
from tinygpt.data.source._preferred import ANSWERS, PROMPTS, preferred

SHAPES = "{prompt}, {messages}, each with an answer or without"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prompt as messages, what is expected of its answer (None: nothing is said), and the row it comes
    from."""

    prompt: list[Message]
    expected: str | None
    tools: list[dict[str, Any]] | None
    row: dict[str, Any]


def asked(row: Any) -> Asked:
    """A row, checked; DataError says what does not fit. Of preferences the chosen answer is the expected
    one."""
    if not isinstance(row, Mapping):
        raise DataError(f"expected a JSON object, got {type(row).__name__}")
    if "chosen" in row and "rejected" in row:
        pair = preferred(row)
        return Asked(prompt=pair.prompt, expected=pair.chosen[-1]["content"], tools=pair.tools, row=dict(row))
    name = next((n for n in PROMPTS if n in row), None)
    said: list[Any] = [{"role": "assistant", "content": "."}]
    if "messages" in row:
        given = row["messages"]
    elif name is not None:
        given = row[name] if isinstance(row[name], list) else [{"role": "user", "content": row[name]}]
        if row.get("system"):
            given = [{"role": "system", "content": row["system"]}, *given]
    else:
        raise DataError(
            f"no prompt in the row; its keys: {', '.join(map(str, row)) or 'none'}. Known: {SHAPES}"
        )
    if not isinstance(given, list):
        raise DataError("'messages' must be a list with at least one message")
    found = rows.to_messages({"messages": [*given, *said], "tools": row.get("tools")})
    messages, expected = (
        found.messages[:-1],
        next((row[n] for n in ANSWERS if isinstance(row.get(n), str)), None),
    )
    if messages and messages[-1]["role"] == "assistant":
        expected = messages.pop()["content"]
    if not messages:
        raise DataError("there is no prompt before the answer")
    return Asked(prompt=messages, expected=expected, tools=found.tools, row=dict(row))
