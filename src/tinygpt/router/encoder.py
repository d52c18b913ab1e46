"""The encoder of a router: the decoder's own blocks, reading both ways, and the mean over what is no padding.

    h = blocks(tokens)      p = norm(mean_t h_t)      z = W p + b

t runs over the request's tokens, norm divides by the root mean square. Blocks read both ways, since all of a
request is there when it is read: a causal block makes its first tokens without the last, and the mean counts
them as much as the others. Padding is of segment 0, which no token of a request reads, and counts in no mean.

Paper: Vaswani et al. 2017, arXiv:1706.03762 (encoder).
Differs: blocks are the decoder's, with its positions and norms; no token stands for the whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model import ops
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.lm import LM, Stack, initialize
from tinygpt.model.noise import Noise

# Layers, width, heads, width of the MLP's inside where it has no gate: the original's sizes.
SIZES = {"tiny": (4, 256, 4, 1024), "small": (6, 384, 8, 1536)}
# What may fill the slots: all that neither goes by what comes before alone nor leaves tokens out.
SLOTS = {
    "attention": ("gqa",), "depth": ("all",), "head": ("linear",), "mlp": ("swiglu", "gelu", "geglu"),
    "position": ("rope", "learned", "nope"), "residual": ("plain", "postnorm", "sandwich", "deepnorm"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What decides a router's shape, and what its classes are called."""

    labels: Annotated[tuple[str, ...], "Names of the classes, in their order."]
    model: Annotated[dict[str, Any], "Config of the blocks."] = field(default_factory=dict[str, Any])
    lower: Annotated[bool, "Requests are read in small letters."] = False

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ConfigError("a router tells two classes or more apart, each with a name of its own")


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
        """(B, D): what a request's tokens say. In training there is noise,
        drawn from `keys` (B, 2), and blocks may be computed again."""
        frame = BothWays(length=tokens_BL.shape[1], segments=segments_BL)
        frame.recompute = self.recompute and training
        frame.noise = self.noise.of(keys) if self.noise and keys is not None else None
        h_BLD = self.model(tokens_BL, [None] * len(self.model.layers), frame)
        real_BL = (segments_BL > 0).astype(h_BLD.dtype)
        return ops.rms_norm(_mean(h_BLD, real_BL), None, self._config.norm_eps)

    def __call__(self, tokens_BL: mx.array, segments_BL: mx.array, **how: Any) -> mx.array:
        return self.router_head(self.pooled(tokens_BL, segments_BL, **how))


def build(config: ModelConfig, facts: Facts, seed: int = 0) -> Encoder:
    """A fresh encoder: blocks as a model has them, the head 0."""
    made = Encoder(config, facts)
    made.model.update(initialize(LM(config), seed).model.parameters())
    held: dict[str, mx.array] = dict(tree_flatten(made.parameters()))
    fresh = [(name, mx.zeros(was.shape)) for name, was in held.items() if name.startswith("router_head.")]
    made.update(tree_unflatten(fresh))
    mx.eval(made.parameters())
    return made


def _mean(x_BLD: mx.array, real_BL: mx.array) -> mx.array:
    total_B1 = mx.maximum(real_BL.sum(axis=1, keepdims=True), 1.0)
    return (x_BLD * real_BL[..., None]).sum(axis=1) / total_B1
