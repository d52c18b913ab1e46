"""What a reranker learns from: queries with documents that answer them and documents that do not.

Four shapes of rows are read, also mixed: triples {query, pos_doc, neg_doc}; {query, positive, negatives:
[...]}, as `rerank-eval` has them; single judgements {query, sentence, relevant}; and {question, context,
answer}, whose context is cut into sentences, of which those that hold the answer are relevant. Rows of one
query are put together; a context keeps its sentences to itself. A document that answers a query in one row
and not in another is in neither part. Splitting goes by context, and by query where there is none, so that no
context, and no query without one, is on two sides; a question that is asked of several contexts may be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data import table
from tinygpt.data.bm25 import holds
from tinygpt.data.message import text_of
from tinygpt.data.tally import Tally
from tinygpt.router import compress_units

SHAPES = (
    "{query, pos_doc, neg_doc}, {query, positive, negatives}, {query, sentence, relevant} or "
    "{question, context, answer}"
)


@dataclass(frozen=True)
class Group:
    """A query with the documents that answer it and those that do not. `source` is what the split goes by."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    source: str

    @property
    def documents(self) -> tuple[str, ...]:
        return self.positives + self.negatives


@dataclass(frozen=True)
class Judged:
    """One document of a query, and whether it answers it."""

    query: str
    document: str
    relevant: bool
    context: str = ""


def folded(text: str) -> str:
    """What a text is known by, whatever its case and spaces."""
    return " ".join(text.casefold().split())


def read(paths: Iterable[Path], tally: Tally) -> Iterator[Judged]:
    """The judgements of some files; rows that are none of the shapes are counted."""
    for path in paths:
        for number, row in table.records(path):
            try:
                found = judged(row())
            except DataError as error:
                tally.drop(error.message, f"{path.name} {table.unit(path)} {number}")
                continue
            tally.keep()
            yield from found


def judged(row: Any) -> list[Judged]:
    """What one row says. DataError where it is of no known shape."""
    if not isinstance(row, dict):
        raise DataError("the row is no object")
    if "context" in row and "answer" in row:
        return _in_context(row)
    query = _text(row, "query")
    if "sentence" in row:
        relevant = row.get("relevant")
        if not isinstance(relevant, bool | int) or relevant not in (0, 1):
            raise DataError("'relevant' is not true or false")
        return [Judged(query, _text(row, "sentence"), bool(relevant))]
    if "pos_doc" in row:
        return [Judged(query, _text(row, "pos_doc"), True), Judged(query, _text(row, "neg_doc"), False)]
    if "positive" not in row:
        raise DataError("no 'pos_doc', 'positive', 'sentence' or 'context'")
    negatives: Any = row.get("negatives", row.get("negative"))
    negatives = [negatives] if isinstance(negatives, str) else negatives
    if not isinstance(negatives, list) or not all(isinstance(n, str) and n.strip() for n in negatives):
        raise DataError("no list of 'negatives'")
    wrong = [Judged(query, text_of(one, "negatives"), False) for one in negatives]
    return [Judged(query, _text(row, "positive"), True), *wrong]


def _in_context(row: dict[str, Any]) -> list[Judged]:
    query = _text(row, "question" if "question" in row else "query")
    context, answer = _text(row, "context"), _text(row, "answer")
    units = [unit.text for unit in compress_units.units(context)]
    right = [holds(unit, answer) for unit in units]
    if not any(right):
        raise DataError("no sentence of the context holds the answer")
    return [Judged(query, unit, yes, folded(context)) for unit, yes in zip(units, right, strict=True)]


def _text(row: dict[str, Any], key: str) -> str:
    if not isinstance(row.get(key), str) or not row[key].strip():
        raise DataError(f"no text under '{key}'")
    return text_of(row[key], key)


def grouped(given: Iterable[Judged], tally: Tally, *, alone: bool) -> list[Group]:
    """The judgements by query, each document once. `alone`: a query needs documents that do not answer it;
    without, those of other queries will do."""
    found: dict[tuple[str, str], tuple[str, dict[str, tuple[str, set[bool]]]]] = {}
    for one in given:
        query, documents = found.setdefault((folded(one.query), one.context), (one.query, {}))
        documents.setdefault(folded(one.document), (one.document, set()))[1].add(one.relevant)
    kept: list[Group] = []
    for (key, context), (query, documents) in found.items():
        sure = [(text, True in said) for text, said in documents.values() if len(said) == 1]
        positives = tuple(text for text, yes in sure if yes)
        negatives = tuple(text for text, yes in sure if not yes)
        if not positives:
            tally.drop("no document answers the query", query[:40])
        elif alone and not negatives:
            tally.drop("every document answers the query", query[:40])
        else:
            tally.keep()
            kept.append(Group(query, positives, negatives, context or key))
    return kept


def split(groups: Sequence[Group], shares: Sequence[float], seed: int) -> list[list[Group]]:
    """The groups in len(shares) + 1 parts: what is left over first, then each share of the sources, drawn by
    the seed."""
    sources = sorted({group.source for group in groups}, key=lambda s: _order(seed, s))
    part_of: dict[str, int] = {}
    at = 0
    for part, share in enumerate(shares, 1):
        n = round(share * len(sources))
        part_of |= dict.fromkeys(sources[at : at + n], part)
        at += n
    parts: list[list[Group]] = [[] for _ in range(len(shares) + 1)]
    for group in groups:
        parts[part_of.get(group.source, 0)].append(group)
    return parts


def _order(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed} {text}".encode("utf-8", "surrogatepass")).digest()


def pairs(groups: Sequence[Group], *, most: int, others: int, seed: int) -> list[tuple[int, str, str]]:
    """(group, a document that answers, one that does not): every document that answers with at most `most` of
    those that do not, and with `others` of other queries, drawn by the seed."""
    pool = [text for group in groups for text in group.documents]
    found: list[tuple[int, str, str]] = []
    for g, group in enumerate(groups):
        rng, own = Random(f"{seed} {g} {group.query}"), {folded(text) for text in group.documents}
        for positive in group.positives:
            n = min(most, len(group.negatives))
            found += [(g, positive, text) for text in rng.sample(group.negatives, n)]
            found += [(g, positive, text) for text in strangers(pool, own, others, rng)]
    return found


def candidates(groups: Sequence[Group], least: int, seed: int) -> list[tuple[list[str], list[bool]]]:
    """For each query its documents, filled up to `least` with those of other queries, in an order drawn by
    the seed, and which of them answer it."""
    pool = [text for group in groups for text in group.documents]
    found: list[tuple[list[str], list[bool]]] = []
    for g, group in enumerate(groups):
        rng, own = Random(f"{seed} {g} {group.query}"), {folded(text) for text in group.documents}
        more = strangers(pool, own, max(0, least - len(group.documents)), rng)
        both = [(text, True) for text in group.positives]
        both += [(text, False) for text in (*group.negatives, *more)]
        rng.shuffle(both)
        found.append(([text for text, _ in both], [yes for _, yes in both]))
    return found


def strangers(pool: Sequence[str], own: set[str], n: int, rng: Random) -> list[str]:
    """At most n documents of the pool, each once, that are none of the `own` folded ones."""
    found: dict[str, str] = {}
    for _ in range(20 * n):  # a small pool may hold fewer
        if len(found) == n:
            break
        text = rng.choice(pool)
        if (key := folded(text)) not in own:
            found.setdefault(key, text)
    return list(found.values())
