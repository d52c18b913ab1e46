"""Contamination: which examples of a suite stand in the training data, word for word or nearly so.

An example counts as seen when its question, or a paragraph of it that no other example has (so no instruction
that all share), is a text or a paragraph of a training row: compared by hash after case, spaces and marks are
taken out. A paragraph of fewer than five words is too common to say anything. With a `likeness` below 1 a
text or paragraph is the question too where so large a share of their different words is common to both
(Jaccard 1912).

Source: Brown et al. 2020, arXiv:2005.14165, appendix C (overlap after normalising; theirs by 13-grams).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tinygpt.data import ngram

PARAGRAPHS = re.compile(r"\n\s*\n")
FEWEST = 5
ASKED = ("messages", "prompt", "question", "request", "input", "text")


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Examples, and the ids of those that stand in the training data."""

    n: int
    seen: tuple[str, ...]
    n_training: int

    @property
    def share(self) -> float:
        return len(self.seen) / self.n if self.n else 0.0


def question(example: Mapping[str, Any]) -> str:
    """What an example asks: its last user message, prompt, question, request, input or text; empty where it
    does not say."""
    for name in ASKED:
        value = example.get(name)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, list):
            said = [m["content"] for m in value if isinstance(m, dict) and m.get("role") == "user"]
            if said and isinstance(said[-1], str):
                return said[-1]
    return ""


def overlap(examples: Mapping[str, str], training: Iterable[str], likeness: float = 1.0) -> Overlap:
    """Which examples, each a question by its id, are in the training texts."""
    keys = {id: _keys(text) for id, text in examples.items()}
    shared = Counter(key for mine in keys.values() for key in mine)
    whole = {id: _key(text) for id, text in examples.items()}
    wanted = {key for key, n in shared.items() if n == 1} | set(whole.values())
    met: set[bytes] = set()
    alike, n = _Alike(examples, likeness), 0
    for text in training:
        n += 1
        met |= wanted & {_key(text), *_keys(text)}
        if likeness < 1:
            alike.meet(text)
    seen = [
        id for id, mine in keys.items()
        if whole[id] in met or id in alike.met or any(k in met for k in mine if shared[k] == 1)
    ]  # fmt: skip
    return Overlap(n=len(examples), seen=tuple(seen), n_training=n)


class _Alike:
    """Which questions have most of their words in common with a text."""

    def __init__(self, examples: Mapping[str, str], likeness: float) -> None:
        self.words = {id: _words(text) for id, text in examples.items()}
        self.likeness, self.met = likeness, set[str]()
        self.having: dict[str, list[str]] = {}
        for id, words in self.words.items():
            for word in words:
                self.having.setdefault(word, []).append(id)

    def meet(self, text: str) -> None:
        for words in {frozenset(_words(part)) for part in (text, *PARAGRAPHS.split(text))}:
            common = Counter(id for word in words for id in self.having.get(word, ()))
            self.met |= {
                id for id, n in common.items() if n >= self.likeness * (len(words) + len(self.words[id]) - n)
            }


def _words(text: str) -> set[str]:
    return set(ngram.words(text).split())


def _keys(text: str) -> set[bytes]:
    parts = map(ngram.words, PARAGRAPHS.split(text))
    return {ngram.fingerprint(part) for part in parts if part.count(" ") + 1 >= FEWEST}


def _key(text: str) -> bytes:
    return ngram.fingerprint(ngram.words(text) or text)
