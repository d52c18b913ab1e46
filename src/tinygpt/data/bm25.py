"""BM25: which passages of a folder share rare words with a question.

    score(D, q) = sum over words w of q:  idf(w) f (k1 + 1) / (f + k1 (1 - b + b |D| / mean |D|))
    idf(w) = ln(1 + (N - n + 1/2) / (n + 1/2))

f is how often w stands in the passage D, |D| its number of words, n in how many of the N passages w stands.
Source: Robertson and Zaragoza 2009, The Probabilistic Relevance Framework: BM25 and Beyond, section 3; the 1
inside the logarithm, as in Lucene, keeps words of more than half the passages from counting against them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

# Han and kana, which no spaces part: each is a word.
ALONE = r"\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[^\W{ALONE}]+|(?=[{ALONE}])\w")


def words(text: str) -> list[str]:
    """The words of a text in small letters; letters of every script, digits and underscores. Of Chinese and
    Japanese, which are written without spaces, each letter."""
    return WORD.findall(text.lower())


def holds(text: str, answer: str) -> bool:
    """Whether the answer's words stand in the text, one after the other."""
    a, b = words(answer), words(text)
    return bool(a) and any(b[i : i + len(a)] == a for i in range(len(b) - len(a) + 1))


def passages(text: str, size: int = 100) -> list[str]:
    """A text in pieces of about `size` words: whole paragraphs together, longer ones cut between words."""
    found: list[str] = []
    held: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        parts = paragraph.split()
        pieces = [paragraph.strip()]
        if len(parts) > size:
            pieces = [" ".join(parts[at : at + size]) for at in range(0, len(parts), size)]
        for piece in filter(None, pieces):
            if held and sum(len(h.split()) for h in held) + len(piece.split()) > size:
                found.append("\n\n".join(held))
                held = []
            held.append(piece)
    return [*found, "\n\n".join(held)] if held else found


class BM25:
    """An index of passages. `k1` says how soon a repeated word stops counting, `b` how much length is held
    against a passage."""

    def __init__(self, texts: Sequence[str], *, k1: float = 1.5, b: float = 0.75) -> None:
        self.texts, self.k1, self.b = list(texts), k1, b
        self.places: dict[str, list[tuple[int, int]]] = {}
        self.lengths: list[int] = []
        for i, text in enumerate(self.texts):
            counts = Counter(words(text))
            self.lengths.append(counts.total())
            for word, f in counts.items():
                self.places.setdefault(word, []).append((i, f))
        self.mean = sum(self.lengths) / max(1, len(self.lengths))

    def scores(self, query: str) -> dict[int, float]:
        """The score of each passage that shares a word with the query; a word asked twice counts twice."""
        found: dict[int, float] = {}
        for word in words(query):
            places = self.places.get(word, [])
            idf = math.log(1 + (len(self.texts) - len(places) + 0.5) / (len(places) + 0.5))
            for i, f in places:
                spread = 1 - self.b + self.b * self.lengths[i] / self.mean
                found[i] = found.get(i, 0.0) + idf * f * (self.k1 + 1) / (f + self.k1 * spread)
        return found

    def top(self, query: str, n: int) -> list[str]:
        """The n best passages, the best first; of equals the earlier. Fewer where fewer share a word."""
        scores = self.scores(query)
        return [self.texts[i] for i in sorted(scores, key=lambda i: (-scores[i], i))[:n]]
