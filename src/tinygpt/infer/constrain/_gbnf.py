"""Reading GBNF: from text to rules, each a tree of alternatives, sequences, repetitions, literals and classes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from tinygpt.core.errors import ConfigError

NAME = re.compile(r"[a-zA-Z0-9_-]+")
SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
SPACES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
TIMES = re.compile(r"\{\s*(\d+)\s*(?:(,)\s*(\d*)\s*)?\}")
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
HEX = {"x": 2, "u": 4, "U": 8}


@dataclass(frozen=True)
class Text:
    """A literal."""

    text: str


@dataclass(frozen=True)
class Class:
    """One character of these ranges, or of none of them. `.` is none of nothing."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool = False


@dataclass(frozen=True)
class Ref:
    """Another rule."""

    name: str


@dataclass(frozen=True)
class Seq:
    """One after another."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Alt:
    """One of several."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Times:
    """From `least` to `most` times; None: no bound."""

    part: Node
    least: int
    most: int | None


Node = Text | Class | Ref | Seq | Alt | Times


def read(text: str) -> dict[str, Node]:
    """The rules of a grammar by name; ConfigError with line and column where it is wrong."""
    return _Reader(text).rules()


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def rules(self) -> dict[str, Node]:
        found: dict[str, Node] = {}
        self._skip(SPACES)
        while self.at < len(self.text):
            name = self._name()
            if name in found:
                self._fail(f"the rule '{name}' is there twice")
            self._skip(SPACE)
            if not self._take("::="):
                self._fail("expected '::='")
            self._skip(SPACES)
            found[name] = self._alternatives(SPACE)
            if self.at < len(self.text) and self.text[self.at] not in "\r\n":
                self._fail("expected the end of the line")
            self._skip(SPACES)
        for name in sorted({ref for node in found.values() for ref in refs(node)} - found.keys()):
            raise ConfigError(f"the grammar has no rule '{name}'", hint=f"rules: {', '.join(sorted(found))}")
        if "root" not in found:
            raise ConfigError("the grammar has no rule 'root'", hint="the first rule of GBNF is called root")
        return found

    def _alternatives(self, space: re.Pattern[str]) -> Node:
        parts = [self._sequence(space)]
        while self._take("|"):
            self._skip(SPACES)
            parts.append(self._sequence(space))
        return parts[0] if len(parts) == 1 else Alt(tuple(parts))

    def _sequence(self, space: re.Pattern[str]) -> Node:
        parts: list[Node] = []
        while (part := self._one()) is not None:
            parts.append(self._repeated(part))
            self._skip(space)
        return parts[0] if len(parts) == 1 else Seq(tuple(parts))

    def _one(self) -> Node | None:
        char = self.text[self.at : self.at + 1]
        if char == '"':
            return self._literal()
        if char == "[":
            return self._class()
        if char == ".":
            self.at += 1
            return Class((), negated=True)
        if char == "(":
            self.at += 1
            self._skip(SPACES)
            inner = self._alternatives(SPACES)
            if not self._take(")"):
                self._fail("expected ')'")
            return inner
        return Ref(self._name()) if NAME.match(self.text, self.at) else None

    def _repeated(self, part: Node) -> Node:
        while True:
            char = self.text[self.at : self.at + 1]
            if char and char in "*+?":
                self.at += 1
                part = Times(part, int(char == "+"), 1 if char == "?" else None)
            elif found := TIMES.match(self.text, self.at):
                least = int(found[1])
                most = least if not found[2] else int(found[3]) if found[3] else None
                if most is not None and most < least:
                    self._fail(f"the upper bound {most} is below {least}")
                part, self.at = Times(part, least, most), found.end()
            else:
                return part

    def _literal(self) -> Node:
        self.at += 1
        out = ""
        while not self._take('"'):
            out += self._char()
        return Text(out)

    def _class(self) -> Node:
        self.at += 1
        negated = self._take("^")
        ranges: list[tuple[str, str]] = []
        while not self._take("]"):
            first = last = self._char()
            if self.text[self.at : self.at + 1] == "-" and self.text[self.at + 1 : self.at + 2] != "]":
                self.at += 1
                last = self._char()
            if last < first:
                self._fail(f"the range {first}-{last} is empty")
            ranges.append((first, last))
        if not ranges:
            self._fail("an empty class")
        return Class(tuple(ranges), negated)

    def _char(self) -> str:
        if self.at >= len(self.text):
            self._fail("the text ends too early")
        char = self.text[self.at]
        self.at += 1
        if char != "\\":
            return char
        kind = self.text[self.at : self.at + 1]
        self.at += 1
        if kind in HEX:
            digits = self.text[self.at : self.at + HEX[kind]]
            self.at += HEX[kind]
            try:
                return chr(int(digits, 16)) if len(digits) == HEX[kind] else self._fail("a short escape")
            except (ValueError, OverflowError):
                self._fail(f"\\{kind}{digits} is no character")
        if kind in ESCAPES:
            return ESCAPES[kind]
        if not kind or kind not in '"\\[]':
            self._fail(f"unknown escape \\{kind}")
        return kind

    def _name(self) -> str:
        found = NAME.match(self.text, self.at)
        if found is None:
            self._fail("expected the name of a rule")
        self.at = found.end()
        return found[0]

    def _take(self, text: str) -> bool:
        found = self.text.startswith(text, self.at)
        self.at += len(text) * found
        return found

    def _skip(self, what: re.Pattern[str]) -> None:
        found = what.match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def _fail(self, why: str) -> NoReturn:
        before = self.text[: self.at]
        line, column = before.count("\n") + 1, self.at - (before.rfind("\n") + 1) + 1
        raise ConfigError(f"the grammar at line {line}, column {column}: {why}")


def refs(node: Node) -> set[str]:
    """Names of the rules that a tree refers to."""
    match node:
        case Ref(name):
            return {name}
        case Seq(parts) | Alt(parts):
            return {name for part in parts for name in refs(part)}
        case Times(part):
            return refs(part)
    return set()
