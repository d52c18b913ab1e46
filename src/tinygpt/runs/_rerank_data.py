"""The queries of a reranker's run: read, put together, split."""

from __future__ import annotations

from typing import NamedTuple

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events
from tinygpt.data.tally import Tally
from tinygpt.router import rerank_rows
from tinygpt.router.rerank_rows import Group
from tinygpt.runs._rerank_settings import Config


class Parts(NamedTuple):
    """The queries to learn from, to watch and calibrate by, and to report on."""

    learn: list[Group]
    watch: list[Group]
    test: list[Group]


def read(config: Config, seed: int, events: Events) -> Parts:
    """The queries, split; what is left out is told. DataError where too little is left."""
    tallies = [Tally(name) for name in ("rows", "queries", "rows of --test", "queries of --test")]
    given = list(rerank_rows.read(config.data, tallies[0]))
    groups = rerank_rows.grouped(given, tallies[1], alone=not config.others)
    test = rerank_rows.grouped(rerank_rows.read(config.test, tallies[2]), tallies[3], alone=False)
    known = {group.source for group in test} | {rerank_rows.folded(group.query) for group in test}
    met = Tally("queries to learn from")
    kept: list[Group] = []
    for group in groups:
        if known & {group.source, rerank_rows.folded(group.query)}:
            met.drop("among those that the report is made on", group.query[:40])
        else:
            met.keep()
            kept.append(group)
    for tally in (*tallies, met):
        if told := tally.sentence():
            events.note(told, "warning")
    if not kept:
        raise DataError("there is no query to learn from", hint=f"rows are {rerank_rows.SHAPES}")
    shares = [config.val_split] if config.test else [config.val_split, config.held_out]
    learn, watch, *rest = rerank_rows.split(kept, shares, seed)
    parts = Parts(learn, watch, test if config.test else rest[0])
    flags = ("", "--val-split", "--test" if config.test else "--held-out")
    for part, flag in zip(parts, flags, strict=True):
        if not part:
            what = f"{flag} holds no query" if flag else "no query is left to learn from"
            raise DataError(what, hint="give more rows, or other shares")
    return parts
