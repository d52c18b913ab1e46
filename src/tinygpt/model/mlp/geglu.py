"""GEGLU MLP: a gated hidden layer with GELU, `W_down (gelu(W_gate x) * W_up x)`.

SwiGLU with another curve: Gemma's MLP. "tanh" is the approximation of GELU that Gemma uses; "none" the exact
one, `x Phi(x)`.

Paper: Shazeer 2020, arXiv:2002.05202 (eq. 5).
Differs: with biases where `mlp_bias` asks for them; the paper leaves them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tinygpt.core.backend import mx, nn
from tinygpt.model import ops
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.mlp import swiglu

default_width = swiglu.default_width


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the GEGLU MLP."""

    approximate: Annotated[Literal["tanh", "none"], "Which form of GELU."] = "tanh"


class GEGLU(swiglu.SwiGLU):
    """x (B, L, D) -> (B, L, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.approximate = config.mlp.options.approximate == "tanh"

    def __call__(self, x_BLD: mx.array, frame: Frame) -> mx.array:
        return self.down_proj(ops.geglu(self.gate_proj(x_BLD), self.up_proj(x_BLD), self.approximate))


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The MLP of one layer."""
    return GEGLU(config)
