"""What may stand before a question: examples of others with their answers, or passages found for it.

Each takes a row {"messages", "tools", "expected"} as the suite exact_match loads it, and gives one whose
prompt has more in it; what is expected stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygpt.data.bm25 import BM25

Row = dict[str, Any]
BEFORE, AFTER = "This may help:\n\n", "\n\n---\n\n"


def few_shot(row: Row, shots: Sequence[Row]) -> Row:
    """Other rows as earlier turns, after the row's own system prompt; theirs are left out."""
    system = [m for m in row["messages"][:1] if m["role"] == "system"]
    turns = [m for shot in shots for m in (*_without_system(shot), shot["expected"])]
    return {**row, "messages": [*system, *turns, *row["messages"][len(system) :]]}


def retrieved(row: Row, index: BM25, n: int) -> Row:
    """The n passages nearest to the last question, before it. Where none shares a word with it, the row as
    it is."""
    messages = list(row["messages"])
    at = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
    found = index.top(messages[at]["content"], n) if at >= 0 else []
    if not found:
        return row
    messages[at] = {**messages[at], "content": BEFORE + "\n\n".join(found) + AFTER + messages[at]["content"]}
    return {**row, "messages": messages}


def _without_system(row: Row) -> list[dict[str, Any]]:
    return [m for m in row["messages"] if m["role"] != "system"]


def f1(got: str, expected: str) -> float:
    """Harmonic mean of precision and recall of the answer's words, each counted as often as it stands there.

    Source: Rajpurkar et al., EMNLP 2016, arXiv:1606.05250, section 6.1."""
    from collections import Counter

    from tinygpt.data.bm25 import words

    a, b = Counter(words(got)), Counter(words(expected))
    if not a or not b:
        return float(a == b)
    shared = (a & b).total()
    return 2 * shared / (a.total() + b.total())
