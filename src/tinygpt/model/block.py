"""One block of the stack: attention and MLP, each joined to the stream by the residual rule."""

from __future__ import annotations

import dataclasses
from typing import Any

from mlx.utils import tree_flatten, tree_map, tree_unflatten

from tinygpt.core.backend import mx, nn
from tinygpt.model.config import ATTENTION, DEPTH, MLP, NORM, RESIDUAL, ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.terms import Terms


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
        self.depth = DEPTH.load(config.depth.name).build(config, layer)
        self._name = f"blocks.{layer}"

    def make_cache(self) -> Any:
        """The attention's cache, which also keeps tails where a sublayer reads the tokens before."""
        cache = self.depth.make_cache(self.self_attn)
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
        kept_B = None if frame.noise is None else frame.noise.kept(self._name)
        inner = frame if kept_B is None else dataclasses.replace(frame, kept=kept_B)
        y_BLD = self.depth(x_BLD, self._both, inner, cache)
        if kept_B is not None:
            y_BLD = mx.where(kept_B[:, None, None], y_BLD, x_BLD)
        return frame.point(f"{self._name}.hook_resid_post", y_BLD)

    def _both(self, x_BLD: mx.array, frame: Frame, cache: Any | None) -> mx.array:
        """Both sublayers, for the tokens that the depth rule chooses."""

        def dropped(h_BLD: mx.array, sublayer: str) -> mx.array:
            return h_BLD if frame.noise is None else frame.noise.drop(h_BLD, f"{self._name}.{sublayer}")

        def attend(h_BLD: mx.array) -> mx.array:
            h_BLD = dropped(self.self_attn(h_BLD, frame, cache), "attn")
            return frame.point(f"{self._name}.hook_attn_out", h_BLD)

        def think(h_BLD: mx.array) -> mx.array:
            return frame.point(f"{self._name}.hook_mlp_out", dropped(self.mlp(h_BLD, frame), "mlp"))

        x_BLD = self.attn_residual(x_BLD, self.input_layernorm, attend, frame, cache)
        x_BLD = frame.point(f"{self._name}.hook_resid_mid", x_BLD)
        return self.mlp_residual(x_BLD, self.post_attention_layernorm, think, frame, cache)


def passed(block: Block, x_BLD: mx.array, frame: Frame, cache: Any | None = None) -> mx.array:
    """block(x, frame, cache), without its activations where the frame asks for that."""
    return recomputed(block, x_BLD, frame) if frame.recompute else block(x_BLD, frame, cache)


def recomputed(block: Block, x_BLD: mx.array, frame: Frame) -> mx.array:
    """block(x, frame), of which the backward pass finds only the input and computes the rest again.

    Gradients flow through what is handed to `mx.checkpoint` and what comes out of it, so weights, values
    shared by layers and terms of the loss all go that way. Noise is drawn from keys, so the second pass meets
    the same. Source: Chen et al. 2016, arXiv:1604.06174."""
    seen: list[Frame] = []
    before = dict(frame.shared)  # later layers add to it, and the second pass must not see that

    def run(weights: Any, x_BLD: mx.array, shared: list[mx.array]) -> Any:
        held = block.trainable_parameters()
        own = dataclasses.replace(
            frame, shared=_filled(before, shared), terms=None if frame.terms is None else Terms()
        )
        block.update(weights)
        y_BLD = block(x_BLD, own)
        block.update(held)
        seen.append(own)
        return y_BLD, _values(own.shared), [] if own.terms is None else own.terms.arrays()

    names, weights = [], []
    for name, weight in tree_flatten(block.trainable_parameters()):
        names.append(name)
        weights.append(weight)
    x_BLD, *rest = _together(x_BLD, *weights, *_values(before))
    weights = tree_unflatten(list(zip(names, rest)))
    y_BLD, shared, terms = mx.checkpoint(run)(weights, x_BLD, rest[len(names) :])
    frame.shared.update(_filled(seen[0].shared, shared))
    if frame.terms is not None and seen[0].terms is not None:
        frame.terms.join(seen[0].terms, terms)
    return y_BLD


@mx.custom_function
def _together(*values: mx.array) -> tuple[mx.array, ...]:
    """The values themselves. Of their gradients none can be used before all are there: else those of the
    weights, which nothing waits for, come last, and what they are made of is kept until then."""
    return values


@_together.vjp
def _(primals: Any, gradients: Any, _out: Any) -> Any:
    return mx.depends(list(gradients), list(gradients))


def _learns(leaf: Any) -> bool:
    return isinstance(leaf, mx.array) and mx.issubdtype(leaf.dtype, mx.floating)


def _values(shared: dict[str, Any]) -> list[mx.array]:
    """What may carry gradients among the values that layers share."""
    return [leaf for _, leaf in tree_flatten(shared) if _learns(leaf)]


def _filled(shared: dict[str, Any], values: list[mx.array]) -> dict[str, Any]:
    """The same values with these in the place of the ones that `_values` lists."""
    left = iter(values)
    return tree_map(lambda leaf: next(left) if _learns(leaf) else leaf, shared)
