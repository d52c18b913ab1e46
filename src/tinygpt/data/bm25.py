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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
        import numpy as np

        self.texts, self.k1 = list(texts), k1
        places: dict[str, list[tuple[int, int]]] = {}
        lengths: list[int] = []
        for i, text in enumerate(self.texts):
            counts = Counter(words(text))
            lengths.append(counts.total())
            for word, f in counts.items():
                places.setdefault(word, []).append((i, f))
        self._places = {word: np.array(found).T for word, found in places.items()}  # (2, n): passages, f
        mean = sum(lengths) / max(1, len(lengths))
        self._spread = 1 - b + b * np.array(lengths) / max(mean, 1e-9)

    def scores(self, query: str) -> dict[int, float]:
        """The score of each passage that shares a word with the query; a word asked twice counts twice."""
        score_N = self._scored(query)
        (shared,) = score_N.nonzero()
        return dict(zip(shared.tolist(), score_N[shared].tolist(), strict=True))

    def best(self, query: str, n: int) -> list[tuple[int, float]]:
        """The n best passages with their scores, the best first; of equals the earlier. Fewer where fewer
        share a word."""
        import numpy as np

        score_N = self._scored(query)
        (shared,) = score_N.nonzero()
        if len(shared) > n:  # those below the n-th best need no order
            shared = shared[score_N[shared] >= np.partition(score_N[shared], -n)[-n]]
        at = shared[np.argsort(-score_N[shared], kind="stable")][:n]
        return list(zip(at.tolist(), score_N[at].tolist(), strict=True))

    def top(self, query: str, n: int) -> list[str]:
        """The texts of the n best passages."""
        return [self.texts[i] for i, _ in self.best(query, n)]

    def _scored(self, query: str) -> NDArray[np.float64]:
        """(N,) the score of each of N passages, 0 where no word is shared."""
        import numpy as np

        score_N = np.zeros(len(self.texts))
        for word, asked in Counter(words(query)).items():
            if (places := self._places.get(word)) is not None:
                i, f = places
                idf = asked * math.log(1 + (len(self.texts) - len(i) + 0.5) / (len(i) + 0.5))
                score_N[i] += idf * f * (self.k1 + 1) / (f + self.k1 * self._spread[i])
        return score_N
