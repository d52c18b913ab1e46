"""Texts that were seen before, or almost: for some ten thousand short ones, compared as they come.

Two texts are near duplicates where their sets of runs of words have a Jaccard similarity of at least so much.
The sets are compared exactly, through a table from runs to texts; `dedupe` is for what is larger.
"""

from __future__ import annotations

from collections import Counter

from tinygpt.data.ngram import WORD, normal

RUN = 3  # words
COMMON = 2000  # texts that have a run, beyond which the run tells nothing
EXACT, NEAR = "a duplicate", "a near duplicate"


class Seen:
    """near: the similarity from which a text counts as seen; 1: equal ones alone. Case and how much space is
    where do not count."""

    def __init__(self, near: float) -> None:
        self._near = near
        self._texts: set[str] = set()
        self._sizes: list[int] = []
        self._runs: dict[str, list[int]] = {}

    def has(self, text: str) -> str:
        """EXACT, NEAR, or "" for a new one."""
        plain = normal(text)
        if plain in self._texts:
            return EXACT
        if self._near >= 1:
            return ""
        runs = _runs(plain)
        shared: Counter[int] = Counter()
        for run in runs:
            found = self._runs.get(run, ())
            if len(found) <= COMMON:
                shared.update(found)
        alike = any(n / (len(runs) + self._sizes[i] - n) >= self._near for i, n in shared.items())
        return NEAR if alike else ""

    def add(self, text: str) -> None:
        """It was seen."""
        plain = normal(text)
        self._texts.add(plain)
        if self._near < 1:
            runs = _runs(plain)
            for run in runs:
                self._runs.setdefault(run, []).append(len(self._sizes))
            self._sizes.append(len(runs))


def _runs(text: str) -> set[str]:
    """The runs of words; of letters, where a text has fewer words."""
    words = WORD.findall(text)
    if len(words) < RUN:
        return {text[i : i + RUN] for i in range(max(1, len(text) - RUN + 1))}
    return {" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}
