"""Answers taken apart as they grow: the same parts however they are cut, no marks in the text."""

from __future__ import annotations

import json
import random
from itertools import groupby
from typing import Any

import pytest

from tinygpt.serve import calls
from tinygpt.serve.stream import Parser, Part

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"}, "days": {"type": "integer"}, "exact": {"type": "boolean"},
                    "tags": {"type": "array"}, "at": {"type": ["number", "null"]},
                },
            },
        },
    }
    for name in ("weather", "get_time")
]  # fmt: skip
CALL = {"city": "Übersee </tool_call>", "days": 3, "tags": ["a", {"b": None}]}
WRITTEN = json.dumps(CALL, ensure_ascii=False)
THINK = ("<think>", "</think>")

# name: (what the template holds, the answer, its text, reasoning and calls)
Case = tuple[str, str, str, str, list[tuple[str, Any]]]
CASES: dict[str, Case] = {
    "plain": ("<tool_call>", "1 < 2, <tool and </think>.\n\n", "1 < 2, <tool and </think>.\n\n", "", []),
    "reasoning": ("", "\n<think>\nHm, <b>\n\nso.\n</think>\n\nYes.", "Yes.", "Hm, <b>\n\nso.", []),
    "reasoning cut": ("", "<think>\nHm </thi", "", "Hm </thi", []),
    "reasoning late": ("", "No <think>x</think>", "No <think>x</think>", "", []),
    "hermes": (
        "<tool_call>", f'I look.\n\n<tool_call>\n{{"name": "weather", "arguments": {WRITTEN}}}\n</tool_call>'
        '<tool_call>{"name": "get_time", "arguments": {}}</tool_call>\n',
        "I look.", "", [("weather", CALL), ("get_time", {})],
    ),
    "hermes after reasoning": (
        "<tool_call>", '<think>\nA.\n</think>\n\n<tool_call>\n{"name": "get_time", "arguments": {}}\n'
        "</tool_call>", "", "A.", [("get_time", {})],
    ),
    "hermes without its end": (
        "<tool_call>", '<tool_call>\n{"name": "get_time", "arguments": {"a": 1}}', "", "",
        [("get_time", {"a": 1})],
    ),
    "hermes broken": (
        "<tool_call>", 'So:\n<tool_call>\n{"name": "get_time", "arg\n</tool_call> <tool_call>{"name": '
        '"weather", "arguments": {}}</tool_call>',
        'So:\n<tool_call>\n{"name": "get_time", "arg\n</tool_call>', "",
        [("weather", {})],
    ),
    "hermes several": (
        "<tool_call>", '<tool_call>{"name": "get_time", "arguments": {"a": [1]}};\n{"name": "weather", '
        '"arguments": {"b": {}}}\n</tool_call> So.', "So.", "",
        [("get_time", {"a": [1]}), ("weather", {"b": {}})],
    ),
    "hermes with a bracket more, one less, and a word": (
        "<tool_call>", '<tool_call>{"name": "get_time", "arguments": {}}}</tool_call>'
        '<tool_call>{"name": "get_time", "arguments": {}</tool_call>'
        '<tool_call>{"name": "get_time", "arguments": {}} what?</tool_call>', "what?", "",
        [("get_time", {})] * 3,
    ),
    "hermes from the other side": (
        "<tool_call>", f'<tool_call>{{"arguments": {WRITTEN}, "name": "weather"}}</tool_call>'
        '<tool_call>{"name": "weather", "arguments": "{\\"days\\": 1}"}</tool_call>', "", "",
        [("weather", CALL), ("weather", {"days": 1})],
    ),
    "coder with JSON": (
        "<tool_call>\n<function=", f"<tool_call>\n<function=weather>\n{WRITTEN}\n</function>\n</tool_call>",
        "", "", [("weather", CALL)],
    ),
    "hermes cut": (
        "<tool_call>", 'So: <tool_call>{"name": "get_ti', 'So: <tool_call>{"name": "get_ti', "", [],
    ),
    "qwen coder": (
        "<tool_call>\n<function=", "Well.\n<tool_call>\n<function=weather>\n<parameter=city>\nA\n"
        " </tool_call>B\n</parameter>\n<parameter=days>\n12\n</parameter>\n<parameter=exact>\nTrue\n"
        "</parameter>\n"
        "<parameter=other>\n7\n</parameter>\n</function>\n</tool_call>", "Well.", "",
        [("weather", {"city": "A\n </tool_call>B", "days": 12, "exact": True, "other": "7"})],
    ),
    "functions": (
        "<tool_call><function=", '<function=get_time>{"city": "x"}</function> ok', "ok", "",
        [("get_time", {"city": "x"})],
    ),
    "glm": (
        "<tool_call><arg_key>", "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>12</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>12</arg_value>\n</tool_call>", "", "",
        [("weather", {"city": "12", "days": 12})],
    ),
    "mistral list": (
        "[TOOL_CALLS]", f'[TOOL_CALLS] [{{"name": "weather", "arguments": {WRITTEN}}}]', "", "",
        [("weather", CALL)],
    ),
    "mistral names": (
        "[TOOL_CALLS]", 'Well.[TOOL_CALLS]weather[ARGS]{"days": 1}[TOOL_CALLS]get_time[ARGS]{}', "Well.", "",
        [("weather", {"days": 1}), ("get_time", {})],
    ),
    "mistral broken": ("[TOOL_CALLS]", "A [TOOL_CALLS] [{]", "A [TOOL_CALLS] [{]", "", []),
    "llama": (
        "<|python_tag|>", '{"name": "weather", "parameters": {"days": 2}}; {"name": "get_time", '
        '"parameters": {}}', "", "", [("weather", {"days": 2}), ("get_time", {})],
    ),
    "llama with its type": (
        "<|python_tag|>", '{"type": "function", "name": "weather", "parameters": {"days": 2}}', "", "",
        [("weather", {"days": 2})],
    ),
    "llama tag": (
        "<|python_tag|>", '<|python_tag|>{"name": "weather", "parameters": {"days": 2}}', "", "",
        [("weather", {"days": 2})],
    ),
    "llama json": ("<|python_tag|>", '{"names": ["weather"]} \n', '{"names": ["weather"]} \n', "", []),
    "llama stranger": (
        "<|python_tag|>", '{"name": "Anna", "parameters": {}}', '{"name": "Anna", "parameters": {}}', "", [],
    ),
    "pythonic": (
        "<|tool_call_start|>", '<|tool_call_start|>[weather(city="a)]", days=2, exact=true), get_time()]'
        "<|tool_call_end|>Done.", "Done.", "",
        [("weather", {"city": "a)]", "days": 2, "exact": True}), ("get_time", {})],
    ),
    "pythonic bare": (
        "[func_name1(params_name1=params_value1)]", "[weather(city='a', at=None)]", "", "",
        [("weather", {"city": "a", "at": None})],
    ),
    "pythonic none": ("[func_name1(", "[see below] (1)", "[see below] (1)", "", []),
}  # fmt: skip


