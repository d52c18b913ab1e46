"""Whether an answer may be kept: it ends, says something, and is what a schema or grammar allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data.message import Message, to_message
from tinygpt.data.tokenizer import byte
from tinygpt.eval.reward import json_schema
from tinygpt.eval.reward._answer import unfenced
from tinygpt.infer.constrained import constraint
from tinygpt.runs._answerers import Told

CUT, EMPTY, CALLS = "cut at --max-tokens", "empty", "a malformed tool call"
SCHEMA, GRAMMAR, REFUSED, SPELLED = "not valid under the schema", "not of the grammar", "refused", "no text"


class Checked(NamedTuple):
    """The message to keep; or why there is none, as a kind that is counted and in words."""

    message: Message | None
    kind: str = ""
    why: str = ""


class Check:
    """format: as Constrained has it; None: any answer. keep_cut: one that reached its bound is kept, too."""

    def __init__(self, format: tuple[str, Any] | None, *, keep_cut: bool = False) -> None:
        self._keep_cut = keep_cut
        self._wrong: Callable[[str], str] | None = None
        self._kind = SCHEMA if format and format[0] == "schema" else GRAMMAR
        if format and format[0] == "schema":
            self._wrong = _schema(format[1])
        elif format:
            self._wrong = _grammar(*format)

    def __call__(self, told: Told) -> Checked:
        """An answer as the row keeps it. Ids of calls are left out: servers draw them anew each time."""
        if told.error:
            return Checked(None, REFUSED, told.error)
        if told.finish_reason == "length" and not self._keep_cut:
            return Checked(None, CUT, f"{CUT} after {told.tokens or 'so many'} tokens")
        given = dict(told.message or {"role": "assistant", "content": told.text})
        if error := given.get("error"):
            return Checked(None, CALLS, str(error))
        try:
            message = to_message({**given, "role": "assistant", "content": given.get("content") or ""}, "it")
        except DataError as error:
            return Checked(None, CALLS if given.get("tool_calls") else SPELLED, error.message)
        for call in message.get("tool_calls", ()):
            call.pop("id", None)
        if not message["content"].strip() and not message.get("tool_calls"):
            return Checked(None, EMPTY, "the answer is empty")
        if self._wrong is None:
            return Checked(message)
        text = unfenced(message["content"])
        if why := self._wrong(text):
            return Checked(None, self._kind, why)
        return Checked({**message, "content": text})


def _schema(schema: Any) -> Callable[[str], str]:
    """What says why a text is not valid, "" where it is. DependencyError without the package jsonschema."""
    settings = from_dict(json_schema.Config, {"schema": schema}, "--json-schema")
    from jsonschema import exceptions, validators

    validator = validators.validator_for(settings.schema)(settings.schema)

    def wrong(text: str) -> str:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return f"not JSON: {error}"
        found = exceptions.best_match(validator.iter_errors(value))
        if found is None:
            return ""
        place = "/".join(map(str, found.absolute_path))
        return " ".join(f"{f'at {place}: ' if place else ''}{found.message}".split())[:300]

    return wrong


def _grammar(kind: str, value: Any) -> Callable[[str], str]:
    """The same of a grammar, an expression or choices: the text is led through them byte by byte."""
    tokenizer = byte.load(None)
    constraint(kind, value, tokenizer)

    def wrong(text: str) -> str:
        matcher: Any = constraint(kind, value, tokenizer)
        for place, id in enumerate(tokenizer.encode(text)):
            try:
                matcher.take(id)
            except ConfigError:
                return f"byte {place} is not allowed"
        return "" if matcher.complete else "it ends too early"

    return wrong
