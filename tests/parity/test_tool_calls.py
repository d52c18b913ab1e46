"""Tool calls: ours read what mlx_lm's parsers read, and its parsers read the forms that we leave to them."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

import nano
from tinygpt.serve import calls
from tinygpt.serve.stream import Parser

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "dry": {"type": "boolean"},
            },
        },
    },
}
GIVEN = {"city": "Übersee", "days": 3, "dry": True}
TEXT = json.dumps(GIVEN)
# What the template holds; the parser of mlx_lm; the answer.
FORMS = {
    "hermes": (
        "<tool_call>", "json_tools",
        f'<tool_call>\n{{"name": "weather", "arguments": {TEXT}}}\n</tool_call>',
    ),
    "coder": (
        "<tool_call>\n<function=", "qwen3_coder",
        "<tool_call>\n<function=weather>\n<parameter=city>\nÜbersee\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n<parameter=dry>\ntrue\n</parameter>\n</function>\n</tool_call>",
    ),
    "glm": (
        "<tool_call><arg_key>", "glm47",
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Übersee</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n<arg_key>dry</arg_key>\n<arg_value>true</arg_value>\n</tool_call>",
    ),
    "list": ("[TOOL_CALLS]", "mistral", f'[TOOL_CALLS] [{{"name": "weather", "arguments": {TEXT}}}]'),
    "named": ("[TOOL_CALLS][ARGS]", "mistral", f"[TOOL_CALLS]weather[ARGS]{TEXT}"),
    "pythonic": (
        "<|tool_call_start|>", "pythonic",
        "<|tool_call_start|>[weather(city=\"Übersee\", days=3, dry=True)]<|tool_call_end|>",
    ),
    "minimax": (
        "<minimax:tool_call>", "minimax_m2",
        '<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">Übersee</parameter>\n'
        '<parameter name="days">3</parameter>\n<parameter name="dry">true</parameter>\n</invoke>\n'
        "</minimax:tool_call>",
    ),
    "kimi": (
        "<|tool_calls_section_begin|>", "kimi_k2",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
        f"{TEXT}<|tool_call_end|><|tool_calls_section_end|>",
    ),
}  # fmt: skip


def _read(source: str, answer: str) -> tuple[str, list[tuple[str, Any]]]:
    parser = Parser(forms=calls.forms(source, {}), tools=[TOOL])
    parts = [part for letter in answer for part in parser.feed(letter)] + parser.finish()
    text = "".join(p.text for p in parts if p.kind == "text")
    names = [p.text for p in parts if p.kind == "call"]
    written = "".join({"call": "\n", "arguments": p.text}.get(p.kind, "") for p in parts).split("\n")[1:]
    return text, [(name, json.loads(arguments)) for name, arguments in zip(names, written, strict=True)]


@pytest.mark.parity
@pytest.mark.parametrize("name", FORMS)
def test_calls_are_read_as_mlx_lm_reads_them(name: str) -> None:
    nano.require("mlx_lm")
    source, module, answer = FORMS[name]
    peer = importlib.import_module(f"mlx_lm.tool_parsers.{module}")
    body = answer.partition(peer.tool_call_start)[2]
    body = body.rpartition(peer.tool_call_end)[0] if peer.tool_call_end else body
    found = peer.parse_tool_call(body, [TOOL])
    theirs = [(one["name"], one["arguments"]) for one in (found if isinstance(found, list) else [found])]
    assert _read(source, f"Well.{answer}") == ("Well.", theirs) and theirs == [("weather", GIVEN)]


@pytest.mark.parity
def test_what_mlx_lm_cannot_read_is_text() -> None:
    nano.require("mlx_lm")
    broken = "<minimax:tool_call>what</minimax:tool_call>"
    assert _read("<minimax:tool_call>", broken) == (broken, [])
