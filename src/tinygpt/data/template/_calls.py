"""Tool calls in what a model wrote, in the forms that model families use.

    hermes    <tool_call>{"name": ..., "arguments": {...}}</tool_call>             (Qwen, Hermes, SmolLM3)
    mistral   [TOOL_CALLS] [{"name": ..., "arguments": {...}}]
              [TOOL_CALLS]name[ARGS]{...}                                          (from v11 on)
    llama     {"name": ..., "parameters": {...}}, alone or after <|python_tag|>    (Llama 3.1 and later)

A parser gives {"role", "content", "tool_calls"} and "error" where something looks like a call and is none;
that stays in the content.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data.rows import to_call

Message = dict[str, Any]
MISTRAL, ARGS, PYTHON = "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>"


def parser(source: str) -> Callable[[str], Message]:
    """The parser that goes with a Jinja template, known by the words it writes."""
    if MISTRAL in source:
        return mistral
    if "<tool_call>" in source:
        return hermes
    if PYTHON in source or ('"parameters": ' in source and "ipython" in source):
        return llama
    return plain


def plain(text: str) -> Message:
    """All is content."""
    return _message(text, [])


def hermes(text: str) -> Message:
    """See `chatml.parse`."""
    from tinygpt.data.template.chatml import parse

    return parse(text)


def mistral(text: str) -> Message:
    """Calls after [TOOL_CALLS]: a JSON list, or name[ARGS]{...} each after a tag of its own."""
    before, tag, after = text.partition(MISTRAL)
    if not tag:
        return plain(text)
    try:
        if ARGS in after:
            calls = [
                _call({"name": name.strip(), "arguments": _json(arguments)})
                for name, _, arguments in (part.partition(ARGS) for part in after.split(MISTRAL))
            ]
        else:
            listed, end = json.JSONDecoder().raw_decode(after.lstrip())
            if after.lstrip()[end:].strip():
                raise DataError("the tool calls go on after their JSON")
            calls = [_call(one) for one in (listed if isinstance(listed, list) else [listed])]
    except ValueError as error:
        return _message(text, [], f"the tool calls are not JSON: {error}")
    except DataError as error:
        return _message(text, [], error.message)
    return _message(before.rstrip(), calls)


def llama(text: str) -> Message:
    """One JSON object (or several with semicolons between) that is the whole answer."""
    begins = text.lstrip().startswith(PYTHON)
    body = text.strip().removeprefix(PYTHON).strip()
    if not begins and not (body.startswith("{") and '"name"' in body):
        return plain(text)
    calls: list[dict[str, Any]] = []
    at = 0
    try:
        while at < len(body):
            value, at = json.JSONDecoder().raw_decode(body, at)
            calls.append(_call(value))
            rest = body[at:].lstrip()
            if rest and not rest.startswith(";"):
                raise DataError("the tool call goes on after its JSON")
            at = len(body) - len(rest[1:].lstrip()) if rest else len(body)
    except ValueError as error:
        # Without the tag it may just be an answer that begins with a brace.
        return _message(text, [], f"the tool call is not JSON: {error}" if begins else "")
    except DataError as error:
        return _message(text, [], error.message if begins else "")
    return _message("", calls)


def written(call: dict[str, Any], key: str = "arguments") -> str:
    """A call as JSON; `key` names its arguments. Those that are text already stay as they are."""
    function = call.get("function") or call
    arguments = function.get("arguments") or {}
    text = arguments if isinstance(arguments, str) else to_json(arguments)
    return f'{{"name": {to_json(function["name"])}, "{key}": {text}}}'


def to_json(value: Any) -> str:
    """JSON as the `tojson` filter of transformers writes it; letters of all scripts stay themselves."""
    return json.dumps(value, ensure_ascii=False)


def _call(value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and "parameters" in value and "arguments" not in value:
        value = {**value, "arguments": value["parameters"]}
    return to_call(value)


def _json(text: str) -> Any:
    return json.loads(text.strip() or "{}")


def _message(content: str, calls: list[dict[str, Any]], error: str = "") -> Message:
    message: Message = {"role": "assistant", "content": content, "tool_calls": calls}
    return message | ({"error": error} if error else {})
