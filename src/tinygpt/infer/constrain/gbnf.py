"""A grammar in GBNF, the notation of llama.cpp.

`root` is what an answer is. Rules that do not come back to themselves are put together to regular expressions,
as large as they get; only what is recursive stays a rule. So a grammar without recursion means exactly what it
says, and one with recursion is fast, too.
Source: grammars/README.md of llama.cpp.
Differs: inside a recursive rule the longest match of a regular part counts, and what follows cannot begin with
what it could have taken; only white space, where that matters, is read character by character. Tokens as
<think> or <[1000]> are refused. A grammar of which no text ever ends is an error.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tinygpt.core.errors import ConfigError
from tinygpt.infer.constrain import _matcher
from tinygpt.infer.constrain._gbnf import Alt, Class, Node, Ref, Seq, Text, Times, read, refs

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.constrain._matcher import Matcher


def compile(
    spec: str, tokenizer: Tokenizer, *, stop_ids: frozenset[int] | None = None, lead: str | None = None
) -> Matcher:
    """A constraint to texts of the grammar."""
    if not isinstance(spec, str) or not spec.strip():
        raise ConfigError("a grammar must be a text that is not empty")
    return _matcher.start(_matcher.lark_entry(_to_lark(read(spec))), tokenizer, stop_ids, lead=lead)


def _to_lark(rules: dict[str, Node]) -> str:
    if "root" not in _ending(rules):
        raise ConfigError("no text of the grammar ever ends", hint="a rule needs a way that leaves itself out")
    writer = _Writer(rules)
    return f"start: {writer.rule('root')}\n" + "\n".join(writer.lines.values())


class _Writer:
    """Writes Lark: capital names for regular parts, small ones for recursive rules and for those that begin
    or end with white space."""

    def __init__(self, rules: dict[str, Node]) -> None:
        self._rules = rules
        self._recursive = _recursive(rules)
        self._blank: set[str] = set()  # rules that begin or end with white space of no fixed length
        if "root" in self._recursive:
            while found := {n for n, node in rules.items() if n not in self._blank and self._spaced(node)}:
                self._blank |= found
            self._recursive |= self._blank
        self._number = {name: i for i, name in enumerate(rules)}
        self._terminals: dict[str, str] = {}
        self.lines: dict[str, str] = {}

    def rule(self, name: str) -> str:
        """The Lark name of a rule; its lines are written when it is first met."""
        own = f"{'r' if name in self._recursive else 'R'}{self._number[name]}"
        if own not in self.lines:
            self.lines[own] = ""  # taken, while its own parts are written
            write = self._whole if name in self._recursive else self._regular
            self.lines[own] = f"{own}: {write(self._rules[name])}"
        return own

    def _whole(self, node: Node) -> str:
        """A part of a recursive rule."""
        if self._is_regular(node):
            return self._terminal(node)
        match node:
            case Text(text):
                return " ".join(self._terminal(Text(char)) for char in text)
            case Class():
                return self._terminal(node)
            case Ref(name):
                return self.rule(name)
            case Alt(parts):
                return "(" + " | ".join(map(self._whole, parts)) + ")"
            case Times(part, least, most):
                return f"({self._whole(part)}){_times(least, most)}"
            case Seq(parts):
                out, run = [], []
                for part in [*parts, None]:
                    if part is not None and self._is_regular(part):
                        run.append(part)
                        continue
                    out += [self._terminal(Seq(tuple(run)))] if run else []
                    out += [self._whole(part)] if part is not None else []
                    run = []
                return " ".join(out)
        raise AssertionError(node)

    def _is_regular(self, node: Node) -> bool:
        return not refs(node) & self._recursive and not self._spaced(node)

    def _spaced(self, node: Node) -> bool:
        """Whether a part begins or ends with white space of no fixed length, or is white space."""
        match node:
            case Ref(name):
                return name in self._blank
            case Seq(parts):
                return bool(parts) and (self._spaced(parts[0]) or self._spaced(parts[-1]))
            case Alt(parts):
                return any(map(self._spaced, parts))
            case Times(part):
                return self._spaced(part)
            case Text(text):
                return text.isspace()
            case Class(ranges, negated):
                return not negated and all(a.isspace() and b.isspace() for a, b in ranges)

    def _terminal(self, node: Node) -> str:
        """The name of a regular part."""
        text = self._regular(node)
        if text in ('""', "()"):
            return '""'
        name = self._terminals.setdefault(text, f"T{len(self._terminals)}")
        self.lines.setdefault(name, f"{name}: {text}")
        return name

    def _regular(self, node: Node) -> str:
        match node:
            case Text(text):
                plain = text.isprintable()
                return json.dumps(text, ensure_ascii=False) if plain else f"/{''.join(map(_code, text))}/"
            case Class(ranges, negated):
                if not ranges:
                    return "/(?s:.)/"
                inner = "".join(_code(a) if a == b else f"{_code(a)}-{_code(b)}" for a, b in ranges)
                return f"/[{'^' if negated else ''}{inner}]/"
            case Ref(name):
                return self.rule(name)
            case Seq(parts):
                return "(" + " ".join(map(self._regular, parts)) + ")" if parts else '""'
            case Alt(parts):
                return "(" + " | ".join(map(self._regular, parts)) + ")"
            case Times(part, least, most):
                return f"({self._regular(part)}){_times(least, most)}"
        raise AssertionError(node)


def _code(char: str) -> str:
    return f"\\x{{{ord(char):x}}}"


def _times(least: int, most: int | None) -> str:
    known = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    return known.get((least, most)) or f"{{{least},{'' if most is None else most}}}"


def _recursive(rules: dict[str, Node]) -> set[str]:
    """Rules that come back to themselves, and those that lead to one."""
    reach = {name: refs(node) for name, node in rules.items()}
    grown = True
    while grown:
        more = {name: found.union(*(reach[one] for one in found)) for name, found in reach.items()}
        grown, reach = more != reach, more
    loops = {name for name, found in reach.items() if name in found}
    return {name for name, found in reach.items() if name in loops or found & loops}


def _ending(rules: dict[str, Node]) -> set[str]:
    """Rules of which some text ends."""
    ending: set[str] = set()

    def ends(node: Node) -> bool:
        match node:
            case Ref(name):
                return name in ending
            case Seq(parts):
                return all(map(ends, parts))
            case Alt(parts):
                return any(map(ends, parts))
            case Times(part, least):
                return not least or ends(part)
        return True

    grown = True
    while grown:
        found = {name for name, node in rules.items() if name not in ending and ends(node)}
        grown = bool(found)
        ending |= found
    return ending