def _parser(source: str, **options: Any) -> Parser:
    return Parser(THINK, forms=calls.forms(source, {}), tools=TOOLS, **options)


def _parts(parser: Parser, pieces: list[str]) -> tuple[str, str, list[tuple[str, Any]]]:
    parts = [part for piece in pieces for part in parser.feed(piece)] + parser.finish()
    join = {kind: "".join(p.text for p in parts if p.kind == kind) for kind in ("text", "reasoning")}
    return join["text"], join["reasoning"], [(name, json.loads(text)) for name, text in _calls(parts)]


def _calls(parts: list[Part]) -> list[tuple[str, str]]:
    """Names, and arguments as they are written."""
    found: list[tuple[str, str]] = []
    for part in parts:
        if part.kind == "call":
            found.append((part.text, ""))
        elif part.kind == "arguments":
            found[-1] = (found[-1][0], found[-1][1] + part.text)
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_form_is_read_the_same_however_it_is_cut(name: str) -> None:
    source, answer, *expected = CASES[name]
    assert _parts(_parser(source), [answer]) == tuple(expected)
    assert _parts(_parser(source), list(answer)) == tuple(expected)
    rng = random.Random(name)
    for _ in range(12):
        cuts = sorted(rng.sample(range(len(answer)), rng.randint(1, len(answer) // 3)))
        pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)])]
        assert _parts(_parser(source), pieces) == tuple(expected)


