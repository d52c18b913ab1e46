"""A server that speaks as Anthropic's Messages API does, asked as others are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tinygpt.core.errors import DataError, RemoteError
from tinygpt.data.message import to_call
from tinygpt.runs._answerers import Ask, Remote, Told

VERSION = "2023-06-01"  # of the API, as its header names it
ANSWER = "answer"  # the tool through which an answer under a schema is asked for
ENDS = {"max_tokens": "length", "model_context_window_exceeded": "length"}


def keyed(key: str) -> dict[str, str]:
    """The headers of a request."""
    return {"anthropic-version": VERSION} | ({"x-api-key": key} if key else {})


def under(schema: dict[str, Any]) -> dict[str, Any]:
    """Fields that have a model answer with an object of this schema: it must call one tool."""
    tool = {"name": ANSWER, "description": "The whole answer.", "input_schema": schema}
    return {"tools": [tool], "tool_choice": {"type": "tool", "name": ANSWER}}


def body(messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The fields of a conversation in OpenAI's form: its system messages are one text beside it."""
    system = "\n\n".join(str(m["content"]) for m in messages if m["role"] == "system")
    found: dict[str, Any] = {"messages": _turns([m for m in messages if m["role"] != "system"])}
    found |= {"system": system} if system else {}
    return found | ({"tools": [_tool(one) for one in tools]} if tools else {})


class Anthropic(Remote):
    """See Remote. Answers through the tool `answer` become their JSON text."""

    def _request(self, ask: Ask) -> tuple[str, dict[str, Any]]:
        return "/messages", {**self._fields, **body(ask.raw or [], ask.tools or ())}

    def _read(self, found: dict[str, Any], ask: Ask) -> Told:
        parts = found.get("content")
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise RemoteError("the server's answer has no content")
        text = "".join(str(part.get("text") or "") for part in parts if part.get("type") == "text")
        calls = [
            {"name": part.get("name"), "arguments": part.get("input")}
            for part in parts
            if part.get("type") == "tool_use"
        ]
        offered = {_tool(one)["name"] for one in ask.tools or ()}
        if ANSWER not in offered and [call["name"] for call in calls] == [ANSWER]:
            text, calls = json.dumps(calls[0]["arguments"], ensure_ascii=False), []
        usage = found.get("usage") or {}
        said = {"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})
        return Told(
            text=text, message=said, finish_reason=ENDS.get(str(found.get("stop_reason")), "stop"),
            tokens=usage.get("output_tokens"), prompt_tokens=usage.get("input_tokens"),
        )  # fmt: skip


def _turns(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with their calls and results as blocks; results in a row are one turn of the user."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "tool":
            result = {
                "type": "tool_result", "tool_use_id": message.get("tool_call_id", ""),
                "content": message["content"],
            }  # fmt: skip
            if turns and turns[-1]["role"] == "user" and isinstance(turns[-1]["content"], list):
                turns[-1]["content"].append(result)
            else:
                turns.append({"role": "user", "content": [result]})
            continue
        content: Any = message.get("content") or ""
        if calls := message.get("tool_calls"):
            blocks = [{"type": "text", "text": content}] if content else []
            content = [*blocks, *(_use(call) for call in calls)]
        turns.append({"role": message["role"], "content": content})
    return turns


def _use(call: dict[str, Any]) -> dict[str, Any]:
    known = to_call(call)
    return {"type": "tool_use", "id": call["id"], "name": known["name"], "input": known["arguments"]}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's description of a function as Anthropic's."""
    function = tool.get("function", tool)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError("a tool of the row has no name")
    told = {"name": function["name"], "input_schema": function.get("parameters") or {"type": "object"}}
    return told | ({"description": function["description"]} if function.get("description") else {})
