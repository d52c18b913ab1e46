"""What a row asks, whatever shape it has, for a teacher that answers it anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tinygpt.core.errors import DataError
from tinygpt.data import rows
from tinygpt.data.message import Message, text_of

QUESTIONS = ("prompt", "instruction", "question")
SHAPES = "{prompt}, {messages, tools?}, {conversations}, {instruction, input?}, {question}"


class Question(NamedTuple):
    """The messages before the answer, and the tools that may be used."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None


def question(row: Any, field: str = "prompt", system: str = "") -> Question:
    """A row without its last answer, where it has one; DataError says what does not fit.

    field: the column that asks, a text or a list of messages; without it the row is read as any shape is.
    system: the first message of conversations that have none."""
    if not isinstance(row, Mapping):
        raise DataError(f"expected a JSON object, got {type(row).__name__}")
    given: dict[str, Any] = {name: row[name] for name in ("tools", "system") if row.get(name)}
    if field not in row:
        field = next((name for name in (*rows.TALKS, *QUESTIONS) if name in row), "")
    if not field:
        keys = ", ".join(map(str, row)) or "none"
        raise DataError(f"nothing is asked in the row; its keys: {keys}. Known: {SHAPES}")
    asked = row[field]
    if field not in rows.TALKS and not isinstance(asked, list):
        asked = text_of(asked, field)
        if row.get("input") and field != "input":
            asked += "\n\n" + text_of(row["input"], "input")
        if not asked.strip():
            raise DataError(f"'{field}' is empty")
        asked = [{"role": "user", "content": asked}]
    listed = asked if isinstance(asked, list) else [asked]  # a cell of a table holds it as JSON text
    if isinstance(asked, str):
        listed = rows.to_messages({"messages": asked, **given}).messages
    found = rows.to_messages({**given, "messages": [*listed, {"role": "assistant", "content": "."}]})
    messages = found.messages[:-1]
    if messages and messages[-1]["role"] == "assistant":
        messages.pop()
    if not any(message["role"] != "system" for message in messages):
        raise DataError("nothing is asked before the answer")
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return Question(messages, found.tools)


def answered(asked: Question, answer: Message, *, pair: bool = False) -> dict[str, Any]:
    """The row of a question and its answer: {messages, tools?}, or with `pair` {prompt, completion}, as texts
    where both are no more than texts."""
    more = {"tools": asked.tools} if asked.tools else {}
    if not pair:
        return {"messages": [*asked.messages, answer], **more}
    first = asked.messages[0]
    plain = len(asked.messages) == 1 and first["role"] == "user" and set(first) == {"role", "content"}
    if plain and not more and set(answer) == {"role", "content"}:
        return {"prompt": first["content"], "completion": answer["content"]}
    return {"prompt": asked.messages, "completion": [answer], **more}
