"""A text in units that are kept whole or left out: sentences, list items, headings, table rows, code blocks.

A sentence ends at a full stop, question or exclamation mark before white space, at their wide forms of
Chinese and Japanese anywhere, and at the end of its paragraph; not behind an abbreviation or an initial, not
inside a number, and not before a small letter. A fenced or indented block of code is one unit, and so is a
list item with the lines that are indented below it.

Source: Kiss and Strunk, "Unsupervised Multilingual Sentence Boundary Detection", Computational Linguistics
32, 2006 (why abbreviations and initials are what goes wrong); CommonMark 0.31 (blocks).
Differs: a short list of abbreviations, none learned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,4}[.)]|[a-zA-Z][.)])\s+\S")
HEADING = re.compile(r"#{1,6}\s")
ROW = re.compile(r"\s*\|.*\|\s*$")
INDENTED = re.compile(r"(?: {4}|\t)\s*\S")
END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[」』”）]*")
BEHIND = re.compile(r"\s*(\S?)")
ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        "mr mrs ms dr prof st sr jr vs etc e.g i.e cf al fig figs eq eqs no nos vol pp p ch sec approx dept "
        "inc ltd co corp jan feb mar apr jun jul aug sep sept oct nov dec mt ca resp",
    )
)


@dataclass(frozen=True)
class Unit:
    """A piece of a text, text[start:end], with no white space at its ends."""

    text: str
    kind: str  # sentence, item, heading, row or code
    start: int
    end: int


def units(text: str) -> list[Unit]:
    """The units of a text in their order; between them is white space alone."""
    found: list[Unit] = []
    for kind, start, end in _blocks(text):
        spans = _sentences(text, start, end) if kind == "sentence" else [(start, end)]
        for a, b in spans:
            inner = text[a:b]
            a, b = a + len(inner) - len(inner.lstrip()), b - len(inner) + len(inner.rstrip())
            if a < b:
                found.append(Unit(text[a:b], kind, a, b))
    return found


def joined(text: str, parts: Sequence[Unit], kept: Collection[int]) -> str:
    """The kept units in their order. What stood between two that were neighbours stands there again; where
    something is left out, a blank line, a new line or a space, as there was one."""
    pieces: list[str] = []
    last = -1
    for i in sorted(kept):
        if pieces:
            gap = text[parts[last].end : parts[i].start]
            if i > last + 1:
                gap = "\n\n" if re.search(r"\n\s*\n", gap) else "\n" if "\n" in gap else " "
            pieces.append(gap)
        pieces.append(parts[i].text)
        last = i
    return "".join(pieces)


def _blocks(text: str) -> Iterator[tuple[str, int, int]]:
    """(kind, start, end) of every block; a paragraph is of the kind sentence."""
    lines = text.splitlines(keepends=True)
    at, i, blank = 0, 0, True
    while i < len(lines):
        kind, n = _block(lines, i, blank)
        size = sum(map(len, lines[i : i + n]))
        blank = not kind
        if kind:
            yield kind, at, at + size
        at, i = at + size, i + n


def _block(lines: Sequence[str], i: int, blank: bool) -> tuple[str, int]:
    """The kind of the block that begins at line i, "" for white space, and how many lines it has. `blank`:
    there is nothing above it, or a blank line."""
    line = lines[i]
    if not line.strip():
        return "", 1
    if fence := FENCE.match(line):
        ends = (j for j in range(i + 1, len(lines)) if lines[j].strip().startswith(fence.group(1)))
        return "code", next(ends, len(lines) - 1) + 1 - i
    if ITEM.match(line):
        return "item", _while(lines, i, lambda other: other[:1] in " \t" and not _begins(other))
    if HEADING.match(line):
        return "heading", 1
    if ROW.match(line):
        return "row", 1
    if blank and INDENTED.match(line):
        return "code", _while(lines, i, lambda other: bool(INDENTED.match(other)))
    return "sentence", _while(lines, i, lambda other: not _begins(other))


def _while(lines: Sequence[str], i: int, good: Callable[[str], bool]) -> int:
    """Line i and how many behind it are good, up to a blank one."""
    ends = (j for j in range(i + 1, len(lines)) if not lines[j].strip() or not good(lines[j]))
    return next(ends, len(lines)) - i


def _begins(line: str) -> bool:
    """Whether a line begins a block of its own, whatever stands above it."""
    return any(pattern.match(line) for pattern in (FENCE, ITEM, HEADING, ROW))


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    at = start
    for found in END.finditer(text, start, end):
        if _ends(text, at, found):
            yield at, found.end()
            at = found.end()
    yield at, end


def _ends(text: str, start: int, found: re.Match[str]) -> bool:
    """Whether a sentence that began at `start` ends at these marks."""
    if found.group()[0] in "。！？":
        return True
    behind = BEHIND.match(text, found.end())
    if behind and behind.group(1).islower():
        return False
    if found.group() != ".":
        return True
    at = found.start()
    while at > start and (text[at - 1].isalnum() or text[at - 1] in "._"):
        at -= 1
    word = text[at : found.start()]
    initial = len(word) == 1 and word.isupper() and word != "I"
    numbered = word.isdecimal() and not text[start:at].strip()
    return not (word.lower() in ABBREVIATIONS or initial or numbered)
