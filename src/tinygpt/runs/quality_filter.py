"""Keep the texts that a classifier finds good: above a threshold, or the best so many percent."""

from __future__ import annotations

import contextlib
import json
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from tinygpt.core.config import to_dict
from tinygpt.core.errors import DataError
from tinygpt.core.events import Events, Progress
from tinygpt.core.files import writing
from tinygpt.data import card
from tinygpt.runs import _judged
from tinygpt.runs._judged import Document
from tinygpt.runs._quality_settings import Config as Config

ASIDE = ("path", "out", "score", "force")
CHUNK = 512  # pieces that are judged at once


def run(config: Config, events: Events) -> dict[str, Any]:
    """Judge, keep, write; returns the counts."""
    from tinygpt.runs import _classifier

    made = _classifier.load(config.classifier, "quality")
    rows = _judged.unit(config.path, config.per_line) == "row"
    field = config.field or ("text" if config.per_line and rows else "")
    source = _judged.source(config.path) if config.out else None
    bad: list[tuple[int, str]] = []

    def documents() -> Iterator[Document]:
        bad.clear()
        return _judged.documents(config.path, field, config.per_line, bad, config.max_docs)

    def judged() -> Iterator[tuple[Document, list[float]]]:
        """Every document with the scores of its pieces."""
        waiting, n, done = list[Document](), 0, 0
        for document in documents():
            waiting.append(document)
            n += len(document.pieces)
            if n >= CHUNK:
                yield from _scored(made, waiting)
                done += len(waiting)
                waiting, n = [], 0
                events.emit(Progress(task="judge", done=done, total=0, unit="documents"))
        yield from _scored(made, waiting)

    least, ties, again = config.threshold if config.threshold is not None else 0.5, -1, judged()
    if config.keep_percent is not None:
        scores = array("d", (s for _, found in again for s in found))
        least, ties = _cut(scores, config.keep_percent)
        again = _told(documents(), iter(scores))
    n_read = n_kept = n_pieces = n_stay = 0
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(writing(config.out)) if config.out else None
        sidecar = stack.enter_context(writing(config.score)) if config.score else None
        for document, found in again:
            keep = list[bool]()
            for score in found:
                stays = score >= least and not (score == least and ties == 0)
                ties -= score == least and ties > 0
                keep.append(stays)
            n_read, n_pieces, n_stay = n_read + 1, n_pieces + len(keep), n_stay + sum(keep)
            left = _judged.shortened(document, keep, field)
            n_kept += left is not None
            if sidecar:
                sidecar.writelines(_lines(document, found, config.per_line and rows))
            if out and left is not None:
                gap = "\n" if not rows and not config.per_line and n_kept > 1 else ""
                out.write(gap + (json.dumps(left, ensure_ascii=False) if rows else left) + "\n")
        if not n_read:
            raise DataError(f"{config.path} has nothing to judge", hint=bad[0][1] if bad else "it is empty")
        if out and not n_kept:
            raise DataError(f"no document of {config.path} reaches {least:g}", hint="lower --threshold")
    if bad:
        events.note(f"{len(bad)} without text are left out, the first is {bad[0][0]}: {bad[0][1]}", "warning")
    told: dict[str, Any] = {
        "read": n_read + len(bad), "kept": n_kept, "threshold": least, "pieces": n_pieces,
        "pieces_kept": n_stay, "dropped": {"without text": len(bad), "below the threshold": n_read - n_kept},
        "out": str(config.out) if config.out else None, "score": str(config.score) if config.score else None,
    }  # fmt: skip
    if source is not None and config.out is not None:
        stage = card.Stage(
            name="quality-filter", n_in=told["read"], n_out=n_kept, dropped=told["dropped"],
            notes={name: told[name] for name in ("threshold", "pieces", "pieces_kept")},
        )  # fmt: skip
        settings = {k: v for k, v in to_dict(config).items() if k not in ASIDE}
        told["card"] = str(card.write(config.out, card.Card(
            made_by="tinygpt quality-filter", settings=settings,
            sources=(card.counted(source, told["read"]),), stages=(stage,),
        )))  # fmt: skip
    return told


def _scored(made: Any, waiting: list[Document]) -> Iterator[tuple[Document, list[float]]]:
    return _told(waiting, iter(made.score([p for d in waiting for p in d.pieces]) if waiting else ()))


def _told(documents: Iterable[Document], scores: Iterator[float]) -> Iterator[tuple[Document, list[float]]]:
    """The documents with the scores of their pieces, which come in the same order."""
    for document in documents:
        yield document, [next(scores) for _ in document.pieces]


def _cut(scores: array[float], percent: float) -> tuple[float, int]:
    """(lowest score that stays, how many that have just that stay)."""
    import numpy as np

    if not scores:
        return 0.0, -1
    ordered = np.sort(np.frombuffer(scores, np.float64))
    best = ordered[-max(1, round(len(scores) * percent / 100)) :]
    return float(best[0]), int((best == best[0]).sum())


def _lines(document: Document, found: list[float], per_line: bool) -> Iterator[str]:
    given = document.item.get("id") if isinstance(document.item, dict) else None
    name = given if isinstance(given, str | int) else document.number
    for i, score in enumerate(found, 1):
        line = {"line": i} if per_line else {}
        yield json.dumps({"doc_id": name, **line, "score": round(score, 6)}, ensure_ascii=False) + "\n"
