"""GELU MLP: the two-matrix hidden layer of GPT-2, `W_down gelu(W_up x)`.

`gelu(x) = x Phi(x)`; "tanh" is the approximation `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))` that GPT-2
uses.

Paper: Hendrycks and Gimpel 2016, arXiv:1606.08415.
Differs: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tinygpt.core.backend import mx, nn
from tinygpt.model import ops
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the GELU MLP."""

    approximate: Annotated[Literal["tanh", "none"], "Which form of GELU."] = "tanh"


def default_width(hidden_size: int) -> int:
    """Four times the stream's width."""
    return 4 * hidden_size


class GELUMLP(nn.Module):
    """x (B, L, D) -> (B, L, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, m, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.approximate = config.mlp.options.approximate == "tanh"
        self.up_proj = nn.Linear(d, m, bias=bias)
        self.down_proj = nn.Linear(m, d, bias=bias)

    def __call__(self, x_BLD: mx.array, frame: Frame) -> mx.array:
        return self.down_proj(ops.gelu(self.up_proj(x_BLD), self.approximate))


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The MLP of one layer."""
    return GELUMLP(config)
