"""How many steps a question takes: learn it, label rows with it, draw a mix of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data import rows
from tinygpt.data.message import json_of
from tinygpt.runs import _judged, _reasoning_mix
from tinygpt.runs._reasoning_mix import DEPTH, SHAPE
from tinygpt.runs._reasoning_settings import CLASSES
from tinygpt.runs._reasoning_settings import Config as Config

PURPOSE = "reasoning"
CHUNK = 512


def run(config: Config, events: Events) -> dict[str, Any]:
    """Do the one of three that the settings ask for; returns the report or the counts."""
    if config.train:
        return _train(config, config.train, events)
    return _score(config, config.score, events) if config.score else _reasoning_mix.draw(config, events)


def _train(config: Config, path: Path, events: Events) -> dict[str, Any]:
    from tinygpt.runs import _classifier

    _classifier.refuse(config.out, force=config.force)
    bad: list[tuple[int, str]] = []
    known = [name for name in CLASSES if name in {depth for _, depth in _labelled(config, path, [])}]
    if len(known) < 2:
        raise DataError(f"{path} has one class alone, {known[0]}", hint=f"classes: {', '.join(CLASSES)}")

    def pairs(path: Path) -> Iterator[tuple[str, int]]:
        bad.clear()
        for text, depth in _labelled(config, path, bad):
            if depth not in known:
                raise DataError(
                    f"{path} has the class {depth}, which nothing was learned of", hint="leave it out"
                )
            yield text, known.index(depth)

    judged_by = config.heldout
    made, report = _classifier.trained(
        lambda: pairs(path), known, _judged.plain(config), events, held_out=0.2,
        judged_by=(lambda: pairs(judged_by)) if judged_by else None,
    )  # fmt: skip
    _reasoning_mix.tell(bad, judged_by or path, events)
    _classifier.save(config.out, made, report, purpose=PURPOSE, force=config.force)
    return {"out": str(config.out), **report}


def _labelled(config: Config, path: Path, bad: list[tuple[int, str]]) -> Iterator[tuple[str, str]]:
    return rows.each(
        path,
        lambda row: (_judged.question(row, config.field), _reasoning_mix.depth_of(row)),
        bad,
        known=SHAPE,
    )


def _score(config: Config, path: Path, events: Events) -> dict[str, Any]:
    from tinygpt.runs import _classifier

    assert config.model is not None
    made = _classifier.load(config.model, PURPOSE)
    bad, counts = list[tuple[int, str]](), dict.fromkeys(made.classes, 0)
    source = _judged.source(path)

    def labelled() -> Iterator[Any]:
        given = rows.each(
            path, lambda row: (json_of(row, "row"), _judged.question(row, config.field)), bad, known=SHAPE
        )
        for chunk in _chunks(given):
            for (row, _), found in zip(chunk, made.probabilities([text for _, text in chunk]), strict=True):
                best = int(found.argmax())
                counts[made.classes[best]] += 1
                yield row | {DEPTH: made.classes[best], "reasoning_score": round(float(found[best]), 4)}
            events.emit(Progress(task="label", done=sum(counts.values()), total=0, unit="rows"))

    n = rows.write(config.out, labelled())
    _reasoning_mix.tell(bad, path, events)
    dropped = {"without a question": len(bad)} if bad else {}
    return _reasoning_mix.end(config, source, n + len(bad), n, dropped, {"classes": counts})


def _chunks(given: Iterator[Any]) -> Iterator[list[Any]]:
    import itertools

    while chunk := list(itertools.islice(given, CHUNK)):
        yield chunk
