"""SwiGLU MLP: a gated hidden layer, `W_down (silu(W_gate x) * W_up x)`.

Three matrices instead of two; a width of 8/3 x hidden keeps the parameter count of a 4x GELU MLP.

Paper: Shazeer 2020, arXiv:2002.05202 (eq. 6).
Differs: with biases where `mlp_bias` asks for them; the paper leaves them out.
"""

from __future__ import annotations

from tinygpt.core.backend import mx, nn
from tinygpt.model import ops
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame


def default_width(hidden_size: int) -> int:
    """8/3 of the stream's width, rounded up to a multiple of 32."""
    return -(-8 * hidden_size // 3 // 32) * 32 if hidden_size >= 12 else hidden_size * 3


class SwiGLU(nn.Module):
    """x (B, L, D) -> (B, L, D)."""

    def __init__(self, config: ModelConfig, width: int = 0) -> None:
        super().__init__()
        d, m, bias = config.hidden_size, width or config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(d, m, bias=bias)
        self.up_proj = nn.Linear(d, m, bias=bias)
        self.down_proj = nn.Linear(m, d, bias=bias)

    def __call__(self, x_BLD: mx.array, frame: Frame) -> mx.array:
        return self.down_proj(ops.swiglu(self.gate_proj(x_BLD), self.up_proj(x_BLD)))


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The MLP of one layer."""
    return SwiGLU(config)