def test_any_mixture_of_marks_is_read_the_same_however_it_is_cut() -> None:
    rng = random.Random(5)
    bits = ["<think>", "</think>", "<tool_call>", "</tool_call>", '{"name": "weather", "arguments": {}}',
            "\n", " ", '"', "{", "a", "<", "[TOOL_CALLS]", "[ARGS]", "<function=weather>", "</function>",
            "<|python_tag|>", "weather", "[weather()]", "[weather(", '{"name": "weather", "arguments": {',
            '"parameters": {}}', "}", "\\", "<function=weather>{", '"a": "', ";"]  # fmt: skip
    sources = [
        "<tool_call><function=",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "<|tool_call_start|>",
        "[func_name1(",
    ]
    for _ in range(150):
        answer = "".join(rng.choice(bits) for _ in range(rng.randint(1, 14)))
        source, opened = rng.choice(sources), rng.random() < 0.3
        found: list[Any] = []
        for pieces in ([answer], list(answer)):
            parser = _parser(source, opened=opened)
            parts = [part for piece in pieces for part in parser.feed(piece)] + parser.finish()
            found.append([(k, "".join(p.text for p in g)) for k, g in groupby(parts, lambda p: p.kind)])
        assert found[0] == found[1], answer


# What the template holds, and what comes before and after the arguments.
WAYS = {
    "hermes": ("<tool_call>", '<tool_call>\n{"name": "weather", "arguments": ', "}\n</tool_call>"),
    "coder": ("<tool_call><function=", "<tool_call><function=weather>\n", "</function></tool_call>"),
    "functions": ("<tool_call><function=", "<function=weather>", "</function>"),
    "mistral list": ("[TOOL_CALLS]", '[TOOL_CALLS] [{"name": "weather", "arguments": ', "}]"),
    "mistral names": ("[TOOL_CALLS]", "[TOOL_CALLS]weather[ARGS]", ""),
    "llama": ("<|python_tag|>", '{"type": "function", "name": "weather", "parameters": ', "}"),
    "llama tag": ("<|python_tag|>", '<|python_tag|>{"name": "weather", "parameters": ', "}"),
}


@pytest.mark.parametrize("way", WAYS)
def test_arguments_are_given_out_as_they_are_written(way: str) -> None:
    source, before, after = WAYS[way]
    written = '{ "city":"a, b", "at": [1.50,{}] }'
    parser = _parser(source)
    assert not [p for letter in before for p in parser.feed(letter)]
    assert [[(p.kind, p.text) for p in parser.feed(letter)] for letter in written] == [
        [("call", "weather"), ("arguments", "{")], *([("arguments", letter)] for letter in written[1:])
    ]  # fmt: skip
    assert not [p for letter in after for p in parser.feed(letter)] + parser.finish()


@pytest.mark.parametrize(
    ("written", "found", "text"),
    [
        ('{"a": Tru}}</tool_call> So.', '{"a": Tru}', "So."),  # no JSON, and its brackets close
        ('{"a": 1</tool_call> So.', '{"a": 1', "So."),
        ('{"a": "b}}</tool_call>\nSo.', '{"a": "b}}', "So."),  # a text that a line end breaks
        ('{"a": "b\nc</tool_call> "So".', '{"a": "b\nc', '"So".'),
        ('{"a": "b}}</tool_call> So.', '{"a": "b}}', "So."),
        ('{"a": "b\\', '{"a": "b\\', ""),
        ('{"a": "</tool_ca', '{"a": "</tool_ca', ""),
    ],
)
def test_arguments_that_break_are_what_was_written(written: str, found: str, text: str) -> None:
    answer = f'<tool_call>{{"name": "weather", "arguments": {written}'
    for pieces in ([answer], list(answer)):
        parser = _parser("<tool_call>")
        parts = [part for piece in pieces for part in parser.feed(piece)] + parser.finish()
        assert _calls(parts) == [("weather", found)]
        assert "".join(part.text for part in parts if part.kind == "text") == text
    assert calls.arguments(found) == {"_raw": found}


def test_text_is_given_out_as_soon_as_it_is_certain() -> None:
    parser = _parser("<tool_call>")
    assert [[p.text for p in parser.feed(t)] for t in ("Hi", " there", " <to", "p>", " <tool_call>")] == [
        ["Hi"], [" there"], [], [" <top>"], []
    ]  # fmt: skip


def test_a_prompt_may_open_the_reasoning_and_one_call_may_be_the_most() -> None:
    assert _parts(_parser("", opened=True), ["\nHm.\n</think>\n\nYes"]) == ("Yes", "Hm.", [])
    two = '<tool_call>{"name": "get_time", "arguments": {}}</tool_call>' * 2
    parser = _parser("<tool_call>", parallel=False)
    assert _parts(parser, list(two)) == ("", "", [("get_time", {})]) and parser.full
    assert _parts(Parser(THINK), [two]) == (two, "", [])
