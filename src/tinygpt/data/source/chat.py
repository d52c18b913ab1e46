"""Conversations: JSONL rows become rendered examples, and the model learns the answers only.

Rows of every shape in `tinygpt.data.rows` are turned into messages, rendered by a template and packed whole,
several to a row, each isolated from the others. An example longer than a row loses the beginning of its
prompt, and is counted; when even its last answer is too long, the example is left out, and counted. The
held-out part is chosen by a hash of the rendered text: it does not depend on the seed or on the order of
rows, and equal rows are never on both sides: they stay together, and are held out only where all of them fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data import rows
from tinygpt.data.pack import Fit, fit_plan
from tinygpt.data.source._source import Source
from tinygpt.data.template import _choice
from tinygpt.data.template._spans import encode_many, join

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

CHUNK = 2048  # conversations encoded between two progress events


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to read, and what of it is learned."""

    paths: Annotated[tuple[Path, ...], "JSONL files (.gz too)."]
    template: Annotated[str, _choice.HELP] = _choice.AUTO
    learn: Annotated[
        Literal["answers", "all"], "Which tokens are targets: the assistant's, or every one."
    ] = "answers"
    held_out: Annotated[float, "Fraction of the rows kept for evaluation."] = 0.05
    strict: Annotated[bool, "Refuse bad rows and answers that are too long, instead of counting them."] = (
        False
    )

    def __post_init__(self) -> None:
        _choice.check(self.template)
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out must be at least 0 and below 1, got {self.held_out}")


@dataclass(frozen=True)
class _Example:
    ids: list[int]
    learn: list[bool]
    digest: bytes


def build(
    config: Config,
    tokenizer: Tokenizer,
    *,
    length: int,
    batch_size: int,
    seed: int = 0,
    events: Events | None = None,
) -> Source:
    """The training source; `.held_out` is the evaluation source, or None."""
    conversations, facts = _read(config, events)
    examples = _encode(conversations, config, tokenizer, events)
    # Sorting by digest is the keyed shuffle: it also mixes the rows of several files.
    examples.sort(key=lambda example: example.digest)
    fitted = [fit for example in examples if (fit := _fit(example, length)) is not None]
    if not fitted:
        raise DataError(
            f"all {len(examples)} answers are longer than a row of {length} tokens",
            hint="use a longer context, or shorter answers",
        )
    facts["truncated"] = sum(len(e.ids) > length + 1 for e in examples) - (len(examples) - len(fitted))
    facts["dropped"] = len(examples) - len(fitted)
    _report_long(facts, config, length, events)
    train, held = _split(fitted, config.held_out, events)
    size = {"length": length, "batch_size": batch_size, "pad_id": tokenizer.pad_id}

    def part(chosen: list[_Example], more_facts: dict[str, Any], **more: Any) -> Source:
        packed, n_learned = _pack(chosen, length, learn_all=config.learn == "all")
        counts = {"documents": len(chosen), "learned_tokens": n_learned, **more_facts}
        return Source(packed, **size, facts=counts, files=config.paths, **more)

    held_out = part(held, {}, seed=None) if held else None
    return part(train, facts, seed=seed, held_out=held_out)


def _read(config: Config, events: Events | None) -> tuple[list[rows.Conversation], dict[str, Any]]:
    conversations: list[rows.Conversation] = []
    n_bad = 0
    for path in config.paths:
        used, report = rows.read(path, rows.to_messages, strict=config.strict)
        conversations += used
        n_bad += report.n_bad
        if report.n_bad and events:
            events.note(f"{path}: {report.sentence()}", level="warning")
    return conversations, {"bad_rows": n_bad}


def _encode(
    conversations: list[rows.Conversation], config: Config, tokenizer: Tokenizer, events: Events | None
) -> list[_Example]:
    render = _choice.of(tokenizer, config.template).render
    examples: list[_Example] = []
    for at in range(0, len(conversations), CHUNK):
        rendered = [render(c.messages, c.tools) for c in conversations[at : at + CHUNK]]
        for spans, (ids, learn) in zip(rendered, encode_many(rendered, tokenizer), strict=True):
            end = len(learn) - learn[::-1].index(True)  # nothing after the last answer is learned
            examples.append(_Example(ids[:end], learn[:end], hashlib.sha256(join(spans).encode()).digest()))
        if events:
            events.emit(Progress(task="tokenise", done=len(examples), total=len(conversations), unit="rows"))
    return examples


