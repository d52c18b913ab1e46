"""Near duplicates beside datasketch's: nothing that it finds and that is alike enough is missed."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from nano import require
from tinygpt.core.events import Events
from tinygpt.data import minhash, rows
from tinygpt.runs import dedupe

require("datasketch")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("threshold", [0.6, 0.85])
def test_the_split_has_the_least_error_by_its_integrals(threshold: float) -> None:
    from datasketch import lsh

    def error(bands: int, n_rows: int) -> float:
        wrong = lsh._false_positive_probability(threshold, bands, n_rows)
        return wrong + lsh._false_negative_probability(threshold, bands, n_rows)

    pairs = [(b, r) for b in range(1, 65) for r in range(1, 64 // b + 1)]
    sure = [pair for pair in pairs if minhash.chance(threshold, *pair) >= minhash.SURE]
    assert error(*minhash.split(threshold, 64)) <= min(error(*pair) for pair in sure) + 1e-4


def test_what_it_finds_is_found(tmp_path: Path) -> None:
    from datasketch import MinHash, MinHashLSH

    draw, texts = random.Random(0), list[list[str]]()
    for _ in range(120):
        words = [f"w{draw.randrange(5000)}" for _ in range(80)]
        texts += [words, words[: draw.randrange(50, 80)], [*words[:40], "new", *words[41:]]]
    grams = [{" ".join(words[i : i + 5]) for i in range(len(words) - 4)} for words in texts]
    index, theirs = MinHashLSH(threshold=0.6, num_perm=128), set[tuple[int, int]]()
    for i, mine in enumerate(grams):
        sketch = MinHash(128)
        sketch.update_batch([gram.encode() for gram in mine])
        theirs |= {(int(str(other)), i) for other in index.query(sketch)}
        index.insert(i, sketch)

    def similarity(i: int, j: int) -> float:
        return len(grams[i] & grams[j]) / len(grams[i] | grams[j])

    data, report = tmp_path / "rows.jsonl", tmp_path / "report.jsonl"
    rows.write(data, ({"text": " ".join(words)} for words in texts))
    config = dedupe.Config(
        paths=(data,), out=tmp_path / "out.jsonl", near_dup=True, near_threshold=0.8, report=report
    )
    dedupe.run(config, Events())
    found = set[tuple[int, int]]()
    for row in rows.read(report, lambda row: row)[0]:
        members = sorted(place["row"] - 1 for place in (row["kept"], *row["dropped"]))
        found |= set(itertools.combinations(members, 2))
    alike = {pair for pair in theirs if similarity(*pair) >= 0.8}
    assert len(alike) > 50 and len(alike - found) <= 0.02 * len(alike)
    assert all(similarity(*pair) >= 0.5 for pair in found)  # joined by a third, at the most
