"""The forms in which models write tool calls, and the reader of each.

    tagged     <tool_call>{"name": ..., "arguments": {...}}</tool_call>                 Qwen, Hermes, SmolLM3
               <tool_call><function=f><parameter=k>v</parameter></function></tool_call>      Qwen3-Coder
               <tool_call>f<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>          GLM
    functions  <function=f>...</function>, with parameters in tags or as JSON, without the tags around it
    mistral    [TOOL_CALLS] [{...}] and [TOOL_CALLS]f[ARGS]{...}
    llama      {"name": ..., "parameters": {...}}, alone or after <|python_tag|>
    pythonic   [f(k="v"), g()], alone or between <|tool_call_start|> and <|tool_call_end|>

Others are read by mlx_lm's parsers, where it is installed. A reader gets what stands between the marks and
gives the calls, or raises ValueError or DataError where these are none: then it was text.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data.message import json_of, to_call
from tinygpt.data.template import _calls

Call = dict[str, Any]  # name, arguments (an object)
Tools = Sequence[Mapping[str, Any]]
TAG, TAG_END = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END = "<function=", "</function>"
LIST, LIST_END = "<|tool_call_start|>", "<|tool_call_end|>"
PARAMETER = re.compile(r"<parameter=([^>\s]+)\s*>(.*?)</parameter>", re.DOTALL)
ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
BARE = re.compile(r"\[\s*(?:[A-Za-z_][\w.]*\s*(?:\(.*)?)?", re.DOTALL)
# What stands before a call's arguments, where these are an object of JSON: its name, in a group.
OBJECT_HEAD = (
    r'\{\s*(?:"(?:type|id)"\s*:\s*"[^"\\\n]*"\s*,\s*)*"name"\s*:\s*"([^"\\\n]+)"\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
NAME_HEAD = r"([^<>\s{}]+)\s*>\s*(?=\{)"
CLOSERS = re.compile(rf"(?:[\s}}\]]|{FUNCTION_END})*")  # and what closes the call after them
OBJECT = re.compile(r'\{\s*(?:"(?:[a-z]*|(?:name|type|function|parameters|arguments)".*))?', re.DOTALL)


class Unfinished(ValueError):
    """The mark that ends a call stands inside of it: it goes on."""


@dataclass(frozen=True)
class Form:
    """How calls stand in an answer.

    end:   "": they go on to the answer's end.
    head:  what stands before the arguments of a call that are JSON, its name in a group; such arguments are
           passed on as they are written. None: calls are read when they are whole.
    begins: for calls without a mark: whether a content that starts so may still become one. They count only
            where the content starts with them, and all their names are known.
    """

    begin: str
    end: str
    read: Callable[[str, Tools], list[Call]]
    begins: Callable[[str], bool] | None = None
    head: re.Pattern[str] | None = None


def forms(source: str, special: Mapping[str, int]) -> list[Form]:
    """The forms that go with a Jinja template, known by the words it writes, or with a tokenizer's tokens.
    Without any: <tool_call>, which most models have seen."""
    from tinygpt.serve import _mlx_lm

    if (other := _mlx_lm.form(source)) is not None:
        return [other]
    if _calls.MISTRAL in source:
        return [Form(_calls.MISTRAL, "", _mistral, head=MISTRAL_HEAD)]
    if LIST in source or (LIST in special and TAG not in source):
        return [Form(LIST, LIST_END, _pythonic)]
    if TAG in source:
        return [TAGGED, *([FUNCTIONS] if FUNCTION in source else [])]
    if _calls.parser(source) is _calls.llama:
        bare = Form("", "", _llama, lambda text: OBJECT.fullmatch(text) is not None, LLAMA_HEAD)
        tagged = Form(_calls.PYTHON, "", _python, head=LLAMA_HEAD)
        return [tagged, bare, *([FUNCTIONS] if FUNCTION in source else [])]
    if re.search(r"\[func(tion)?_?name\w*\(", source):
        return [Form("", "", _pythonic, lambda text: BARE.fullmatch(text) is not None)]
    return [TAGGED]


def name_of(tool: Mapping[str, Any]) -> str:
    """A tool's name, in OpenAI's form of it."""
    return str((tool.get("function") or tool).get("name", ""))


def arguments(text: str) -> dict[str, Any]:
    """The arguments of a call that was written, as an object. What is none goes into one as it is, so that
    whoever called sees it, and a conversation can go on."""
    try:
        found = json_of(json.loads(text or "{}"), "arguments")  # no NaN, and text that UTF-8 can write
    except (ValueError, RecursionError, DataError):
        found = None
    return found if isinstance(found, dict) else {"_raw": text}


def _tagged(body: str, tools: Tools) -> list[Call]:
    text = body.strip()
    if text.startswith("{"):
        if _in_string(body):
            raise Unfinished("the call goes on")
        return _told(_calls.llama(_calls.PYTHON + text))
    if text.startswith(FUNCTION):
        if FUNCTION_END not in text:
            raise Unfinished("the function goes on")
        return [
            _function(part.removesuffix(FUNCTION_END).removeprefix(FUNCTION), tools)
            for part in re.split(rf"(?<={FUNCTION_END})\s*(?={FUNCTION})", text)
        ]
    name, _, rest = text.partition("<arg_key>")
    if not re.fullmatch(r"[\w.\-]+", name.strip()) or text.count("<arg_value>") != text.count("</arg_value>"):
        raise ValueError("this is no call")
    types = _types(name.strip(), tools)
    given = {key.strip(): value for key, value in ARGUMENT.findall("<arg_key>" + rest)}
    return [_call(name, {key: _value(value, types.get(key), plain=True) for key, value in given.items()})]


def _functions(body: str, tools: Tools) -> list[Call]:
    return [_function(body, tools)]


def _function(body: str, tools: Tools) -> Call:
    """`f>` and its parameters, in tags or as one JSON object."""
    name, closed, rest = body.partition(">")
    if not closed:
        raise ValueError("a function's name has no end")
    if rest.strip().startswith("{"):
        if _in_string(rest):
            raise Unfinished("the arguments go on")
        return _call(name, json.loads(rest))
    if rest.count("<parameter=") > rest.count("</parameter>"):
        raise Unfinished("a parameter goes on")
    types = _types(name.strip(), tools)
    values = {
        key: value.removeprefix("\n").removesuffix("\n") for key, value in PARAMETER.findall(rest)
    }  # one line end at each side belongs to the form
    return _call(name, {key: _value(value, types.get(key)) for key, value in values.items()})


def _mistral(body: str, tools: Tools) -> list[Call]:
    return _told(_calls.mistral(_calls.MISTRAL + body))


def _python(body: str, tools: Tools) -> list[Call]:
    return _told(_calls.llama(_calls.PYTHON + body))


def _llama(body: str, tools: Tools) -> list[Call]:
    return _told(_calls.llama(body))


def _pythonic(body: str, tools: Tools) -> list[Call]:
    """A list of Python calls whose arguments are named literals; true, false and null may be JSON's."""
    text = body.strip()
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("the calls are no Python") from error
    listed = tree.elts if isinstance(tree, ast.List) else [tree]
    if not listed:
        raise ValueError("there is no call")
    return [_python_call(one) for one in listed]


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args or any(word.arg is None for word in node.keywords):
        raise ValueError("this is no call with named arguments")
    return _call(
        ast.unparse(node.func),
        {str(word.arg): ast.literal_eval(_Json().visit(word.value)) for word in node.keywords},
    )


