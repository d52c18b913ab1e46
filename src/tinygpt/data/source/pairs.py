"""Preferences: a better and a worse answer to a prompt, or one with a label, side by side in a row.

    {"prompt", "chosen", "rejected"}                text, or lists of messages: replies, or conversations
    {"chosen", "rejected"}                          conversations: what they begin with alike is the prompt
    {"prompt" | "messages", "completion", "label"}  one answer, good (true) or not
    {"messages", "label"}                           the same, the answer at the end

`question` or `instruction` may stand for `prompt`, a `system` text may come first, and `tools` belong to
both. Learned are the tokens of the answers alone, whatever the prompt holds. Where a pair is longer than a
row's half, both lose the same beginning of the prompt; a pair whose answer does not fit is left out, and
counted.

Batches are as wide as their longest answer needs, in a few steps (`WIDTHS`), so that a compiled step has few
shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.data import rows
from tinygpt.data.batch import Batch, PairBatch
from tinygpt.data.pack import empty
from tinygpt.data.source._pairing import Example, encode, fit, mismatched, single
from tinygpt.data.source._preferred import SHAPES, Preferred, preferred
from tinygpt.data.source._source import Source
from tinygpt.data.template import _choice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tinygpt.data.tokenizer._protocol import Tokenizer

WIDTHS = 8  # widths that batches may have
LEAST = 32  # tokens: the width of the narrowest


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to read, and how."""

    paths: Annotated[tuple[Path, ...], "JSONL files (.gz too)."]
    template: Annotated[str, "How a conversation is written as text.", _choice.TEMPLATES] = _choice.AUTO
    paired: Annotated[bool, "Rows have two answers; off: one, and a label."] = True
    held_out: Annotated[float, "Fraction of the rows kept for evaluation."] = 0.05
    strict: Annotated[bool, "Refuse bad rows and answers that are too long, instead of counting them."] = (
        False
    )

    def __post_init__(self) -> None:
        _choice.check(self.template)
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out must be at least 0 and below 1, got {self.held_out}")


class PairRows:
    """Examples as rows of a batch. `references` (n, 2) are zeros until they are known."""

    def __init__(self, examples: Sequence[Example]) -> None:
        import numpy as np

        self.examples = list(examples)
        self.references: NDArray[np.float32] = np.zeros((len(self.examples), 2), np.float32)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def n_tokens(self) -> int:
        return sum(len(a.ids) - 1 for e in self.examples for a in (e.first, e.second))

    def fill(self, r: int, batch: Batch, b: int, epoch: int = 0) -> None:
        import numpy as np

        example, half = self.examples[r], batch.tokens.shape[1] // 2
        for segment, answer in enumerate((example.first, example.second), 1):
            n, at = len(answer.ids) - 1, (segment - 1) * half
            batch.tokens[b, at : at + n] = answer.ids[:-1]
            batch.targets[b, at : at + n] = answer.ids[1:]
            batch.weights[b, at : at + n] = answer.learn[1:]
            batch.positions[b, at : at + n] = np.arange(n)
            batch.segments[b, at : at + n] = segment
        assert isinstance(batch, PairBatch)
        batch.reference[b], batch.good[b] = self.references[r], example.good


class PairSource(Source):
    """Rows of two answers served as batches, each as wide as its longest answer needs."""

    packed: PairRows
    held_out: PairSource | None

    def __getitem__(self, i: int) -> PairBatch:

        if i < 0 or (self.seed is None and i >= len(self)):
            raise IndexError(i)
        numbers = range(i * self.batch_size, (i + 1) * self.batch_size)
        return self.batch_of([self._row(n) for n in numbers])

    def batch_of(self, chosen: Sequence[int | None]) -> PairBatch:
        """The batch of these examples; None: a row of padding."""
        import numpy as np

        n = len(chosen)
        widest = max(self.packed.examples[r].width for r in chosen if r is not None)
        plain = empty(n, 2 * next(w for w in self.widths if w >= widest), self.pad_id)
        batch = PairBatch(
            **plain.__dict__, reference=np.zeros((n, 2), np.float32), good=np.zeros(n, np.float32)
        )
        for b, r in enumerate(chosen):
            if r is not None:
                self.packed.fill(r, batch, b)
        return batch

    def _row(self, n: int) -> int | None:
        """Which example is row number `n` of the run; None: padding."""
        epoch, row = divmod(n, self.n_rows)
        return int(self._order(epoch)[row]) if self.seed is not None else row if epoch == 0 else None

    @cached_property
    def widths(self) -> list[int]:
        """Widths of a batch's half that are in use: the longest example's, and steps of a quarter less, no
        more than `WIDTHS`."""
        widest = max(e.width for e in self.packed.examples)
        found = {max(min(LEAST, widest), round(widest * 0.75**i)) for i in range(WIDTHS)}
        return sorted(found)

    def describe(self) -> dict[str, Any]:
        examples, slots = self.packed.examples, 2 * self.n_rows * max(self.widths)
        facts = {**self.facts, "rows": self.n_rows, "batches_per_epoch": len(self), "files": len(self.files)}
        facts |= {
            "tokens": self.packed.n_tokens, "packing_efficiency": round(self.packed.n_tokens / slots, 4),
            "learned_tokens": sum(sum(a.learn) for e in examples for a in (e.first, e.second)),
            "longest": max(e.width for e in examples) + 1,
        }  # fmt: skip
        if self.held_out:
            facts["held_out"] = self.held_out.describe()
        return facts


