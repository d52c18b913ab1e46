"""The requests of a router's run: read, cleaned, split, counted."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.data.requests import NOTHING
from tinygpt.data.tally import Tally
from tinygpt.router import pairs
from tinygpt.router.pairs import Pair
from tinygpt.runs._router_settings import Config


class Parts(NamedTuple):
    """The requests to learn from, to watch and calibrate by, and to report on."""

    learn: list[Pair]
    watch: list[Pair]
    test: list[Pair]


def read(config: Config, seed: int, events: Events) -> Parts:
    """The cleaned pairs, split; what is left out is told. DataError where too little is left."""
    if not config.data:
        raise ConfigError("there is nothing to learn from", hint="give a file of {query, tool} rows")
    tallies = [Tally(name) for name in ("rows", "rows out of scope", "requests", "rows of --test", "tests")]
    test = pairs.cleaned(pairs.read(config.test, tallies[3]), tallies[4])
    given = [*pairs.read(config.data, tallies[0])]
    given += pairs.read(config.out_of_scope, tallies[1], unserved=True)
    known = [pairs.folded(query) for query, _ in test]
    kept = pairs.cleaned(given, tallies[2], known=known)
    counts, rare = Counter(tool for _, tool in kept), Tally("tools")
    few = {tool for tool, n in counts.items() if n < config.min_examples}
    for _, tool in kept:
        rare.drop(f"a tool with fewer than {config.min_examples} requests") if tool in few else rare.keep()
    kept = [pair for pair in kept if pair[1] not in few]
    for tally in (*tallies, rare):
        if told := tally.sentence():
            events.note(told, "warning")
    shares = [config.val_split] if config.test else [config.val_split, config.held_out]
    if len({tool for _, tool in kept}) < 2:
        raise DataError(
            f"requests of {len(counts) - len(few)} tools are left, a router tells two or more apart",
            hint=f"rows are {pairs.SHAPE}; see also --min-examples",
        )
    learn, watch, *rest = pairs.split(kept, shares, seed)
    parts = Parts(learn, watch, test if config.test else rest[0])
    if not parts.watch or not parts.test:
        which = "--test" if config.test and not parts.test else "--val-split or --held-out"
        raise DataError(f"{which} holds no request", hint="give more rows, or a larger share")
    return parts


def plan(config: Config, events: Events) -> dict[str, Any]:
    """What a run would learn from, by class; nothing is trained or written."""
    parts = read(config, config.seed or 0, events)
    counts = {name: Counter(tool for _, tool in part) for name, part in parts._asdict().items()}
    labels = pairs.labels(parts.learn)
    return {
        "classes": len(labels), "abstains": NOTHING in labels,
        "requests": {name: len(part) for name, part in parts._asdict().items()},
        "tools": {tool: {name: count[tool] for name, count in counts.items()} for tool in labels},
    }  # fmt: skip
