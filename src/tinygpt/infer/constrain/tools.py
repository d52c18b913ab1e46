"""Tool calls in the form of the model's own template, with arguments that are valid under the tools' schemas.

The form is that which the template writes and its parser reads (data/template/_calls):

    hermes   <tool_call>\\n{"name": ..., "arguments": {...}}\\n</tool_call>, one a line
    mistral  [TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...], or [TOOL_CALLS]name[ARGS]{...} from v11 on
    llama    {"name": ..., "parameters": {...}}, with semicolons between calls

A choice of "required" or of one name makes the answer calls and nothing else; "auto" leaves the text free
until a call begins, or where the answer has a schema, it is that answer or calls; "none" lets none begin.
Tags that are tokens of their own are written as such.
Source: the chat templates of Qwen, Mistral and Llama 3.1.
Differs: arguments of a function that is not `strict` and whose schema cannot be enforced are any JSON object,
as OpenAI promises no more; of a strict one that is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tinygpt.core.errors import ConfigError, unknown
from tinygpt.data.template import _calls
from tinygpt.infer.constrain import _matcher, schema

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.constrain._matcher import Matcher

CALL, CALL_END = "<tool_call>", "</tool_call>"
NAME = re.compile(r"[\w.:/-]{1,128}")
CHOICES = ("auto", "none", "required")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What may be called."""

    tools: Annotated[Sequence[Mapping[str, Any]], "OpenAI function tools."]
    choice: Annotated[str | Mapping[str, str], 'auto, none, required, or {"name": one of them}.'] = "auto"
    parallel: Annotated[bool, "Whether an answer may hold several calls."] = True
    first: Annotated[Sequence[str], "Tools of which the first call must be one; none: any."] = ()
    template: Annotated[str, "The chat template's Jinja source, which says how calls are written."] = ""
    answer: Annotated[
        Mapping[str, Any] | bool | None,
        "With auto: the JSON Schema of an answer that calls nothing; unset: any.",
    ] = None

    def __post_init__(self) -> None:
        names = [name for name, _ in self.functions]
        if not names:
            raise ConfigError("there are no tools to choose from", hint="leave the choice of a tool out")
        if (odd := next((n for n in names if not NAME.fullmatch(n) or names.count(n) > 1), None)) is not None:
            raise ConfigError(
                f"a tool is named {odd!r}", hint="every tool has a name of its own: letters, digits, _-.:/"
            )
        if isinstance(self.choice, str):
            if self.choice not in CHOICES:
                raise unknown("choice of a tool", self.choice, CHOICES)
        elif self.choice.get("name") not in names:
            raise unknown("tool", str(self.choice.get("name")), names)
        if odd := sorted(set(self.first) - set(names)):
            raise unknown("tool", odd[0], names)

    @property
    def functions(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Names and definitions of the tools."""
        found: list[Mapping[str, Any]] = [tool.get("function", tool) for tool in self.tools]
        return [(str(function.get("name", "")), function) for function in found]


def compile(
    spec: Config, tokenizer: Tokenizer, *, stop_ids: frozenset[int] | None = None, lead: str | None = None
) -> Matcher:
    """A constraint to calls, or to text that may hold them. ConfigError where the template has no form for
    calls, or a strict schema cannot be enforced."""
    forms = {"hermes": _hermes, "mistral": _mistral, "llama": _llama}
    form = _calls.parser(spec.template).__name__
    if form not in forms:
        raise ConfigError(
            "this model's chat template has no form for tool calls", hint="use a template that has: chatml"
        )
    if spec.answer is not None and form == "llama":  # the grammar engine takes a brace for the call's
        raise ConfigError(
            "this model writes calls as JSON without a mark, so its answer cannot be JSON as well",
            hint='set tool_choice to "none" or "required", or leave the format out',
        )
    chosen = None if isinstance(spec.choice, str) else spec.choice["name"]
    functions = [(n, _arguments(n, f)) for n, f in spec.functions if chosen in (None, n)]
    text = forms[form](spec, functions, _Tags(tokenizer))
    if lead is None:
        lead = "lead: / ?/"  # before the first word, where decoding takes it away; a call bears it anyway
    return _matcher.start(
        _matcher.lark_entry(text), tokenizer, stop_ids, lead=lead, what="the tools' grammar"
    )


class _Tags:
    """How control words are written: as tokens of their own where the tokenizer has them, else as text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._ids = {name: tokenizer.special[name] for name in tokenizer.control}
        self._tags = tokenizer.tags

    def __call__(self, name: str) -> str:
        return f"<[{self._ids[name]}]>" if name in self._ids else json.dumps(name)

    def text(self, begin: str) -> str:
        """Rules of free text: `text` has no `begin` in it, `until` ends with the first one. Other tags that
        are written as part of texts, as those of thoughts, may stand in it."""
        word = re.escape(begin).replace("/", "\\/")
        others = [self(name) for name in sorted(self._tags) if "think" in name.lower()]
        lines = [f"PLAIN: /(?s:.*)/ & ~/(?s:.*){word}(?s:.*)/", f"mixed: {' | '.join(['PLAIN', *others])}"]
        lines.append("text: mixed*" if others else "text: PLAIN")
        if begin in self._ids:
            return "\n".join([*lines, f"until: text {self(begin)}"])
        before = "mixed* " if others else ""
        return "\n".join([*lines, f"until: {before}begin", f"begin[lazy]: /(?s:.*){word}/"])


def _hermes(spec: Config, functions: list[tuple[str, str]], tag: _Tags) -> str:
    lines = [_objects(spec, functions, "arguments"), tag.text(CALL)]
    lines += [
        f'{rule}: "\\n" {of} "\\n" {tag(CALL_END)}' for rule, of in (("body", "first"), ("next", "object"))
    ]
    more = f'("\\n" {tag(CALL)} next)*' if spec.parallel else ""
    return _start(spec, f"{tag(CALL)} body {more}", f"until body {more}", lines)


def _mistral(spec: Config, functions: list[tuple[str, str]], tag: _Tags) -> str:
    begin = _calls.MISTRAL
    lines = [tag.text(begin)]
    if _calls.ARGS in spec.template:
        each = [f"{json.dumps(n)} {tag(_calls.ARGS)} args_{i}" for i, (n, _) in enumerate(functions)]
        begins = [one for one, (n, _) in zip(each, functions) if not spec.first or n in spec.first]
        lines += [f"body: {' | '.join(begins)}", f"next: {' | '.join(each)}", *_schemas(functions)]
        more = f"({tag(begin)} next)*" if spec.parallel else ""
    else:
        several = "(/, ?/ object)*" if spec.parallel else ""
        lines += [f'body: / ?\\[/ first {several} "]"', _objects(spec, functions, "arguments")]
        more = ""
    return _start(spec, f"{tag(begin)} body {more}", f"until body {more}", lines)


def _llama(spec: Config, functions: list[tuple[str, str]], tag: _Tags) -> str:
    calls = 'first ("; " object)*' if spec.parallel else "first"
    head = r'\s*\{\s*"name"'
    text = f"text: PLAIN\nPLAIN: /(?s:.*)/ & ~/{head}(?s:.*)/"
    return _start(spec, calls, calls, [_objects(spec, functions, "parameters"), text])


def _start(spec: Config, calls: str, after_text: str, lines: Sequence[str]) -> str:
    """The grammar whose first rule is what the choice asks for."""
    if spec.answer is not None:
        lines = [*lines, f"answer: %json {json.dumps(schema.prepared(spec.answer))}"]
    ways = {"none": "text", "auto": f"text | {after_text}" if spec.answer is None else f"answer | {calls}"}
    way = ways.get(spec.choice, calls) if isinstance(spec.choice, str) else calls
    return "\n".join([f"start: {way}", *lines])


def _objects(spec: Config, functions: list[tuple[str, str]], key: str) -> str:
    """Rules of one call as a JSON object, and of the first."""
    begins = [f"call_{i}" for i, (n, _) in enumerate(functions) if not spec.first or n in spec.first]
    lines = [f"first: {' | '.join(begins)}"]
    lines.append(f"object: {' | '.join(f'call_{i}' for i in range(len(functions)))}")
    for i, (name, _) in enumerate(functions):
        head = json.dumps(f'{{"name": {json.dumps(name)}, "{key}": ')
        lines.append(f'call_{i}: {head} args_{i} "}}"')
    return "\n".join([*lines, *_schemas(functions)])


def _schemas(functions: list[tuple[str, str]]) -> list[str]:
    return [f"args_{i}: %json {text}" for i, (_, text) in enumerate(functions)]


def _arguments(name: str, function: Mapping[str, Any]) -> str:
    """The schema of a function's arguments as the grammar holds it."""
    given = function.get("parameters") or {"type": "object", "properties": {}, "additionalProperties": False}
    try:
        if not isinstance(given, dict) or given.get("type", "object") != "object":
            raise ConfigError("arguments are an object", hint='its "type" is "object"')
        ready = schema.prepared({**given, "type": "object"})
        _matcher.validate({"json_schema": ready}, "the JSON schema")
    except ConfigError as error:
        if function.get("strict"):
            raise ConfigError(f"tool '{name}': {error.message}", hint=error.hint) from error
        ready = schema.prepared({"type": "object"})
    return json.dumps(ready)
