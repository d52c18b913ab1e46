"""The encoder of a router: the decoder's own blocks, reading both ways, pooled over what is no padding.

    h = blocks(tokens)      p = norm(mean_t h_t) + norm(sum_g idf_g E_g)      z = W p + b

t runs over the request's tokens, g over its runs of 1 to `grams` tokens that two or more of the learned
requests have: what a short request asks for is mostly said by a few words side by side, and a table learns
them from few examples, where blocks need many. Runs are known by a hash; idf_g = ln(1 + N / n) for a run that
n of the N learned requests have. norm divides by the root mean square, so that both parts are of one size.
Blocks read both ways, since all of a request is there when it is read: a causal block makes its first
tokens without the last, and the mean counts them as much as the others. Padding is of segment 0, which no
token of a request reads, and counts in no mean.

Paper: Vaswani et al. 2017, arXiv:1706.03762 (encoder); Joulin et al. 2016, arXiv:1607.01759 (hashed n-grams);
Cheng et al. 2016, arXiv:1606.07792 (both side by side).
Differs: blocks are the decoder's, with its positions and norms; no token stands for the whole. What is hidden
from blocks in training is hidden from runs, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model import ops
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.lm import LM, Stack, initialize
from tinygpt.model.noise import Noise
from tinygpt.model.seeds import key_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Layers, width, heads, width of the MLP's inside where it has no gate: the original's sizes.
SIZES = {"tiny": (4, 256, 4, 1024), "small": (6, 384, 8, 1536)}
# What may fill the slots: all that neither goes by what comes before alone nor leaves tokens out.
SLOTS = {
    "attention": ("gqa",), "depth": ("all",), "head": ("linear",), "mlp": ("swiglu", "gelu", "geglu"),
    "position": ("rope", "learned", "nope"), "residual": ("plain", "postnorm", "sandwich", "deepnorm"),
}  # fmt: skip
BUCKETS = 1 << 18  # of the hash: far more than runs that are kept, so that few others share a bucket with one
LEAST = 2  # requests that have a run which is kept
FACTOR = 1_000_003  # of the rolling hash; prime, and no multiple of it is near a power of two


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What decides a router's shape, and what its classes are called."""

    labels: Annotated[tuple[str, ...], "Names of the classes, in their order."]
    model: Annotated[dict[str, Any], "Config of the blocks."] = field(default_factory=dict[str, Any])
    grams: Annotated[int, "Longest run of tokens that has a vector of its own; 0: none has."] = 0
    vectors: Annotated[int, "How many runs have one."] = 0
    lower: Annotated[bool, "Requests are read in small letters."] = False

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ConfigError("a router tells two classes or more apart, each with a name of its own")
        if self.grams < 0 or self.vectors < 0:
            raise ConfigError("'grams' and 'vectors' of a router must not be negative")


@dataclass
class BothWays(Frame):
    """A pass in which tokens read those after them, too."""

    def mask(self, cache: Any | None, window: int = 0) -> mx.array | str | None:
        return None


def size(name: str, *, vocab_size: int, context: int) -> ModelConfig:
    """The config of a preset's blocks."""
    if name not in SIZES:
        raise ConfigError(f"a router has no size '{name}'", hint=f"one of {', '.join(SIZES)}")
    layers, width, heads, _ = SIZES[name]
    return ModelConfig(
        vocab_size=vocab_size, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        max_position_embeddings=context,
    )  # fmt: skip


class Encoder(nn.Module):
    """tokens (B, L), segments (B, L) -> logits (B, C). B requests, L tokens, D width, C classes."""

    def __init__(self, config: ModelConfig, facts: Facts) -> None:
        super().__init__()
        for slot, known in SLOTS.items():
            if (named := getattr(config, slot).name) not in known:
                raise ConfigError(
                    f"a router's model.{slot} cannot be '{named}'", hint=f"one of {', '.join(known)}"
                )
        options: Any = config.attention.options
        if options.window or options.key_shift or config.second_position is not None:
            raise ConfigError(
                "a router reads all of a request, both ways: no window, no key_shift, no second_position",
                hint="leave them out",
            )
        self._config, self.facts = config, facts
        self.noise: Noise = Noise()
        self.recompute = False
        self.model = Stack(config)
        if facts.grams:
            self.gram_table = nn.Embedding(facts.vectors + 1, config.hidden_size)
            self.gram_weights = mx.zeros((facts.vectors + 1,))  # row 0 is that of all other runs
            self.gram_rows = mx.zeros((BUCKETS,), mx.int32)
            self.freeze(keys=["gram_weights", "gram_rows"], recurse=False)
        self.router_head = nn.Linear(config.hidden_size, len(facts.labels))

    @property
    def config(self) -> ModelConfig:
        """Of the blocks."""
        return self._config

    def pooled(
        self,
        tokens_BL: mx.array,
        segments_BL: mx.array,
        *,
        training: bool = False,
        keys: mx.array | None = None,
    ) -> mx.array:
        """(B, D): what a request's tokens and its runs of tokens say. In training there is noise,
        drawn from `keys` (B, 2), and blocks may be computed again."""
        frame = BothWays(length=tokens_BL.shape[1], segments=segments_BL)
        frame.recompute = self.recompute and training
        frame.noise = self.noise.of(keys) if self.noise and keys is not None else None
        h_BLD = self.model(tokens_BL, [None] * len(self.model.layers), frame)
        real_BL = (segments_BL > 0).astype(h_BLD.dtype)
        pooled_BD = ops.rms_norm(_mean(h_BLD, real_BL), None, self._config.norm_eps)
        if "gram_table" in self:
            g_BD = ops.rms_norm(self.of_runs(tokens_BL, real_BL), None, self._config.norm_eps)
            pooled_BD = pooled_BD + (g_BD if frame.noise is None else _drop(frame.noise, g_BD))
        return pooled_BD

    def __call__(self, tokens_BL: mx.array, segments_BL: mx.array, **how: Any) -> mx.array:
        return self.router_head(self.pooled(tokens_BL, segments_BL, **how))

    def of_runs(self, tokens_BL: mx.array, real_BL: mx.array) -> mx.array:
        """(B, D): the weighted sum of the vectors of all runs of 1 to `grams` tokens inside a request."""
        g_BD = mx.array(0.0)
        for at_BL, inside_BL in runs(tokens_BL, real_BL, self.facts.grams):
            row_BL = self.gram_rows[at_BL]
            w_BL = self.gram_weights[row_BL] * inside_BL
            g_BD = g_BD + (self.gram_table(row_BL) * w_BL[..., None]).sum(axis=1)
        return g_BD