def _fit(example: _Example, length: int) -> _Example | None:
    """The example with at most length + 1 tokens, or None when its last answer alone is longer than a row."""
    if len(example.ids) <= length + 1:
        return example
    ids, learn = example.ids[-length - 1 :], example.learn[-length - 1 :]
    if all(learn):
        return None
    if learn[0] and example.learn[-length - 2]:
        # An earlier answer lost its beginning: what is left of it is context, not something to learn.
        answer = learn.index(False)
        learn[:answer] = [False] * answer
    return _Example(ids, learn, example.digest)


def _split(
    examples: list[_Example], fraction: float, events: Events | None
) -> tuple[list[_Example], list[_Example]]:
    """(to train on, to hold out): from the end of the sorted examples, those that fit into the fraction.

    Equal examples are neighbours and go together. Where not even the rarest fit, those are held out as long
    as that is at most twice what was asked for.
    """
    n = len(examples)
    if not fraction or n == 1:
        return examples, []
    groups = [list(equal) for _, equal in groupby(examples, key=lambda e: e.digest)]
    wanted = min(max(1, round(fraction * n)), n - 1)
    held: set[int] = set()
    room = wanted
    for i in reversed(range(len(groups))):
        if len(groups[i]) <= room:
            held.add(i)
            room -= len(groups[i])
    if not held:
        rarest = min(range(len(groups)), key=lambda i: len(groups[i]))
        _refuse_copies(len(groups), len(groups[rarest]), wanted, n)
        held.add(rarest)
    if events and (copies := n - len(groups)):
        n_held = sum(len(groups[i]) for i in held)
        events.note(
            f"{copies} of {n} rows are copies of others, and copies stay together; held out: {n_held} rows",
            level="warning",
        )
    parts: tuple[list[_Example], list[_Example]] = ([], [])
    for i, group in enumerate(groups):
        parts[i in held].extend(group)
    return parts


def _refuse_copies(n_distinct: int, fewest: int, wanted: int, n: int) -> None:
    """Rows that are there so often that holding one kind of them out would take too many."""
    none = "--held-out 0 holds none out"
    if n_distinct == 1:
        raise DataError(f"all {n} rows are equal, so none can be held out", hint=none)
    if fewest > 2 * wanted:
        raise DataError(
            f"{wanted} of {n} rows should be held out, but each is there {fewest} times or more, and equal "
            "rows stay together",
            hint=f"remove the copies, or hold out more; {none}",
        )


def _report_long(facts: dict[str, Any], config: Config, length: int, events: Events | None) -> None:
    truncated, dropped = facts["truncated"], facts["dropped"]
    total = f"{dropped} answers are longer than a row of {length} tokens"
    if dropped and config.strict:
        raise DataError(total, hint="use a longer context, or leave the rows out")
    if dropped and events:
        events.note(f"{total}; their rows were left out", level="warning")
    if truncated and events:
        events.note(
            f"{truncated} conversations are longer than {length} tokens and lost their beginning",
            level="warning",
        )


def _pack(examples: Sequence[_Example], length: int, *, learn_all: bool) -> tuple[Fit, int]:
    import numpy as np

    sizes = [len(e.ids) - 1 for e in examples]
    edges = np.cumsum([0, *(n + 1 for n in sizes)])
    ids = np.fromiter(chain.from_iterable(e.ids for e in examples), np.int32, int(edges[-1]))
    learn = np.fromiter(chain.from_iterable(e.learn for e in examples), np.bool_, int(edges[-1]))
    n_learned = int(learn.sum())
    if learn_all:
        learn[:] = True
        n_learned = int(edges[-1]) - len(examples)
    return Fit(ids, learn, edges, fit_plan(sizes, length)), n_learned
