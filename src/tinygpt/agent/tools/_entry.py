"""One tool of a file: what it is called, what it takes, and the part that its executor reads."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinygpt.agent import _template
from tinygpt.agent._mcp_entry import LEAST
from tinygpt.agent.tool import Cancel, Outcome, Tool
from tinygpt.core.errors import ConfigError, nearest

Call = Callable[[Mapping[str, Any], float, Cancel], Outcome]
PLAIN = ("string", "integer", "number", "boolean", "null")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A tool as a file says it.

    where:   file and tool, as errors name them; folder: of that file
    given:   the value of its executor key; None for parameters: it says nothing of them
    effects: `_effects`, None where it has none; names: `_env`, variables that it gets of the environment
    text:    `_text`, arguments that are text and no path
    """

    where: str
    name: str
    given: Any
    folder: Path
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    effects: frozenset[str] | None = None
    seconds: float | None = None
    names: tuple[str, ...] = ()
    text: frozenset[str] = frozenset()

    def fault(self, message: str, hint: str = "") -> ConfigError:
        """An error in one line, with file and tool."""
        return ConfigError(f"{self.where}: {message}", hint=hint)

    @property
    def schema(self) -> Mapping[str, Any]:
        return self.parameters or {"type": "object", "properties": {}}

    @property
    def properties(self) -> Mapping[str, Any]:
        return self.schema.get("properties") or {}

    @property
    def required(self) -> frozenset[str]:
        return frozenset(self.schema.get("required") or ())

    def template(self, text: Any) -> _template.Template:
        """A text of the executor with its places; a fault where it is none or names no argument."""
        if not isinstance(text, str) or "\0" in text:
            raise self.fault(f"{text!r} must be text")
        try:
            found = _template.parse(text)
        except ValueError as error:
            raise self.fault(str(error)) from error
        for name in sorted(_template.names(found)):
            if name not in self.properties:
                raise self.fault(
                    f"{{{name}}} is no argument of it.{nearest(name, self.properties)}",
                    hint=f"its arguments: {', '.join(self.properties) or 'none'}",
                )
        return found

    def kind(self, name: str) -> frozenset[str]:
        """The types that an argument may have; all plain ones where its schema lists values."""
        schema = self.properties[name]
        found = schema.get("type") if isinstance(schema, Mapping) else None
        if found is None and isinstance(schema, Mapping) and ("enum" in schema or "const" in schema):
            values = [schema["const"]] if "const" in schema else schema["enum"]
            return frozenset({"string"} if all(_plain(v) for v in values) else {"object"})
        kinds = [found] if isinstance(found, str) else found
        return frozenset(str(one) for one in kinds) if isinstance(kinds, list) else frozenset()

    def spelled(self, template: _template.Template, *, lists: bool) -> None:
        """A fault where an argument cannot be written as text, or a list's place is not one of its own."""
        for piece in template:
            if not isinstance(piece, _template.Field):
                continue
            kinds = self.kind(piece.name)
            if piece.spread:
                if not lists or len(template) != 1:
                    raise self.fault(f"{{{piece.name}...}} must stand by itself, in a list")
                schema = self.properties[piece.name]
                inner = schema.get("items") if isinstance(schema, Mapping) else None
                plain = isinstance(inner, Mapping) and inner.get("type") in PLAIN
                if "array" not in kinds or kinds - {"null", "array"} or not plain:
                    raise self.fault(
                        f"{{{piece.name}...}} needs a list of plain values",
                        hint='"type": "array", "items": {...}',
                    )
            elif not kinds or not kinds <= set(PLAIN):
                got = ", ".join(sorted(kinds)) or "none"
                raise self.fault(
                    f"{{{piece.name}}} needs an argument of a plain type, got {got}",
                    hint=f"types: {', '.join(PLAIN)}; a list is written {{{piece.name}...}}",
                )

    def used(self, names: Collection[str]) -> None:
        """A fault where an argument has no place: a model would give it for nothing."""
        if (idle := sorted(set(self.properties) - set(names))) != []:
            raise self.fault(
                f"the argument '{idle[0]}' has no place in it", hint=f"write {{{idle[0]}}} where it belongs"
            )

    def environment(self) -> None:
        """A fault where a variable that `_env` names is not set."""
        if (missing := [name for name in self.names if name not in os.environ]) != []:
            raise self.fault(f"the environment has no {missing[0]}", hint=f"export {missing[0]}=...")

    def tool(self, *, source: str, effects: Iterable[str], call: Call, **calls: Any) -> Tool:
        """The tool, with what its executor does. What `_env` gave it is hidden in what it says, as that of
        MCP servers is, but for paths."""
        values = {name: os.environ.get(name, "") for name in self.names}
        hidden = {name: v for name, v in values.items() if len(v) >= LEAST and not os.path.isabs(v)}

        def hide(text: str) -> str:
            for name, value in hidden.items():
                text = text.replace(value, f"[{name}]")
            return text

        def quiet(arguments: Mapping[str, Any], seconds: float, cancel: Cancel) -> Outcome:
            found = call(arguments, seconds, cancel)
            return dataclasses.replace(found, stdout=hide(found.stdout), stderr=hide(found.stderr))

        calls["call"] = quiet if hidden else call
        return Tool(
            name=self.name, description=self.description, parameters=self.schema, extra=self.extra,
            effects=frozenset(effects), seconds=self.seconds, source=source, **calls,
        )  # fmt: skip


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
