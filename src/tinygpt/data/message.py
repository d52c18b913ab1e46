"""Messages: one turn of a conversation, in OpenAI's spelling or ShareGPT's, checked and made alike."""

from __future__ import annotations

import math
from typing import Any

from tinygpt.core.errors import DataError, nearest
from tinygpt.data import table

Message = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")
# Other names of the roles, and the keys that ShareGPT's messages have.
ALSO = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "developer": "system",
    "function": "tool", "observation": "tool", "function_response": "tool", "function_call": "assistant",
}  # fmt: skip
DEEPEST = 64  # levels of lists and objects in a call or a schema
KEPT = ("name", "tool_call_id", "reasoning_content")  # texts beside the content that some templates write


def to_message(message: Any, where: str) -> Message:
    """A message as {role, content} and, for an assistant, tool_calls; DataError says what does not fit."""
    if not isinstance(message, dict) or not {"role", "from"} & message.keys():
        raise DataError(f"{where} must be an object with a 'role'")
    given = message["role"] if "role" in message else message["from"]
    role = ALSO.get(given, given) if isinstance(given, str) else given
    if role not in ROLES:
        names = (*ROLES, *ALSO)
        raise DataError(
            f"{where}: unknown role {given!r}.{nearest(str(given), names)}", hint=f"roles: {', '.join(ROLES)}"
        )
    said = message.get("content") if "content" in message else message.get("value")
    calls = message.get("tool_calls") or message.get("function_call")
    if given == "function_call":  # ShareGPT's: the value is the call
        calls, said = _json(said, where), None
    elif isinstance(calls, dict):
        calls = [calls]
    result: Message = {"role": role, "content": _content(said, f"{where}.content")}
    if calls:
        if role != "assistant" or not isinstance(calls, list):
            raise DataError(f"{where}: 'tool_calls' must be a list, in a message of the assistant")
        result["tool_calls"] = [_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)]
    if role in ("system", "user") and said is None:
        raise DataError(f"{where}: a message of the {role} must have a 'content'")
    return result | {k: text_of(message[k], f"{where}.{k}") for k in KEPT if isinstance(message.get(k), str)}


def to_call(call: Any, where: str = "tool call") -> dict[str, Any]:
    """A tool call as {"name", "arguments": dict}, from that form or from OpenAI's.

    OpenAI's is {"function": {"name", "arguments": JSON text}}.
    """
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
        raise DataError(f"{where} must be an object with a 'name'")
    arguments = inner.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = table.parse(arguments or "{}")
        except DataError as error:
            raise DataError(f"{where}: the arguments are {error.message}") from error
    if not isinstance(arguments, dict):
        raise DataError(f"{where}: the arguments must be an object, got {kind_of(arguments)}")
    return {"name": text_of(inner["name"], f"{where}.name"), "arguments": json_of(arguments, where)}


def text_of(value: Any, where: str) -> str:
    """A value that must be text that UTF-8 can write."""
    if not isinstance(value, str):
        raise DataError(f"'{where}' must be text, got {kind_of(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair: no text has it
        raise DataError(f"'{where}' holds half of a surrogate pair at character {error.start}") from error
    return value


def json_of(value: Any, where: str) -> Any:
    """A value that must be JSON: text that UTF-8 can write, numbers that JSON has, not nested too deeply for
    what walks through it later."""
    level = [value]
    for _ in range(DEEPEST):
        if not level:
            return value
        inner: list[Any] = []
        for one in level:
            if isinstance(one, str):
                text_of(one, where)
            elif isinstance(one, dict):
                inner += [*one, *one.values()]
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, float) and not math.isfinite(one):
                raise DataError(f"'{where}' holds {one}, which is no number of JSON")
            elif not isinstance(one, float | int | None):  # a table may have dates
                raise DataError(f"'{where}' holds a {type(one).__name__}, which JSON has not")
        level = inner
    raise DataError(f"'{where}' is nested more than {DEEPEST} levels deep")


def kind_of(value: Any) -> str:
    """What JSON calls a value, for people."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "a number")


def _call(call: Any, where: str) -> dict[str, Any]:
    """A call with its id, where it has one: results may name it."""
    identity = call.get("id") if isinstance(call, dict) else None
    return to_call(call, where) | ({"id": text_of(identity, f"{where}.id")} if identity is not None else {})


def _json(value: Any, where: str) -> list[Any]:
    found = table.parse(value) if isinstance(value, str) else value
    if not isinstance(found, dict | list):
        raise DataError(f"{where}: a function call must be an object, got {kind_of(found)}")
    return found if isinstance(found, list) else [found]


def _content(value: Any, where: str) -> str:
    """Text, None (a message that only calls tools), or the list-of-parts form when all parts are text."""
    if value is None:
        return ""
    if isinstance(value, list):
        for part in value:
            if not isinstance(part, dict) or part.get("type") != "text":
                raise DataError(f"{where}: only parts of type 'text' can be learned")
        return "".join(text_of(part.get("text"), where) for part in value)
    return text_of(value, where)
