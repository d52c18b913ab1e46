"""The phrasebook's templates in one pool, a fixed fifth of each kind held out for the `phrases` set.

`phrasebook/*.txt` holds one phrase a line under headings `[intent style]` or `[intent style: topic]`; a line
that starts with # is a comment. `do` is a bare command that fits after "please" or "then", `ask` a question,
`say` a statement, `terse` a note, `tail` ends in a free text, `joint` ties phrases together.

A template is held out by the hash of its words, per intent and style, so every intent has held-out phrasings
of every style and adding a phrase moves few others. Two phrases that differ only in small words ("the", "a",
"please") or in punctuation count as one template: such a twin in training would make the held-out one no test
at all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PHRASEBOOK = Path(__file__).parent / "phrasebook"
HELD_OUT_SHARE = 0.2
# The first phrases of each list are the plainest ("delete x", "a and b") and always in training: a specialist
# that never met them would fail its users. The held-out phrasings are so the rarer ones, and the set harder.
_PLAINEST = {"do": 2, "joint": 4}
_SMALL_WORDS = frozenset({"a", "an", "the", "please", "me", "just", "my", "some", "now", "of", "to", "in"})


@dataclass(frozen=True, kw_only=True)
class Template:
    """One phrase: its intent (or joint kind), style, words, and whether training may see it."""

    id: str
    intent: str
    style: str
    text: str
    held_out: bool
    slots: tuple[str, ...]  # in order of appearance: filling them draws random numbers
    ordered: bool = True  # joints: the words fix the order
    topic: str = ""  # refusals: what cannot be done


def stable_hash(text: str) -> int:
    """A number from a text, equal on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def key_of(text: str) -> str:
    """The words of a template that make it a different one: no small words, no punctuation, no case."""
    words = re.findall(r"\{\w\}|[a-z0-9']+|>>|>|->|\+=|&&|[;/&]|\.\.|[123][.)]|- ", text.lower())
    return " ".join(w for w in words if w not in _SMALL_WORDS) or text


def _raw() -> Iterator[tuple[str, str, str, str]]:
    """(intent, style, text, topic) of every phrase in the phrasebook."""
    for path in sorted(PHRASEBOOK.glob("*.txt")):
        intent = style = topic = ""
        for line in path.read_text("utf-8").splitlines():
            if heading := re.fullmatch(r"\[(\w+) (\w+)(?:: (.+))?\]", line):
                intent, style, topic = heading[1], heading[2], heading[3] or ""
            elif line and not line.startswith("#"):
                yield intent, style, line.replace("\\n", "\n"), topic


@cache
def templates() -> tuple[Template, ...]:
    """All phrases, read when they are first asked for: a help page that imports this needs none."""
    raw = list(_raw())
    # A twin in a second style follows its first appearance, so it cannot leak.
    first: dict[tuple[str, str], str] = {}
    for intent, style, text, _ in raw:
        first.setdefault((intent, key_of(text)), style)
    groups: dict[tuple[str, str], list[str]] = {}
    for (intent, key), style in first.items():
        groups.setdefault((intent, style), []).append(key)
    held_out = set()
    for (intent, style), keys in groups.items():
        free = keys[_PLAINEST.get(style, 1) :]
        ranked = sorted(free, key=lambda key: stable_hash(f"{intent}:{key}"))
        held_out.update((intent, key) for key in ranked[: round(len(keys) * HELD_OUT_SHARE + 0.1)])
    built = []
    for intent, style, text, topic in raw:
        key, words = key_of(text), text.lstrip("~")
        built.append(
            Template(
                id=f"{intent}/{stable_hash(intent + ':' + key) & 0xFFFFFFFF:08x}",
                intent=intent,
                style=style,
                text=words,
                held_out=(intent, key) in held_out,
                slots=tuple(dict.fromkeys(re.findall(r"\{(\w)\}", words))),
                ordered=not text.startswith("~"),
                topic=topic,
            )
        )
    return tuple(built)


@cache
def pool(
    intent: str, held_out: bool, styles: tuple[str, ...] = (), without: str = ""
) -> tuple[Template, ...]:
    """The templates of an intent or joint kind on one side of the split, optionally of some styles only.

    `without` lists slot letters and the word "file" ("F") that a template must not hold.
    """
    return tuple(
        t
        for t in templates()
        if t.intent == intent
        and t.held_out == held_out
        and (not styles or t.style in styles)
        and not set(t.slots) & set(without)
        and not ("F" in without and "file" in t.text)
    )
