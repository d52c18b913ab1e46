"""Pairs of answers in tokens: what is learned, what stands beside a lone answer, what fits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data.rows import Message
from tinygpt.data.source._preferred import Preferred
from tinygpt.data.template._spans import encode_many

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

CHUNK = 1024  # rows encoded between two progress events


@dataclass(frozen=True)
class Answer:
    """A conversation that ends in an answer: its ids, and where the answer's tokens are."""

    ids: list[int]
    learn: list[bool]

    @property
    def prompt(self) -> int:
        """Tokens before the first that is learned."""
        return self.learn.index(True)

    def without(self, n: int) -> Answer:
        """The same with n tokens less at its beginning."""
        return Answer(self.ids[n:], self.learn[n:])


@dataclass(frozen=True)
class Example:
    """A row: two answers. `good` is of the first; `prompt` is the same for all answers to one prompt."""

    first: Answer
    second: Answer
    good: bool
    prompt: bytes
    digest: bytes

    @property
    def width(self) -> int:
        """Slots that the longer one takes: its last token is only predicted."""
        return max(len(self.first.ids), len(self.second.ids)) - 1


def prompt_hash(prompt: Sequence[Message], tools: Any) -> bytes:
    """What tells prompts apart."""
    return hashlib.sha256(repr((list(prompt), tools)).encode()).digest()


def encode(
    found: Sequence[Preferred], render: Callable[..., Any], tokenizer: Tokenizer, events: Events | None
) -> list[Example]:
    """In the order of their digests, which is the same for any order of rows."""
    examples: list[Example] = []
    for at in range(0, len(found), CHUNK):
        part = found[at : at + CHUNK]
        rendered = [render([*row.prompt, *reply], row.tools) for row in part for reply in row.replies]
        encoded = iter(encode_many(rendered, tokenizer))
        for row in part:
            answers = [_answer(*next(encoded), reply) for reply in row.replies]
            digest = hashlib.sha256(repr((row.prompt, row.replies, row.tools, row.good)).encode()).digest()
            prompt = prompt_hash(row.prompt, row.tools)
            examples.append(Example(answers[0], answers[-1], row.good, prompt, digest))
        if events:
            events.emit(Progress(task="tokenise", done=len(examples), total=len(found), unit="rows"))
    return sorted(examples, key=lambda e: e.digest)


def _answer(ids: list[int], learn: list[bool], reply: Sequence[Message]) -> Answer:
    """What is learned is the reply alone: as many of the last stretches of learned tokens as it has messages
    of the assistant. Earlier ones are part of the prompt."""
    wanted = sum(message["role"] == "assistant" for message in reply)
    end = len(learn) - learn[::-1].index(True)
    ids, learn = ids[:end], list(learn[:end])
    starts = [i for i, here in enumerate(learn) if here and not (i and learn[i - 1])]
    first = starts[-min(wanted, len(starts))]
    return Answer(ids, [here and i >= first for i, here in enumerate(learn)])


def single(example: Example) -> list[Example]:
    """Rows of one answer: of a pair there are two."""
    if example.second is example.first:
        return [example]
    good, bad = example.first, example.second
    return [
        Example(good, good, True, example.prompt, example.digest),
        Example(bad, bad, False, example.prompt, example.digest),
    ]


def mismatched(examples: list[Example]) -> list[Example]:
    """Each answer beside the answer of the next row that has another prompt, read after its own prompt."""
    n = len(examples)
    found: list[Example] = []
    ahead = 0  # the next row with another prompt: never before the last one's
    for i, one in enumerate(examples):
        ahead = max(ahead, i + 1)
        while ahead < i + n and examples[ahead % n].prompt == one.prompt:
            ahead += 1
        if ahead >= i + n:
            raise DataError(
                "all rows have the same prompt, and KTO needs answers to other ones to see how far it moved",
                hint="add rows with other prompts, or give pairs and another --loss-type",
            )
        other = examples[ahead % n].first
        begin = one.first.prompt
        ids = one.first.ids[:begin] + other.ids[other.prompt :]
        learn = [False] * begin + other.learn[other.prompt :]
        found.append(Example(one.first, Answer(ids, learn), one.good, one.prompt, one.digest))
    return found


def fit(example: Example, length: int) -> Example | None:
    """The example with at most `length` slots, both answers after the same part of the prompt; None when an
    answer does not fit, even alone."""
    over = example.width - length
    if over <= 0:
        return example
    if over >= min(example.first.prompt, example.second.prompt):
        return None
    first, second = example.first.without(over), example.second.without(over)
    return Example(first, second, example.good, example.prompt, example.digest)
