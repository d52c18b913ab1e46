"""How many steps a question takes: learn it, label rows with it, draw a mix of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tinygpt.core.errors import DataError, nearest
from tinygpt.core.events import Events, Progress
from tinygpt.data import card, rows, table
from tinygpt.data.message import json_of
from tinygpt.runs import _judged
from tinygpt.runs._reasoning_settings import CLASSES, SHORT
from tinygpt.runs._reasoning_settings import Config as Config
from tinygpt.runs.train_quality_classifier import plain

PURPOSE = "reasoning"
DEPTH = "reasoning_depth"
SHAPE = "{prompt | text | messages, reasoning_depth}"
CHUNK = 512


def run(config: Config, events: Events) -> dict[str, Any]:
    """Do the one of three that the settings ask for; returns the report or the counts."""
    if config.train:
        return _train(config, config.train, events)
    return _score(config, config.score, events) if config.score else _filter(config, events)


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
        lambda: pairs(path), known, plain(config), events, held_out=0.2,
        judged_by=(lambda: pairs(judged_by)) if judged_by else None,
    )  # fmt: skip
    _tell(bad, judged_by or path, events)
    _classifier.save(config.out, made, report, purpose=PURPOSE, force=config.force)
    return {"out": str(config.out), **report}


def _labelled(config: Config, path: Path, bad: list[tuple[int, str]]) -> Iterator[tuple[str, str]]:
    return rows.each(path, lambda row: (_judged.question(row, config.field), depth_of(row)), bad, known=SHAPE)


def depth_of(row: Any) -> str:
    """The class that a row has. DataError where it has none that is known."""
    given = row.get(DEPTH) if isinstance(row, dict) else None
    name = SHORT.get(str(given), given)
    if name not in CLASSES:
        raise DataError(f"'{DEPTH}' is {given!r}.{nearest(str(given), CLASSES)}", hint=", ".join(CLASSES))
    return str(name)


def _score(config: Config, path: Path, events: Events) -> dict[str, Any]:
    from tinygpt.runs import _classifier

    assert config.model is not None
    made = _classifier.load(config.model, PURPOSE)
    bad, counts = list[tuple[int, str]](), dict.fromkeys(made.classes, 0)
    source = card.of_file(path)

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
    _tell(bad, path, events)
    dropped = {"without a question": len(bad)} if bad else {}
    return _end(config, source, n + len(bad), n, dropped, {"classes": counts})


def _filter(config: Config, events: Events) -> dict[str, Any]:
    path, mix = config.filter, config.mix
    assert path is not None
    bad, source = list[tuple[int, str]](), card.of_file(path)
    counts = dict.fromkeys(CLASSES, 0)
    for depth in rows.each(path, depth_of, bad, known=SHAPE):
        counts[depth] += 1
    taken = mixed(counts, mix)
    if not sum(taken.values()):
        lacking = ", ".join(name for name in CLASSES if mix[name] and not counts[name])
        raise DataError(
            f"{path} cannot give this mix: it has no {lacking or 'rows enough'}", hint="change it"
        )
    left, need = dict(counts), dict(taken)
    draws = {name: Random(f"{config.seed} mix {name}") for name in CLASSES}

    def drawn() -> Iterator[Any]:
        """Each class in order, so many of it, all choices alike likely (selection sampling)."""
        for row, depth in rows.each(path, lambda row: (json_of(row, "row"), depth_of(row)), [], known=SHAPE):
            if draws[depth].random() * left[depth] < need[depth]:
                need[depth] -= 1
                yield row
            left[depth] -= 1

    n = rows.write(config.out, drawn())
    _tell(bad, path, events)
    dropped = {f"beyond the share of {name}": counts[name] - taken[name] for name in CLASSES}
    dropped = {why: k for why, k in (dropped | {"without a class": len(bad)}).items() if k}
    had = {"classes": taken, "had": counts}
    return _end(config, source, sum(counts.values()) + len(bad), n, dropped, had)


def mixed(counts: dict[str, int], mix: dict[str, float]) -> dict[str, int]:
    """How many rows of each class: the most that have these shares."""
    total = min((counts[name] / share for name, share in mix.items() if share), default=0.0)
    return {name: int(total * share + 1e-9) for name, share in mix.items()}


def _end(
    config: Config, source: card.Source, n_in: int, n_out: int, dropped: dict[str, int], notes: dict[str, Any]
) -> dict[str, Any]:
    settings = (
        {"target_mix": config.mix, "seed": config.seed} if config.filter else {"model": str(config.model)}
    )
    stage = card.Stage(name="reasoning-classify", n_in=n_in, n_out=n_out, dropped=dropped, notes=notes)
    made = card.Card(
        made_by="tinygpt reasoning-classify", settings=settings, sources=(card.counted(source, n_in),),
        stages=(stage,),
    )  # fmt: skip
    where = card.write(config.out, made)
    return {
        "out": str(config.out),
        "card": str(where),
        "read": n_in,
        "kept": n_out,
        "dropped": dropped,
        **notes,
    }


def _chunks(given: Iterator[Any]) -> Iterator[list[Any]]:
    import itertools

    while chunk := list(itertools.islice(given, CHUNK)):
        yield chunk


def _tell(bad: list[tuple[int, str]], path: Path, events: Events) -> None:
    if bad:
        first = "; ".join(f"{table.unit(path)} {number}: {why}" for number, why in bad[:3])
        events.note(f"{len(bad)} rows of {path} are left out: {first}", "warning")
