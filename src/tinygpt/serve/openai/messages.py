"""Messages and tools of a chat request, as templates take them."""

from __future__ import annotations

from typing import Any

from tinygpt.serve.calls import arguments
from tinygpt.serve.fields import Fields, function_tools
from tinygpt.serve.job import Message
from tinygpt.serve.limits import Limits

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
LONGEST_NAME = 128
MODES = ("none", "auto", "required")


def messages(f: Fields, limits: Limits) -> list[Message]:
    """The conversation. A developer is a system, a function's result a tool's."""
    given = f.objects("messages", limits.messages)
    if not given:
        raise f.wrong("messages", "must hold at least one message")
    found: list[Message] = []
    names: dict[str, str] = {}  # of the calls so far, by their id
    for each in given:
        role = each.choice("role", ROLES, "")
        match role:
            case "assistant":
                message = _assistant(each)
                names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls", ())}
            case "tool" | "function":
                message = {"role": "tool", "content": _content(each, needed=True)}
                id = each.text("tool_call_id", "")
                if id:
                    message["tool_call_id"] = id
                name = each.text("name", "") or names.get(id, "")
                if name:
                    message["name"] = name
            case _:
                plain = "system" if role == "developer" else role
                message = {"role": plain, "content": _content(each, needed=True)}
                if name := each.text("name"):
                    message["name"] = name
        found.append(message)
    return found


def _assistant(f: Fields) -> Message:
    message: Message = {"role": "assistant", "content": _content(f) or f.text("refusal", "")}
    if reasoning := f.text("reasoning_content") or f.text("reasoning"):
        message["reasoning_content"] = reasoning
    calls = f.objects("tool_calls", 256)
    if (legacy := f.object("function_call")) is not None and not calls:
        calls = [Fields({"function": legacy.data}, f.path)]
    if calls:
        message["tool_calls"] = [_call(call, i) for i, call in enumerate(calls)]
    return message


def _call(f: Fields, index: int) -> dict[str, Any]:
    if f.text("type", "function") != "function":
        raise f.wrong("type", "must be 'function'")
    function = f.object("function")
    if function is None:
        raise f.wrong("function", "is required")
    about = {"name": function.needed("name"), "arguments": _arguments(function)}
    return {"id": f.text("id", "") or f"call_{index}", "type": "function", "function": about}


def _arguments(f: Fields) -> dict[str, Any]:
    """JSON text as an object, or one that some clients send."""
    value = f.any("arguments")
    return value if isinstance(value, dict) else arguments(f.text("arguments", ""))


def _content(f: Fields, *, needed: bool = False) -> str:
    """Text, or the texts of a list of parts with a line's end between them."""
    value = f.any("content")
    if value is None:
        if needed:
            raise f.wrong("content", "is required")
        return ""
    if not isinstance(value, list):
        return f.text("content", "")
    return "\n".join(_part(part) for part in f.objects("content", 4096))


def _part(f: Fields) -> str:
    match f.text("type", ""):
        case "text" | "input_text" | "output_text":
            text = f.text("text")
            if text is None:
                raise f.wrong("text", "is required")
            return text
        case "refusal":
            return f.text("refusal", "")
        case "":
            raise f.wrong("type", "is required")
        case other:
            hint = "this model reads text only" if "image" in other or "audio" in other else ""
            raise f.wrong("type", f"must be 'text', got '{other[:40]}'", hint)


def tools(f: Fields, limits: Limits) -> list[dict[str, Any]]:
    """Function tools, `functions` of old among them."""
    given = [(each, each.object("function")) for each in f.objects("tools", limits.tools)]
    if not given:
        given = [(each, each) for each in f.objects("functions", limits.tools)]
    found: list[dict[str, Any]] = []
    for tool, function in given:
        if function is not tool and tool.text("type", "function") != "function":
            raise tool.wrong("type", f"must be 'function', got '{str(tool.any('type'))[:40]}'")
        if function is None:
            raise tool.wrong("function", "is required")
        found.append({"type": "function", "function": _function(function)})
    return function_tools(found)


def _function(f: Fields) -> dict[str, Any]:
    name = f.needed("name")
    if len(name) > LONGEST_NAME:
        raise f.wrong("name", f"may have at most {LONGEST_NAME} characters")
    f.text("description")
    f.flag("strict")
    f.object("parameters")
    kept = {key: value for key, value in f.data.items() if value is not None}
    return {"parameters": {"type": "object", "properties": {}}} | kept


def choice(f: Fields, tools: list[dict[str, Any]]) -> tuple[str | dict[str, str], list[dict[str, Any]], bool]:
    """Which tool must or may be called, the tools that may be, and whether none of the server's may be."""
    name = "tool_choice" if "tool_choice" in f else "function_call"
    given = f.any(name)
    if given is None:
        return "auto", tools, False  # also without any: the server may have some of its own
    if isinstance(given, str):
        return f.choice(name, MODES if name == "tool_choice" else ("none", "auto"), "auto"), tools, False
    asked = f.object(name)
    assert asked is not None
    if asked.any("type") == "allowed_tools":
        return *_allowed(asked.object("allowed_tools") or asked, tools), True
    function = asked if name == "function_call" else asked.object("function") or asked
    return {"name": function.needed("name")}, tools, False


def _allowed(f: Fields, tools: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    mode = f.choice("mode", ("auto", "required"), "auto")
    listed = f.objects("tools", 1024)
    wanted = {(each.object("function") or each).needed("name") for each in listed}
    kept = [tool for tool in tools if tool["function"]["name"] in wanted]
    if len(kept) != len(wanted) or not kept:
        raise f.wrong("tools", "must name tools of this request")
    return mode, kept
