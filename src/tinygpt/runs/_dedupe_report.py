"""What `dedupe` says of what it left out: a line for each cluster and each contaminated unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.core.files import sha256
from tinygpt.data import table
from tinygpt.data.contamination import Evaluation, Example, Settings
from tinygpt.runs import _dedupe_units as units
from tinygpt.runs._dedupe import Clusters, Read

NAMES = ("id", "task_id", "question_id", "name")  # what evaluations call their examples by


def evaluation(files: Sequence[Path], settings: Settings, bad: list[tuple[str, str]]) -> Evaluation:
    """The examples of files of rows, of any shape, or of the documents of a text."""
    return Evaluation(_examples(files, bad), settings)


def _examples(files: Sequence[Path], bad: list[tuple[str, str]]) -> Iterator[tuple[Example, Any]]:
    for file in files:
        n = 0
        for number, read in units.items(file, "row" if table.kind(file) in units.ROWS else "doc"):
            try:
                row = read()
            except DataError as error:
                bad.append((f"{file} {number}", error.message))
                continue
            n += 1
            name = next((row[key] for key in NAMES if key in row), "") if isinstance(row, dict) else ""
            yield Example(file=str(file), number=number, id=str(name)), row
        if not n:
            why = f": {bad[-1][1]}" if bad else ""
            raise DataError(f"--decontaminate {file} has no example{why}", hint="check the file")


def lines(
    of: Read, clusters: Clusters, together: list[list[int]], kept: Sequence[int], given: Evaluation | None
) -> Iterator[dict[str, Any]]:
    """The report, line by line."""
    for i, met in of.overlaps.items():
        assert given is not None
        overlaps = [_example(given.examples[e]) | {"words": run} for e, run in sorted(met.items())]
        yield {"kind": "contaminated", **of.place(i), "examples": overlaps}
    for members, stays in zip(together, kept, strict=True):
        gone = [
            of.place(i) | {"similarity": round(clusters.similarity(i, stays), 4)}
            for i in members
            if i != stays
        ]
        yield {"kind": "duplicates", "size": len(members), "kept": of.place(stays), "dropped": gone}


def _example(example: Example) -> dict[str, Any]:
    return {"file": example.file, "number": example.number} | ({"id": example.id} if example.id else {})


def contaminated(of: Read, given: Evaluation, asked: Sequence[Path]) -> dict[str, Any]:
    """Figures of the evaluation: files, examples, those that were met, texts that were too short."""
    met = Counter(given.examples[e].file for e in {e for found in of.overlaps.values() for e in found})
    all_of = Counter(example.file for example in given.examples)
    told = [
        {"file": path.name, "sha256": sha256(path), "examples": all_of[str(path)], "met": met[str(path)]}
        for path in asked
    ]
    return {
        "examples": len(given.examples), "met": sum(met.values()), "short_texts": given.n_short,
        "shared_runs": given.n_shared, "files": told,
    }  # fmt: skip


def sizes(together: list[list[int]]) -> dict[str, int]:
    """How many clusters there are of each size."""
    return {str(size): n for size, n in sorted(Counter(map(len, together)).items())}
