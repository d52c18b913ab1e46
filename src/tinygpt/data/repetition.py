"""Texts that repeat themselves: shares of lines, paragraphs and runs of words that were there before.

The limits are those of the paper's table A1: of lines and paragraphs, the share that are duplicates and the
share of letters in them; for runs of 2 to 4 words, the share of letters in the commonest run; for runs of 5
to 10 words, the share of letters in runs that come more than once, each letter counted once.

Paper: Rae et al., "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", 2021,
arXiv:2112.11446.
Differs: texts of fewer than 50 words, which the paper leaves out for their length, are not judged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

LEAST = 50  # words
LINES, LINE_LETTERS = 0.30, 0.20  # of lines and of paragraphs alike
TOP = {2: 0.20, 3: 0.18, 4: 0.16}
AGAIN = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def reason(text: str) -> str:
    """Why a text counts as repetitive; "" where it does not."""
    words = text.split()
    if len(words) < LEAST:
        return ""
    for name, parts in (("lines", text.split("\n")), ("paragraphs", re.split(r"\n{2,}", text))):
        shares = duplicated([part.strip() for part in parts if part.strip()])
        if shares[0] > LINES or shares[1] > LINE_LETTERS:
            return f"repeated {name}"
    letters = sum(map(len, words))
    for n, limit in TOP.items():
        if commonest(words, n) > limit * letters:
            return f"repeated runs of {n} words"
    for n, limit in AGAIN.items():
        if covered(words, n) > limit * letters:
            return f"repeated runs of {n} words"
    return ""


def duplicated(parts: Sequence[str]) -> tuple[float, float]:
    """The share of parts that were there before, and of letters in them."""
    seen, n, letters = set[str](), 0, 0
    for part in parts:
        if part in seen:
            n += 1
            letters += len(part)
        seen.add(part)
    return n / max(1, len(parts)), letters / max(1, sum(map(len, parts)))


def commonest(words: Sequence[str], n: int) -> int:
    """Letters in the run of n words that comes most often, of the longest of those; 0 where none comes
    twice."""
    runs = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    most = max(runs.values(), default=0)
    return max(sum(map(len, run)) * k for run, k in runs.items() if k == most) if most > 1 else 0


def covered(words: Sequence[str], n: int) -> int:
    """Letters in runs of n words that were there before."""
    seen, letters, i = set[tuple[str, ...]](), 0, 0
    while i + n <= len(words):
        run = tuple(words[i : i + n])
        if run in seen:
            letters += sum(map(len, run))
            i += n
        else:
            seen.add(run)
            i += 1
    return letters
