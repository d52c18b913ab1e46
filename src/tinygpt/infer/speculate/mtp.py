"""Self-speculation: a model with several heads drafts with its own, and checks itself.

A model trained to predict several tokens at every place (`--mtp-horizons`, heads mtp and mtp_parallel) has
modules that guess the tokens after the next. They read what the last pass has computed of the text, so a
draft of k tokens costs k small blocks. The next token is known, and the chain of the head `mtp` starts from
it. Guesses are the likeliest tokens of each module.

Paper: Gloeckle et al., ICML 2024, arXiv:2404.19737, section 3.2 (self-speculative decoding); DeepSeek-AI
2024, arXiv:2412.19437, section 2.2 (the chain as a draft).
Differs: each row drafts on its own, so a batch of many rows makes as many calls of the small blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.infer.request import Answer
from tinygpt.infer.speculate._batch import check
from tinygpt.infer.speculate._protocol import Proposal, Seen, Told
from tinygpt.model.frame import Frame

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine
    from tinygpt.infer.speculate._verify import Rules

FINAL = "ln_final.hook_normalized"


class _Row:
    """What one row has: the head's own memory, and what of the text has come since it was last asked."""

    def __init__(self, drafts: Any) -> None:
        self.drafts = drafts
        self.new: list[tuple[mx.array, mx.array]] = []  # (L, D) of the stack's output and of the trunk
        self.seen = 0  # tokens of the text whose features came

    def copied(self) -> _Row:
        """The same for another answer to the same prompt, of which nothing was asked yet."""
        other = _Row(self.drafts)
        other.new, other.seen = list(self.new), self.seen
        return other


class OwnHeads:
    """The session: what the head remembers of each row."""

    def __init__(self, drafter: OwnHead, pads: Sequence[int]) -> None:
        self._drafter = drafter
        self._pads, self._read = list(pads), 0
        self._rows = [_Row(None) for _ in pads]

    def read(self, tokens_BL: mx.array, seen: Seen) -> None:
        """Keep what the stack made of the prompts."""
        length = tokens_BL.shape[1]
        for i, row in enumerate(self._rows):
            first = min(length, max(0, self._pads[i] - self._read))
            if first < length:
                self._keep(row, seen, i, slice(first, length))
        self._read += length

    def _keep(self, row: _Row, seen: Seen, i: int, at: slice) -> None:
        x_LD = seen[FINAL][i, at]
        row.new.append((x_LD, seen[self._drafter.trunk][i, at]))
        row.seen += x_LD.shape[0]

    def extend(self, other: OwnHeads) -> None:
        """Take in the rows of another session."""
        self._rows += other._rows

    def filter(self, rows: Sequence[int]) -> None:
        """Keep only these rows; one that comes twice was asked for nothing yet."""
        kept = [self._rows[row] for row in rows]
        self._rows = [row.copied() if row in kept[:i] else row for i, row in enumerate(kept)]

    def propose(self, rows: Sequence[Answer], rules: Rules, most: Sequence[int]) -> Proposal | None:
        """What the head's modules expect."""
        model, guesses = self._drafter.model, []
        for row, state in zip(rows, self._rows, strict=True):
            text = row.request.prompt + row.ids
            x_LD, trunk_LD = (mx.concatenate(parts) for parts in zip(*state.new))
            tokens_1L = mx.array([text[state.seen - x_LD.shape[0] : state.seen]])
            if state.drafts is None:
                state.drafts = model.head.make_drafts()
            frame = Frame.of(tokens_1L)
            frame.position, frame.stack = model.model.embed_positions, model.model
            frame.trunk = trunk_LD[None]
            found = model.head.draft(
                x_LD[None], model.output, tokens_1L, frame, state.drafts, mx.array([[text[-1]]])
            )
            guesses.append(found[:, 1:])
            state.new = []
        return Proposal(tokens=mx.concatenate(guesses), counts=list(most))

    def settle(self, seen: Seen, paths: Sequence[Sequence[int]]) -> None:
        """Keep what the stack made of the tokens that stay."""
        for i, (row, path) in enumerate(zip(self._rows, paths, strict=True)):
            self._keep(row, seen, i, slice(0, len(path)))


class OwnHead:
    """The drafter."""

    note = ""

    def __init__(self, model: Any) -> None:
        self.told = Told()
        self.model, self.most = model, len(model.head.ahead)
        self.trunk = f"blocks.{len(model.layers) - 1}.hook_resid_pre"
        self.points = frozenset((FINAL, self.trunk))

    def begin(self, pads: Sequence[int]) -> OwnHeads:
        """A session."""
        return OwnHeads(self, pads)


def build(engine: Engine) -> OwnHead:
    """A drafter for an engine whose model predicts several tokens; ConfigError for any other."""
    model: Any = engine.model
    head = getattr(model, "head", None)
    if not hasattr(head, "draft"):
        raise ConfigError(
            "this model predicts one token at every place, so it cannot draft by itself",
            hint="models trained with --mtp-horizons do; train-heads gives heads to any other",
        )
    check(model)
    return OwnHead(model)
