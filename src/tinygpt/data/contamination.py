"""Contamination: which training texts share a run of words with an example of an evaluation.

A text shares one when n words in a row (13) are the same after case, marks and forms of characters are taken
out. A text of the evaluation that is shorter is looked for as a whole; one of fewer than `least` words says
too little and is only counted. What more than `most_shared` examples have in common is an instruction, and
not an example. Hashes find the runs, the words themselves decide.

Source: Brown et al. 2020, arXiv:2005.14165, appendix C (13-grams; what more than ten texts share is no sign).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinygpt.data import ngram, rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row of an evaluation: its file, its number there, and its own name for itself where it has one."""

    file: str
    number: int
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How many words in a row count, and which texts do not."""

    words: int = 13
    least: int = 5
    most_shared: int = 10


@dataclass(frozen=True)
class Table:
    """The runs of one length: sorted hashes, and for each the number of the text that it is from."""

    n: int
    hashes: NDArray[np.uint64]
    texts: NDArray[np.int64]


class Evaluation:
    """The examples of evaluations, ready to be looked for. It travels to other processes as it is."""

    def __init__(self, examples: Iterable[tuple[Example, Any]], settings: Settings | None = None) -> None:
        """`examples` come with their rows, of any shape: every text in a row counts."""
        import numpy as np

        self.settings = settings or Settings()
        self.examples: list[Example] = []
        self.texts: list[str] = []
        owners: list[int] = []
        self.n_short = 0
        for example, row in examples:
            self.examples.append(example)
            for text in dict.fromkeys(ngram.words(text) for text in rows.strings(row)):
                if text.count(" ") + 1 < self.settings.least or not text:
                    self.n_short += bool(text)
                    continue
                self.texts.append(text)
                owners.append(len(self.examples) - 1)
        self.owners = np.array(owners, np.int64)
        lengths = np.array([text.count(" ") + 1 for text in self.texts], np.int64)
        runs = np.minimum(lengths, self.settings.words)
        self.n_shared = 0
        self.tables = [self._table(int(n), np.flatnonzero(runs == n)) for n in np.unique(runs)]

    def _table(self, n: int, mine: NDArray[np.int64]) -> Table:
        """The runs of n words of some texts, without those that too many examples share."""
        import numpy as np

        hashes, offsets = ngram.hashes([self.texts[i] for i in mine], n)
        texts = np.repeat(mine, np.diff(offsets))
        pairs = np.unique(np.stack([hashes, self.owners[texts].astype(np.uint64)], axis=1), axis=0)
        values, counts = np.unique(pairs[:, 0], return_counts=True)
        common = values[counts > self.settings.most_shared]
        self.n_shared += len(common)
        kept = ~np.isin(hashes, common)
        order = np.argsort(hashes[kept], kind="stable")
        return Table(n, hashes[kept][order], texts[kept][order])

    def find(self, given: Sequence[str]) -> list[dict[int, str]]:
        """For each text the examples, by number, that it shares a run of words with, and the first run."""
        import numpy as np

        found: list[dict[int, str]] = [{} for _ in given]
        plain = [ngram.words(text) for text in given]
        for table in self.tables if plain else []:
            hashes, offsets = ngram.hashes(plain, table.n)
            first = np.searchsorted(table.hashes, hashes, "left")
            last = np.searchsorted(table.hashes, hashes, "right")
            hits = np.flatnonzero(last > first)
            of = np.searchsorted(offsets, hits, "right") - 1
            split = {text: plain[text].split(" ") for text in set(of.tolist())}
            for hit, text in zip(hits.tolist(), of.tolist(), strict=True):
                at = hit - int(offsets[text])
                run = " ".join(split[text][at : at + table.n])
                for i in dict.fromkeys(table.texts[first[hit] : last[hit]].tolist()):
                    if f" {run} " in f" {self.texts[i]} ":
                        found[text].setdefault(int(self.owners[i]), run)
        return found
