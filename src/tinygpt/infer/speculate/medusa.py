"""Medusa: heads beside the model guess each of the next places on its own, and a tree of guesses is checked.

Head k reads the feature of the last token that was passed and gives p(t_(i+1+k)); the model gave t_(i+1). The
nodes of the tree are the sequences of the heads' likeliest tokens with the largest products of probabilities,
each a branch of one pass. `tinygpt train-heads MODEL --type medusa` trains the heads on any frozen model.

Paper: Cai et al., ICML 2024, arXiv:2401.10774, sections 2.1 and 2.1.2 (tree attention).
Differs: the tree follows the heads' own probabilities at every step, in the place of one that was fitted
before; guesses stay only where they are what the model itself chooses (no typical acceptance), so texts are
those of plain decoding; a line of guesses where a model's caches or positions take no tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.infer.batch import likeliest
from tinygpt.infer.request import Answer
from tinygpt.infer.speculate._batch import NO_TREES, check, takes_trees
from tinygpt.infer.speculate._protocol import Proposal, Seen, Told
from tinygpt.infer.speculate._tree import laid_out, likeliest_products
from tinygpt.model.drafting import heads as stored
from tinygpt.model.drafting.features import Features

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine
    from tinygpt.infer.speculate._verify import Rules


@dataclass(frozen=True, kw_only=True)
class Config:
    """The size of the tree."""

    tokens: Annotated[int, "Guesses checked at once."] = 12
    width: Annotated[int, "Likeliest tokens of each head that are considered."] = 6

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.width < 1:
            raise ConfigError(f"tokens and width must be at least 1, got {self.tokens} and {self.width}")


class MedusaRows:
    """The session: the feature (B, D) of the last token of each row that the model has passed."""

    def __init__(self, drafter: MedusaHeads) -> None:
        self._drafter = drafter
        self._last: mx.array | None = None

    @property
    def last_BD(self) -> mx.array:
        """The features."""
        assert self._last is not None, "nothing was read yet"
        return self._last

    def read(self, tokens_BL: mx.array, seen: Seen) -> None:
        """Prompts are aligned at the right: their last tokens stand together."""
        self._last = seen[self._drafter.features.point][:, -1]

    def extend(self, other: MedusaRows) -> None:
        """Take in the rows of another session."""
        self._last = mx.concatenate([self.last_BD, other.last_BD])

    def filter(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        self._last = self.last_BD[mx.array(list(rows))]

    def propose(self, rows: Sequence[Answer], rules: Rules, most: Sequence[int]) -> Proposal | None:
        """A tree of the heads' likeliest tokens."""
        drafter = self._drafter
        z = [drafter.features.logits(x) for x in drafter.heads(self.last_BD.astype(mx.float32)[:, None])]
        logits_BKV = mx.concatenate(z, axis=1).astype(mx.float32)
        logs_BKV = logits_BKV - mx.logsumexp(logits_BKV, axis=-1, keepdims=True)
        ids, values = (x.tolist() for x in likeliest(logs_BKV, drafter.width))
        trees = []
        for row_ids, row_values, depth in zip(ids, values, most, strict=True):
            choices = [list(zip(*place)) for place in zip(row_ids, row_values)][:depth]
            trees.append(likeliest_products(choices, drafter.most))
        return laid_out(trees, drafter.most, branched=drafter.trees)

    def settle(self, seen: Seen, paths: Sequence[Sequence[int]]) -> None:
        """The last token that stays is the one to guess from."""
        at = mx.array([path[-1] for path in paths])
        features_BND = seen[self._drafter.features.point]
        self._last = mx.take_along_axis(features_BND, at[:, None, None], axis=1)[:, 0]


class MedusaHeads:
    """The drafter."""

    def __init__(self, heads: Any, features: Features, config: Config, *, trees: bool) -> None:
        self.told = Told()
        self.heads, self.features, self.trees = heads, features, trees
        self.width = config.width if trees else 1
        self.most = config.tokens if trees else min(config.tokens, heads.facts.horizons)
        self.points = frozenset((features.point,))
        self.note = "" if trees else NO_TREES

    def begin(self, pads: Sequence[int]) -> MedusaRows:
        """A session."""
        return MedusaRows(self)


def build(engine: Engine, config: Config | None = None, *, heads: Any) -> MedusaHeads:
    """A drafter for an engine out of trained heads; ConfigError where they do not fit its model."""
    check(engine.model)
    features = Features(engine.model)
    stored.refuse_other(heads.facts, width=features.width, vocab_size=features.vocab_size)
    return MedusaHeads(heads, features, config or Config(), trees=takes_trees(engine.model))