def runs(tokens_BL: mx.array, real_BL: mx.array, grams: int) -> Iterator[tuple[mx.array, mx.array]]:
    """For each length n the buckets (B, L - n + 1) of all runs of n tokens, and 1 where all of a run are of
    the request."""
    hashed_BL, inside_BL = mx.zeros(tokens_BL.shape, mx.uint32), mx.ones(real_BL.shape, real_BL.dtype)
    for n in range(1, min(grams, tokens_BL.shape[1]) + 1):
        length = tokens_BL.shape[1] - n + 1
        hashed_BL = hashed_BL[:, :length] * FACTOR + tokens_BL[:, n - 1 :].astype(mx.uint32) + n
        inside_BL = inside_BL[:, :length] * real_BL[:, n - 1 :]
        yield (hashed_BL ^ (hashed_BL >> 15)) % BUCKETS, inside_BL


@dataclass(frozen=True)
class Runs:
    """Runs of tokens that get a vector: their buckets, and what each weighs."""

    buckets: NDArray[np.int64]
    weights: NDArray[np.float32]


def known(ids: Sequence[list[int]], grams: int, most: int) -> Runs:
    """The runs of 1 to `grams` tokens that LEAST or more of these requests have, the `most` commonest."""
    import numpy as np

    counts = np.zeros(BUCKETS, np.int64)
    for one in ids if grams else ():
        tokens_BL = mx.array([one])
        found = [np.array(at).ravel() for at, _ in runs(tokens_BL, mx.ones(tokens_BL.shape), grams)]
        counts[np.unique(np.concatenate(found))] += 1
    order = np.argsort(-counts, kind="stable")[:most]
    kept = order[counts[order] >= LEAST]
    return Runs(kept, np.log1p(len(ids) / counts[kept]).astype(np.float32))


def build(config: ModelConfig, facts: Facts, seed: int = 0, kept: Runs | None = None) -> Encoder:
    """A fresh encoder: blocks as a model has them, vectors of runs normal / sqrt(D), the head 0. `kept` are
    the runs that have a vector."""
    import numpy as np

    made = Encoder(config, facts)
    made.model.update(initialize(LM(config), seed).model.parameters())
    held: dict[str, mx.array] = dict(tree_flatten(made.parameters()))
    fresh = [(name, mx.zeros(was.shape)) for name, was in held.items() if name.startswith("router_head.")]
    if "gram_table" in made:
        shape = (facts.vectors + 1, config.hidden_size)
        noise = mx.random.normal(shape, key=key_of(seed, "router", "gram_table"))
        fresh.append(("gram_table.weight", noise / math.sqrt(shape[1])))
    if "gram_table" in made and kept is not None:
        rows, weights = np.zeros(BUCKETS, np.int32), np.zeros(facts.vectors + 1, np.float32)
        rows[kept.buckets], weights[1:] = 1 + np.arange(facts.vectors), kept.weights
        fresh += [("gram_rows", mx.array(rows)), ("gram_weights", mx.array(weights))]
    made.update(tree_unflatten(fresh))
    mx.eval(made.parameters())
    return made


def _mean(x_BLD: mx.array, real_BL: mx.array) -> mx.array:
    total_B1 = mx.maximum(real_BL.sum(axis=1, keepdims=True), 1.0)
    return (x_BLD * real_BL[..., None]).sum(axis=1) / total_B1


def _drop(noise: Noise, x_BD: mx.array) -> mx.array:
    return noise.drop(x_BD[:, None], "router.grams")[:, 0]