def build(
    config: Config,
    tokenizer: Tokenizer,
    *,
    length: int,
    batch_size: int,
    seed: int = 0,
    events: Events | None = None,
) -> PairSource:
    """The training source; `.held_out` is the evaluation source, or None. `length` bounds each answer with
    its prompt."""
    found, n_bad = list[Preferred](), 0
    for path in config.paths:
        used, report = rows.read(path, preferred, strict=config.strict, known=SHAPES)
        found += used
        n_bad += report.n_bad
        if report.n_bad and events:
            events.note(f"{path}: {report.sentence()}", level="warning")
    return from_rows(
        found, config, tokenizer, length=length, batch_size=batch_size, seed=seed, events=events,
        facts={"bad_rows": n_bad},
    )  # fmt: skip


def from_rows(
    found: Sequence[Preferred],
    config: Config,
    tokenizer: Tokenizer,
    *,
    length: int,
    batch_size: int,
    seed: int = 0,
    events: Events | None = None,
    facts: dict[str, Any] | None = None,
) -> PairSource:
    """The same from rows that are in memory."""
    if config.paired and any(row.rejected is None for row in found):
        raise DataError(
            "rows with one answer and a label are no pairs", hint="learn from them with --loss-type kto"
        )
    encoded = encode(found, _choice.of(tokenizer, config.template).render, tokenizer, events)
    examples = encoded if config.paired else mismatched([one for e in encoded for one in single(e)])
    fitted = [(kept, kept is not e) for e in examples if (kept := fit(e, length)) is not None]
    dropped, truncated = len(examples) - len(fitted), sum(cut for _, cut in fitted)
    _report(dropped, truncated, length, config, events)
    if not fitted:
        raise DataError(
            f"no answer of {len(examples)} rows fits a context of {length} tokens",
            hint="use a longer --context, or shorter answers",
        )
    train, held = _split([e for e, _ in fitted], config.held_out)
    size: dict[str, Any] = {"length": length, "batch_size": batch_size, "pad_id": tokenizer.pad_id}
    counts = {**(facts or {}), "truncated": truncated, "dropped": dropped, "documents": len(train)}
    held_out = None
    if held:
        held_out = PairSource(
            PairRows(held), **size, seed=None, facts={"documents": len(held)}, files=config.paths
        )
    return PairSource(PairRows(train), **size, seed=seed, facts=counts, files=config.paths, held_out=held_out)


def _report(dropped: int, truncated: int, length: int, config: Config, events: Events | None) -> None:
    text = f"{dropped} rows have an answer that does not fit a context of {length} tokens"
    if dropped and config.strict:
        raise DataError(text, hint="use a longer --context, or leave the rows out")
    if dropped and events:
        events.note(f"{text}; they were left out", level="warning")
    if truncated and events:
        events.note(
            f"{truncated} rows are longer than {length} tokens: their prompts lost the beginning",
            level="warning",
        )


def _split(examples: list[Example], fraction: float) -> tuple[list[Example], list[Example]]:
    """(to train on, to hold out): prompts by their hash, so that one prompt is never on both sides."""
    prompts = sorted({e.prompt for e in examples})
    n = min(max(1, round(fraction * len(prompts))), len(prompts) - 1) if fraction else 0
    held = set(prompts[len(prompts) - n :]) if n else set[bytes]()
    return [e for e in examples if e.prompt not in held], [e for e in examples if e.prompt in held]
