"""Dense mixture of experts: every token passes through every expert, weighted by the router.

`y = sum_e p_e E_e(x)` with `p = softmax(W_r x)` over all E experts (SwiGLU MLPs). Smooth everywhere, so there
is nothing to balance, and E times the cost of one expert: a yardstick for the sparse mixture, not a saving.

Paper: Jacobs et al. 1991, Neural Computation 3 (eq. 1); inside a network: Eigen et al. 2013, arXiv:1312.4314.
Differs: experts are SwiGLU MLPs inside a decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.mlp import moe, swiglu

default_width = swiglu.default_width


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the dense mixture."""

    experts: Annotated[int, "Number of experts."] = 8
    width: Annotated[int, "Width inside an expert; 0: the model's intermediate_size."] = 0

    def __post_init__(self) -> None:
        if self.experts < 1 or self.width < 0:
            raise ConfigError(
                f"mlp.experts must be at least 1 and mlp.width not negative, got {self.experts}, {self.width}"
            )


class DenseMixture(nn.Module):
    """x (B, L, D) -> (B, L, D). E experts of width M."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        knobs: Config = config.mlp.options
        self.router = nn.Linear(config.hidden_size, knobs.experts, bias=False)
        self.experts = moe.Experts(knobs.experts, config.hidden_size, knobs.width or config.intermediate_size)

    def __call__(self, x_BLD: mx.array, frame: Frame) -> mx.array:
        p_BLE = mx.softmax(self.router(x_BLD).astype(mx.float32), axis=-1).astype(x_BLD.dtype)
        x_1ND = x_BLD.reshape(1, -1, x_BLD.shape[-1])
        y_END = self.experts.compute(x_1ND, lambda x, weight: x @ weight.swapaxes(-1, -2))
        p_EN1 = p_BLE.reshape(-1, p_BLE.shape[-1]).T[..., None]
        return (y_END * p_EN1).sum(axis=0).reshape(x_BLD.shape)


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The MLP of one layer."""
    moe.refuse_bias(config)
    return DenseMixture(config)
