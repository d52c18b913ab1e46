"""What a live server writes under a schema, or as arguments of tools, validates at temperature 1.

What cannot be enforced is refused by name and place."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nano import require
from parity.test_schemas import formats
from schemas import ENFORCED, REFUSED
from serving import Live, live

__all__ = ["live"]
pytestmark = pytest.mark.parity
jsonschema = require("jsonschema")
ROOM = 400
# A model without sense ends hardly any text: quotes and brackets are made likelier.
CLOSING = {str(byte): 4.0 for byte in b'"]}'}
ASKED: dict[str, Any] = {"temperature": 1.0, "max_tokens": ROOM, "logit_bias": CLOSING}
SAY = [{"role": "user", "content": "Say it as JSON."}]
BODIES: list[Any] = [one for many in ENFORCED.values() for one in many[::6]]


def post(live: Live, body: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(f"{live.url}/v1/chat/completions", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def together(work: Callable[[Any], None], items: Iterable[Any]) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, items))


def asked(schema: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": schema}}
    return {"messages": SAY, "response_format": form, **ASKED}


def valid(schema: Any) -> Any:
    checker = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    return checker(schema, format_checker=formats)


def test_what_is_served_validates_or_says_that_it_was_cut(live: Live) -> None:
    assert len(BODIES) >= 40
    ended: list[bool] = []

    def check(pair: tuple[int, Any]) -> None:
        seed, schema = pair
        status, said = post(live, {**asked(schema), "seed": seed})
        assert status == 200, (schema, said)
        choice, text = said["choices"][0], said["choices"][0]["message"]["content"]
        ended.append(choice["finish_reason"] == "stop")
        if ended[-1]:
            error = next(valid(schema).iter_errors(json.loads(text)), None)
            assert error is None, (schema, text, error)
        else:
            assert choice["finish_reason"] == "length" and said["usage"]["completion_tokens"] == ROOM, (
                schema,
                said,
            )

    together(check, enumerate(BODIES))
    assert sum(ended) >= 0.9 * len(BODIES), f"only {sum(ended)} of {len(BODIES)} ended"


def test_what_is_cut_is_said_to_be_cut(live: Live) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 40}
    status, said = post(live, {**asked(schema), "max_tokens": 30})
    assert status == 200 and said["choices"][0]["finish_reason"] == "length"
    with pytest.raises(ValueError):
        json.loads(said["choices"][0]["message"]["content"])


def test_what_cannot_be_enforced_is_refused_by_name_and_place(live: Live) -> None:
    def check(pair: tuple[Any, str]) -> None:
        schema, names = pair
        status, said = post(live, asked(schema))
        assert status == 400, (schema, said)
        error = said["error"]
        assert error["type"] == "invalid_request_error", error
        assert error["param"].split(".")[0] == "response_format", error
        if isinstance(schema, dict) and len(json.dumps(schema)) < 1 << 16:
            assert names in error["message"], (schema, error)

    together(check, [one for one in REFUSED if one[0] is not None])  # null stands for none


def tool(name: str, parameters: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


TOOLS = {f"tool_{i}": s for i, s in enumerate(ENFORCED["tools"][:6])}  # more do not fit the context


def streamed(live: Live, body: dict[str, Any]) -> tuple[str, list[dict[str, str]]]:
    """The finish_reason and the calls of a stream, put together."""
    data = json.dumps({**body, "stream": True}).encode()
    reason, calls = "", dict[int, dict[str, str]]()
    with urllib.request.urlopen(f"{live.url}/v1/chat/completions", data, timeout=120) as reply:
        for line in reply:
            if line.startswith(b"data: {"):
                choice = json.loads(line[6:])["choices"][0]
                reason = choice["finish_reason"] or reason
                for part in choice["delta"].get("tool_calls", ()):
                    call = calls.setdefault(part["index"], {"name": "", "arguments": ""})
                    for key, text in part["function"].items():
                        call[key] += text or ""
    return reason, list(calls.values())


@pytest.mark.parametrize("strict", [True, False])
def test_arguments_of_calls_validate(live: Live, strict: bool) -> None:
    tools = [tool(name, schema, strict=strict) for name, schema in TOOLS.items()]
    ended: list[bool] = []
    more: dict[str, dict[str, Any]] = {
        "required": {"tool_choice": "required"},
        "one": {"tool_choice": "required", "parallel_tool_calls": False},
        **{name: {"tool_choice": {"type": "function", "function": {"name": name}}} for name in TOOLS},
    }

    def check(way: str) -> None:
        body = {"messages": SAY, "tools": tools, "seed": len(way), **ASKED, **more[way]}
        status, said = post(live, body)
        assert status == 200, said
        choice = said["choices"][0]
        calls = [call["function"] for call in choice["message"].get("tool_calls") or ()]
        ended.append(choice["finish_reason"] == "tool_calls")
        assert ended[-1] or said["usage"]["completion_tokens"] == ROOM, (way, said)
        assert calls or not ended[-1]
        assert way != "one" or len(calls) <= 1
        for call in calls:
            assert call["name"] == way or way not in TOOLS
            errors = valid(TOOLS[call["name"]]).iter_errors(json.loads(call["arguments"]))
            assert next(errors, None) is None, call
        assert streamed(live, body) == (choice["finish_reason"], calls)

    together(check, more)
    assert sum(ended) >= 0.8 * len(ended), f"only {sum(ended)} of {len(ended)} ended"


def test_a_strict_tool_whose_schema_cannot_be_enforced_is_refused(live: Live) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    body = {"messages": SAY, "tools": [tool("odd", schema, strict=True)], **ASKED}
    status, said = post(live, {**body, "tool_choice": "required"})
    assert status == 400 and "'uniqueItems' at #/properties/a" in said["error"]["message"]
    assert "odd" in said["error"]["message"] and said["error"]["param"] == "tools"
    body["tools"] = [tool("odd", schema)]  # not strict: any object
    status, said = post(live, {**body, "tool_choice": "required", "max_tokens": 40})
    assert status == 200, said