class _Json(ast.NodeTransformer):
    """JSON's names for what Python calls True, False and None."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        named = {"true": True, "false": False, "null": None}
        return ast.copy_location(ast.Constant(named[node.id]), node) if node.id in named else node


def _told(message: dict[str, Any]) -> list[Call]:
    if message.get("error") or not message["tool_calls"]:
        raise ValueError(message.get("error") or "there is no call")
    return message["tool_calls"]


def _call(name: str, arguments: Any) -> Call:
    if not isinstance(arguments, dict):
        raise DataError("the arguments must be an object")
    return to_call({"name": name.strip(), "arguments": arguments})


def _types(name: str, tools: Tools) -> dict[str, set[str]]:
    """The types that a tool's schema gives its parameters; a parameter without one is left out."""
    found: dict[str, set[str]] = {}
    for tool in tools:
        function = tool.get("function") or tool
        schema = function.get("parameters") or {}
        if function.get("name") != name or not isinstance(schema.get("properties"), Mapping):
            continue
        for key, one in schema["properties"].items():
            options = [one, *(one.get("anyOf") or ()), *(one.get("oneOf") or ())] if one else []
            listed = [o.get("type") for o in options if isinstance(o, Mapping)]
            types = {t for kind in listed for t in (kind if isinstance(kind, list) else [kind]) if t}
            if types:
                found[key] = types
    return found


def _value(text: str, types: set[str] | None, plain: bool = False) -> Any:
    """What a parameter's text stands for: text where its schema says so, or nothing does (`plain`: JSON where
    nothing does); what cannot be read stays text."""
    if "string" in (types or ()) and not (text == "null" and "null" in (types or ())):
        return text
    if types is None and not plain:
        return None if text == "null" else text
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text.strip().lower() == "true" if types == {"boolean"} else text


def _in_string(text: str) -> bool:
    """Whether JSON that is read so far ends inside of a string, which may go on: a raw line end would break
    it."""
    quotes = re.split('"', re.sub(r"\\.", "__", text, flags=re.DOTALL))
    return len(quotes) % 2 == 0 and "\n" not in quotes[-1]


MISTRAL_HEAD = re.compile(
    rf"[\s,]*\[?\s*{OBJECT_HEAD}|"
    rf"\s*(?:{re.escape(_calls.MISTRAL)})?\s*([\w.\-]+)\s*{re.escape(_calls.ARGS)}\s*(?=\{{)"
)
LLAMA_HEAD = re.compile(rf"[\s;]*{OBJECT_HEAD}")
TAGGED = Form(TAG, TAG_END, _tagged, head=re.compile(rf"[\s;]*(?:{OBJECT_HEAD}|{FUNCTION}{NAME_HEAD})"))
FUNCTIONS = Form(FUNCTION, FUNCTION_END, _functions, head=re.compile(rf"\s*{NAME_HEAD}"))
