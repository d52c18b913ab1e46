"""Examples: conversations and texts as ids with a mask, cut to the length of a row, and laid into rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, Literal

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data.pack import PLANS, Fit
from tinygpt.data.rows import Conversation
from tinygpt.data.source._tokens import Tokens
from tinygpt.data.template._spans import Span, answers, encode_many, join

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

CHUNK = 2048  # rows encoded between two progress events
Learn = Literal["answers", "last", "all"]
Truncate = Literal["left", "right", "drop"]
Render = Callable[..., list[Span]]


@dataclass(frozen=True)
class Row:
    """What was read: a conversation, text, or tokens; `corpus` is the number of the corpus it came from. Its
    learned tokens count `weight`; rows of one `key` are never on both sides of what is held out, and `twin`
    says that the row is there beside another one of its key."""

    content: Conversation | str | Tokens
    corpus: int = 0
    weight: float = 1.0
    key: str = ""
    twin: bool = False


@dataclass(frozen=True)
class Example:
    """Ids, and for each whether it is learned; equal rows have equal digests. A `plain` one is text without
    questions: where it is too long it goes on in another row."""

    ids: list[int]
    learn: list[bool]
    digest: bytes
    corpus: int = 0
    plain: bool = False
    weight: float = 1.0  # of each learned token
    twin: bool = False


def encode(
    found: Sequence[Row], render: Render, learn: Learn, tokenizer: Tokenizer, events: Events | None
) -> tuple[list[Example], list[DataError]]:
    """(examples, why others are none): a conversation as the template writes it, up to its last answer; a
    text between the tokens that begin and end one; tokens as they are."""
    examples: list[Example] = []
    bad: list[DataError] = []
    for at in range(0, len(found), CHUNK):
        some: list[Row] = []
        spans: list[list[Span]] = []
        for row in found[at : at + CHUNK]:
            if isinstance(row.content, Tokens):
                examples.append(_recorded(row.content, row.corpus, learn))
                continue
            try:
                spans.append(_spans(row.content, render, learn))
                some.append(row)
            except DataError as error:
                bad.append(error)
        for row, text, (ids, mask) in zip(some, spans, encode_many(spans, tokenizer), strict=True):
            digest = hashlib.sha256((row.key or join(text)).encode()).digest()
            if isinstance(row.content, str):
                start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
                ids = [start, *ids, tokenizer.eos_id]
                examples.append(Example(ids, [False] + [True] * (len(ids) - 1), digest, row.corpus, True))
                continue
            end = len(mask) - mask[::-1].index(True)  # nothing after the last answer is learned
            examples.append(
                Example(ids[:end], mask[:end], digest, row.corpus, weight=row.weight, twin=row.twin)
            )
        if events:
            done = min(at + CHUNK, len(found))
            events.emit(Progress(task="tokenise", done=done, total=len(found), unit="rows"))
    return examples, bad


def _recorded(content: Tokens, corpus: int, learn: Learn) -> Example:
    """Tokens up to the last that is learned."""
    told = content.last() if learn == "last" else content
    end = len(told.learn) - told.learn[::-1].index(True)
    digest = hashlib.sha256(repr((told.ids[:end], told.learn[:end])).encode()).digest()
    return Example(told.ids[:end], told.learn[:end], digest, corpus)


def _spans(content: Conversation | str, render: Render, learn: Learn) -> list[Span]:
    """What the template writes, without learning the answers that are only context; with "last" that is all
    but the last. DataError where the template refuses the row, or nothing is left to learn."""
    if isinstance(content, str):
        return [Span(content, learn=True)]
    numbers = [i for i, message in enumerate(content.messages) if message["role"] == "assistant"]
    # Nothing after the last answer is learned, and some templates write an answer that something follows
    # without a stop token.
    spans = render(content.messages[: numbers[-1] + 1], content.tools)
    if content.unlearned:
        context = {numbers[i] for i in content.unlearned}
        spans = [span._replace(learn=span.learn and span.message not in context) for span in spans]
    if learn == "last":
        spans = answers(spans, "last")
    if not any(span.learn for span in spans):
        raise DataError("the template writes no answer of this row")
    return spans


def fit(example: Example, length: int, how: Truncate) -> Example | None:
    """The example with at most length + 1 tokens, or None where no whole answer is left ("left"), no token of
    any ("right"), or where it is not to be cut ("drop"). Plain text fits always: see `pieces`."""
    if len(example.ids) <= length + 1 or example.plain:
        return example
    if how == "drop":
        return None
    part = slice(0, length + 1) if how == "right" else slice(-length - 1, None)
    ids, learn = example.ids[part], example.learn[part]
    if learn[0]:
        # An answer that lost its beginning or its prompt: what is left of it is context.
        answer = learn.index(False) if False in learn else len(learn)
        learn[:answer] = [False] * answer
    return replace(example, ids=ids, learn=learn) if any(learn[1:]) else None


def pieces(example: Example, length: int) -> list[Example]:
    """An example in parts of at most length + 1 tokens: each begins with the last token of the one before."""
    n = len(example.ids)
    if n <= length + 1:
        return [example]
    return [
        replace(example, ids=example.ids[at : at + length + 1], learn=example.learn[at : at + length + 1])
        for at in range(0, n - 1, length)
    ]


def pack(examples: Sequence[Example], length: int, mode: str, *, learn_all: bool) -> tuple[Fit, int]:
    """(rows, learned tokens). Every example has a target, or it would be read for nothing."""
    import numpy as np

    sizes = [len(e.ids) - 1 for e in examples]
    edges = np.cumsum([0, *(n + 1 for n in sizes)])
    ids = np.fromiter(chain.from_iterable(e.ids for e in examples), np.int32, int(edges[-1]))
    learn = np.fromiter(chain.from_iterable(e.learn for e in examples), np.bool_, int(edges[-1]))
    if learn_all:
        learn[:] = True
    learn[edges[:-1]] = False  # a first token is never a target
    assert np.add.reduceat(learn, edges[:-1], dtype=np.int64).all(), "an example without a target"
    n_learned = int(learn.sum())
    if any(e.weight != 1 for e in examples):
        learn = learn * np.repeat(np.array([e.weight for e in examples], np.float32), np.diff(edges))
    return Fit(ids, learn, edges, PLANS[mode](sizes, length)), n_learned


def split(
    examples: Sequence[Example], fraction: float, events: Events | None
) -> tuple[list[Example], list[Example]]:
    """(to train on, to hold out): from the end of the sorted examples, those that fit into the fraction.

    Equal examples are neighbours and go together. Where not even the rarest fit, those are held out as long
    as that is at most twice what was asked for.
    """
    n = len(examples)
    if not fraction or n - sum(e.twin for e in examples) == 1:
        return list(examples), []
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
    copies = n - sum(e.twin for e in examples) - len(groups)
    if events and copies > 0:
        n_held = sum(len(groups[i]) for i in held)
        events.note(
            f"{copies} of {n} rows are copies of others, and copies stay together; held out: {n_held} rows",
            level="warning",
        )
    parts: tuple[list[Example], list[Example]] = ([], [])
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


Facts = dict[str, Any]
