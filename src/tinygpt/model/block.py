"""One block of the stack: attention and MLP, each joined to the stream by the residual rule."""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.model.config import ATTENTION, MLP, NORM, RESIDUAL, ModelConfig
from tinygpt.model.frame import Frame


class Block(nn.Module):
    """x (B, L, D) -> (B, L, D). Sub-module names are those of Llama's files."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        norm = NORM.load(config.norm.name).build
        self.self_attn = ATTENTION.load(config.attention.name).build(config, layer)
        self.mlp = MLP.load(config.mlp.name).build(config, layer)
        self.input_layernorm = norm(config, config.hidden_size)
        self.post_attention_layernorm = norm(config, config.hidden_size)
        residual = RESIDUAL.load(config.residual.name).build
        self.attn_residual = residual(config, layer, "attn")
        self.mlp_residual = residual(config, layer, "mlp")
        self._name = f"blocks.{layer}"

    def make_cache(self) -> Any:
        """The attention's cache, which also keeps tails where a sublayer reads the tokens before."""
        cache = self.self_attn.make_cache()
        readers = (self.self_attn, self.attn_residual, self.mlp_residual)
        cache.tailed = any(getattr(reader, "reads_earlier", False) for reader in readers)
        return cache

    def share(self, x_BLD: mx.array, frame: Frame, cache: Any | None = None) -> None:
        """Put into `frame.shared` what the attention makes for later layers, if it does; before the block."""
        make = getattr(self.self_attn, "share", None)
        if make is not None:
            make(x_BLD, frame, cache)

    def __call__(self, x_BLD: mx.array, frame: Frame, cache: Any | None = None) -> mx.array:
        x_BLD = frame.point(f"{self._name}.hook_resid_pre", x_BLD)

        def attend(h_BLD: mx.array) -> mx.array:
            return frame.point(f"{self._name}.hook_attn_out", self.self_attn(h_BLD, frame, cache))

        def think(h_BLD: mx.array) -> mx.array:
            return frame.point(f"{self._name}.hook_mlp_out", self.mlp(h_BLD, frame))

        x_BLD = self.attn_residual(x_BLD, self.input_layernorm, attend, frame, cache)
        x_BLD = frame.point(f"{self._name}.hook_resid_mid", x_BLD)
        x_BLD = self.mlp_residual(x_BLD, self.post_attention_layernorm, think, frame, cache)
        return frame.point(f"{self._name}.hook_resid_post", x_BLD)
