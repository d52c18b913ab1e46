"""A reranker that reads query and document together: blocks that read both ways over "query [SEP] document".

    s = z_1 - z_0 + w . f      z = W norm(mean_t h_t) + b

The encoder is the router's. Before each word of the document that stands in the query, too, and before each
such word of the query, stands a mark that says so and how rare the word is, in four steps: a small encoder
that began with random weights would need far more pairs to learn when two words are the same. f are the five
features of the lexical reranker, w begins as what fits them best and W at 0: the encoder learns what shared
words do not say. A document that is longer than the context counts by its best window.

Paper: Nogueira and Cho 2019, arXiv:1901.04085 (query and document read together); Boualili et al., SIGIR 2020
(marks of exact matches); Dai and Callan, SIGIR 2019, arXiv:1905.09217 (the best window); Cheng et al. 2016,
arXiv:1606.07792 (features beside a network).
Differs: no pre-trained weights; marks say how rare a word is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.data.bm25 import WORD, words
from tinygpt.data.source._buckets import Bucketed
from tinygpt.model.config import ModelConfig
from tinygpt.router import encoder
from tinygpt.router.encoder import Encoder, Facts
from tinygpt.router.rerank_lexical import FEATURES, FeatureBatch, Rarity, with_features
from tinygpt.train.protocols import Tensors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tinygpt.data.batch import Batch
    from tinygpt.data.tokenizer._protocol import Tokenizer

LEVELS = 4  # of how rare a shared word is
EXTRA = 1 + LEVELS  # ids beyond the tokenizer's: [SEP], and a mark for each level
LABELS = ("other", "relevant")
MINI = (2, 128, 4)  # layers, width, heads: minutes on a CPU


class Cross(Encoder):
    """Tokens of query and document (B, L), segments (B, L) -> logits (B, 2)."""

    def __init__(self, config: ModelConfig, facts: Facts) -> None:
        super().__init__(config, facts)
        self.lexical_weight = mx.zeros((len(FEATURES),))

    def scores(self, tokens_BL: mx.array, segments_BL: mx.array, **how: Any) -> mx.array:
        """(B,) z_1 - z_0."""
        z_BC = self(tokens_BL, segments_BL, **how)
        return z_BC[:, 1] - z_BC[:, 0]

    def margins(self, batch: Tensors, *, training: bool = False) -> mx.array:
        """(B,): of rows whose left half is what answers and whose right half is what does not. Both halves of
        a row get the same noise."""
        n, width = batch["tokens"].shape
        halves = [batch[name].reshape(2 * n, width // 2) for name in ("tokens", "segments")]
        keys = batch.get("keys") if training else None
        keys = mx.repeat(keys, 2, axis=0) if keys is not None else None
        s_B2 = self.scores(*halves, training=training, keys=keys).reshape(n, 2)
        return s_B2[:, 0] - s_B2[:, 1] + batch["features"] @ self.lexical_weight


def size(preset: str, *, vocab_size: int, context: int) -> ModelConfig:
    """The config of a preset's blocks: 'mini', or one of the router's."""
    if preset != "mini":
        return encoder.size(preset, vocab_size=vocab_size, context=context)
    layers, width, heads = MINI
    return ModelConfig(
        vocab_size=vocab_size, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        max_position_embeddings=context,
    )  # fmt: skip


class Reading:
    """Queries and documents as ids: the query's, at most half of the context, [SEP], the document's."""

    def __init__(self, tokenizer: Tokenizer, rarity: Rarity, context: int) -> None:
        self.tokenizer, self.rarity, self.context = tokenizer, rarity, context
        self.separator = tokenizer.vocab_size

    def windows(self, query: str, documents: Sequence[str]) -> list[list[list[int]]]:
        """Of each document its windows, each with the query before it; one that is empty has one window."""
        asked = set(words(query))
        texts, cut = list[str](), list[tuple[int, int, int]]()  # a piece: of which text, its mark
        for number, document in enumerate(documents):
            theirs = asked & set(words(document))
            for side, text in enumerate((query, document)):
                for piece, mark in self._pieces(text, theirs):
                    texts.append(piece)
                    cut.append((number, side, mark))
        sides: list[tuple[list[int], list[int]]] = [([], []) for _ in documents]
        encoded = self.tokenizer.encode_inside(texts, after_control=True) if texts else []
        for ids, (number, side, mark) in zip(encoded, cut, strict=True):
            sides[number][side].extend([mark, *ids] if mark else ids)
        return [list(self._fitted(q, d)) for q, d in sides]

    def _pieces(self, text: str, shared: set[str]) -> list[tuple[str, int]]:
        """A text cut before and behind its shared words, each piece with the id of its mark; 0: none."""
        found: list[tuple[str, int]] = []
        at = 0
        for match in WORD.finditer(text):
            word = match.group().lower()
            if word not in shared:
                continue
            start = match.start()
            if start > at and text[start - 1] == " ":
                start -= 1  # tokenizers keep the space with the word behind it
            if start > at:
                found.append((text[at:start], 0))
            mark = self.separator + 1 + self.rarity.level(word, LEVELS)
            found.append((text[start : match.end()], mark))
            at = match.end()
        return [*found, (text[at:], 0)] if at < len(text) else found

    def _fitted(self, query: list[int], document: list[int]) -> list[list[int]]:
        begin = [*query[: self.context // 2], self.separator]
        room = self.context - len(begin)
        starts = range(0, max(1, len(document)), room)
        return [begin + document[at : at + room] for at in starts]

    def n_cut(self, windows: Sequence[Sequence[list[int]]]) -> int:
        """How many documents have more than one window."""
        return sum(len(each) > 1 for each in windows)


class CrossPairs:
    """Rows: what answers in the left half, what does not in the right one, first windows alone; with the
    differences of their features."""

    def __init__(self, pairs: Sequence[tuple[list[int], list[int]]], values: NDArray[np.float32]) -> None:
        self.pairs, self.values = pairs, values

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def n_tokens(self) -> int:
        return sum(len(a) + len(b) for a, b in self.pairs)

    def row_tokens(self, r: int) -> int:
        """Tokens of a row: of both halves as long as the longer."""
        return 2 * max(map(len, self.pairs[r]))

    @property
    def longest(self) -> int:
        """The widest row, up to a multiple of 8."""
        return 8 * math.ceil(max(map(self.row_tokens, range(len(self)))) / 8)

    def fill(self, r: int, batch: Batch, b: int, epoch: int = 0) -> None:
        """Write pair r into row b, which is all padding."""
        half = batch.tokens.shape[1] // 2
        for at, ids in zip((0, half), self.pairs[r], strict=True):
            batch.tokens[b, at : at + len(ids)] = ids
            batch.segments[b, at : at + len(ids)] = 1
        batch.weights[b, 0] = 1.0
        if isinstance(batch, FeatureBatch):
            batch.features[b] = self.values[r]


class CrossSource(Bucketed):
    """A source of such rows."""

    def __getitem__(self, i: int) -> Batch:
        batch = with_features(super().__getitem__(i))
        epoch, at = divmod(i, len(self))
        for b, r in enumerate(self._plan(epoch)[at][1]):
            self.packed.fill(r, batch, b, epoch)
        return batch
