"""What fills each slot of a decoder, and its sizes. Names are Hugging Face's where they exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from tinygpt.core.config import Pick, resolve_picks
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family

ATTENTION = Family("tinygpt.model.attention")
MLP = Family("tinygpt.model.mlp")
POSITION = Family("tinygpt.model.position")
NORM = Family("tinygpt.model.norm")
RESIDUAL = Family("tinygpt.model.residual")
DEPTH = Family("tinygpt.model.depth")
HEAD = Family("tinygpt.model.head")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only language model. Sizes count features; 0 for a derived size means the usual rule."""

    vocab_size: Annotated[int, "Number of token ids."]
    hidden_size: Annotated[int, "Width of the residual stream."]
    num_hidden_layers: Annotated[int, "Number of blocks."]
    num_attention_heads: Annotated[int, "Number of query heads."]
    num_key_value_heads: Annotated[int, "Number of key and value heads; 0: as many as query heads."] = 0
    head_dim: Annotated[int, "Width of a head; 0: hidden_size / num_attention_heads."] = 0
    intermediate_size: Annotated[
        int, "Width inside the MLP; 0: 4x (GELU) or 8/3x rounded up to 32 (SwiGLU)."
    ] = 0
    max_position_embeddings: Annotated[int, "Longest context in tokens."] = 1024
    tie_word_embeddings: Annotated[bool, "Use the embedding matrix as the output matrix."] = True
    attention_bias: Annotated[bool, "Biases in the attention projections."] = False
    mlp_bias: Annotated[bool, "Biases in the MLP; experts have none."] = False
    norm_eps: Annotated[float, "Added to the variance before the square root."] = 1e-5
    initializer_range: Annotated[
        float, "Standard deviation of fresh weights; residual outputs get it / sqrt(2 layers)."
    ] = 0.02
    attention: Annotated[Pick, "How tokens read one another.", ATTENTION] = Pick("gqa")
    mlp: Annotated[Pick, "What each token does on its own.", MLP] = Pick("swiglu")
    position: Annotated[Pick, "How order enters.", POSITION] = Pick("rope")
    second_position: Annotated[
        Pick | None, "How order enters in second_layers, where that differs; none: as everywhere.", POSITION
    ] = None
    second_layers: Annotated[tuple[int, ...], "Layers with second_position, counted from 0."] = ()
    norm: Annotated[Pick, "How activations are kept in scale.", NORM] = Pick("rmsnorm")
    embedding_norm: Annotated[
        Pick | None, "A norm on token embeddings, before positions are added; none: as they are.", NORM
    ] = None
    residual: Annotated[Pick, "How a sublayer joins the stream.", RESIDUAL] = Pick("plain")
    depth: Annotated[Pick, "Which tokens a block computes.", DEPTH] = Pick("all")
    head: Annotated[Pick, "How hidden states become probabilities.", HEAD] = Pick("linear")
    embedding_scale: Annotated[float, "Multiplies token embeddings, before positions are added."] = 1.0
    logit_divisor: Annotated[float, "Divides the logits."] = 1.0
    logit_cap: Annotated[float, "Bounds the logits, cap * tanh(logits / cap); 0: no bound."] = 0.0
    qat_bits: Annotated[int, "Bits of the grid that the weights were trained for (--qat); 0: none."] = 0
    qat_group_size: Annotated[int, "Weights of that grid that share a scale."] = 0

    def __post_init__(self) -> None:
        resolve_picks(self)
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"'{name}' must be at least 1, got {getattr(self, name)}")
        for name in ("num_key_value_heads", "head_dim", "intermediate_size"):
            if getattr(self, name) < 0:
                raise ConfigError(f"'{name}' must not be negative, got {getattr(self, name)}")
        for name in ("norm_eps", "initializer_range", "embedding_scale", "logit_divisor"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"'{name}' must be positive, got {getattr(self, name):g}")
        if self.logit_cap < 0:
            raise ConfigError(f"'logit_cap' must not be negative, got {self.logit_cap:g}")
        self._check_second()
        heads, groups = self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads
        if heads % groups:
            raise ConfigError(f"num_key_value_heads ({groups}) must divide num_attention_heads ({heads})")
        if not self.head_dim and self.hidden_size % heads:
            raise ConfigError(
                f"hidden_size ({self.hidden_size}) is not a multiple of num_attention_heads ({heads})",
                hint="change one of them, or set head_dim",
            )
        derived = {
            "num_key_value_heads": groups,
            "head_dim": self.head_dim or self.hidden_size // heads,
            "intermediate_size": self.intermediate_size
            or MLP.load(self.mlp.name).default_width(self.hidden_size),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        complete = getattr(POSITION.load(self.position.name), "complete", None)
        if complete is not None:
            object.__setattr__(self, "position", Pick(self.position.name, complete(self)))
        if self.second_position is not None:
            object.__setattr__(self, "second_position", self.with_second().position)

    def _check_second(self) -> None:
        """Second positions and the layers that have them go together."""
        if (self.second_position is None) != (not self.second_layers):
            raise ConfigError(
                "second_position and second_layers mean nothing without each other",
                hint="give both, or neither",
            )
        check_layers("second_layers", self.second_layers, self.num_hidden_layers)

    def with_second(self) -> ModelConfig:
        """The config of a stack that has the second position in every layer."""
        assert self.second_position is not None
        return replace(self, position=self.second_position, second_position=None, second_layers=())

    @property
    def reach(self) -> int:
        """Longest text in tokens: max_position_embeddings, or more where positions stretch with the text."""
        reach = getattr(POSITION.load(self.position.name), "reach", None)
        return self.max_position_embeddings if reach is None else reach(self)


def check_layers(name: str, layers: Sequence[int], count: int) -> None:
    """ConfigError where a setting lists a layer that a stack of so many has not."""
    for layer in layers:
        if not 0 <= layer < count:
            raise ConfigError(
                f"'{name}' lists layer {layer}, and the model's {count} layers are 0 to {count - 1}"
            )
