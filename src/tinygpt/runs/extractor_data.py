"""Pairs of a request and the tool that serves it, for the router; split by the request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinygpt.core.config import to_dict
from tinygpt.core.errors import DataError
from tinygpt.core.events import Events
from tinygpt.data import card, rows
from tinygpt.data.card import Card, Source
from tinygpt.data.tally import Tally
from tinygpt.runs import _data_out, _synth_requests
from tinygpt.runs._pairs import Config, chosen, is_apart, read

NO_SETTINGS = ("out", "resume", "dry_run", "force")  # what does not decide what the data are


def run(config: Config, events: Events) -> dict[str, Any]:
    """Read, choose, split, write; the facts of what was done."""
    place = config.out or Path("pairs.jsonl")
    held = _data_out.held_out(place)
    if not config.dry_run:
        for path in (place, held) if config.held_out else (place,):
            _data_out.check(path, force=config.force)
    tallies, sources = list[Tally](), list[Source]()
    with _synth_requests.opened(config, place, events) as written:
        pairs, told = chosen(read(config, tallies, sources, written, events), config.min_examples)
        counts: dict[str, int] = {}
        for _, tool in pairs:
            counts[tool] = counts.get(tool, 0) + 1
        stages = [*(tally.stage() for tally in tallies), told.stage()]
        facts: dict[str, Any] = {
            "pairs": len(pairs), "tools": dict(sorted(counts.items())),
            "stages": [stage.__dict__ for stage in stages],
        }  # fmt: skip
        if not pairs:
            raise DataError(
                f"no tool has {config.min_examples} requests. {told.sentence()}",
                hint="lower --min-examples, or give more data",
            )
        if config.dry_run:
            return facts
        apart = [is_apart(query, config) for query, _ in pairs]
        n_apart = sum(apart)
        made, other = (
            Card(
                made_by="tinygpt extractor-data", sources=tuple(sources),
                stages=(*stages, last) if config.held_out else tuple(stages),
                settings={k: v for k, v in to_dict(config).items() if k not in NO_SETTINGS},
            )
            for last in card.held_out(len(pairs) - n_apart, n_apart)
        )  # fmt: skip
        made_of = [{"query": query, "tool": tool} for query, tool in pairs]
        facts["rows"] = rows.write(place, (row for row, off in zip(made_of, apart) if not off))
        facts |= {"out": str(place), "card": str(card.write(place, made)), "held_out": 0}
        if config.held_out:
            facts["held_out"] = rows.write(held, (row for row, off in zip(made_of, apart) if off))
            facts |= {"held_out_file": str(held), "held_out_card": str(card.write(held, other))}
        if written is not None:
            written.done()
    return facts
