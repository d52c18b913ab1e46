"""Mixture of Depths: a block computes the tokens that its router chooses, the others pass by.

In two of three blocks a router gives each token a number `r = w x`, and in training the `capacity` share of a
row with the largest numbers goes through: gathered in order, they attend among themselves only, and `x' = x +
r f(x)`, where f is what the block adds to the stream; all others keep `x' = x`. The router learns because r
multiplies the output. Shapes never change: k = ceil(capacity L). Which tokens are the top k of a row depends
on later ones, so it cannot be known while decoding. A small predictor on x, which nothing else learns from,
is trained to foretell it, `BCE(p(x), x in top k)`, and decides alone wherever nothing is trained: in
evaluation, scoring and decoding, token by token, so that these are causal and agree. A block's cache then
holds the tokens that it computed, and a token that is not routed costs nothing in it.

Paper: Raposo et al. 2024, arXiv:2404.02258 (eq. 1; section 3.5, second method, for sampling).
Differs: two of three blocks are routed, the paper's every second one is `whole=2`; rotary angles and ALiBi go
by the tokens' true places; a sliding window counts routed tokens; packed documents share a row's k. Padding
is routed last.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.cache.routed import RoutedCache
from tinygpt.model.config import ModelConfig
from tinygpt.model.depth import all as every_token
from tinygpt.model.frame import Frame
from tinygpt.model.rows import inverse, moved

Inner = Callable[[mx.array, Frame, Any], mx.array]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of Mixture of Depths."""

    capacity: Annotated[float, "Share of a row's tokens that a routed block computes in training."] = 0.5
    whole: Annotated[
        int,
        "Every so manieth block computes all tokens, the first one too; the others are routed; 0: all are.",
    ] = 3
    predictor: Annotated[float, "Weight of the predictor's loss; only the predictor learns from it."] = 0.1
    width: Annotated[int, "Width inside the predictor; 0: an eighth of hidden_size."] = 0

    def __post_init__(self) -> None:
        if not 0 < self.capacity <= 1:
            raise ConfigError(f"depth.capacity must be above 0 and at most 1, got {self.capacity:g}")
        if self.whole < 0 or self.whole == 1:
            raise ConfigError(f"depth.whole must be 0 or at least 2, got {self.whole}")
        if self.predictor <= 0:
            raise ConfigError(f"depth.predictor must be positive, got {self.predictor:g}")
        if self.width < 0:
            raise ConfigError(f"depth.width must not be negative, got {self.width}")


class Predictor(nn.Module):
    """x (B, L, D) -> (B, L): above 0 where a token will be among the chosen ones. H inner width."""

    def __init__(self, d: int, width: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(d, width)
        self.down_proj = nn.Linear(width, 1)

    def __call__(self, x_BLD: mx.array) -> mx.array:
        hidden_BLH = mx.maximum(self.up_proj(mx.stop_gradient(x_BLD)), 0)
        return self.down_proj(hidden_BLH)[..., 0].astype(mx.float32)


class MixtureOfDepths(nn.Module):
    """x (B, L, D) -> (B, L, D). k tokens a row are computed."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        knobs: Config = config.depth.options
        self._knobs = knobs
        self.router = nn.Linear(config.hidden_size, 1, bias=False)
        self.predictor = Predictor(config.hidden_size, knobs.width or max(1, config.hidden_size // 8))

    def check(self, block: Any, position: Any) -> None:
        """Refuse what needs every token of a row, or a block that does not add to the stream."""
        refuse_replaced_stream(block, "mod")
        readers = (block.self_attn, block.attn_residual, block.mlp_residual)
        if any(getattr(reader, "reads_earlier", False) for reader in readers):
            raise ConfigError(
                "depth 'mod' leaves tokens out, and this model reads the features of the tokens before "
                "(attention.key_shift, residual 'canon')",
                hint="leave one of them out, or use depth=mod_soft",
            )
        if not getattr(block.self_attn, "reads_any", False):
            raise ConfigError(
                "depth 'mod' leaves tokens out, and this attention needs all of them",
                hint="use attention=gqa or diff, or depth=mod_soft",
            )
        if getattr(position, "late", False):
            raise ConfigError(
                "depth 'mod' leaves tokens out, and these positions turn every key as it is read",
                hint="use position=rope, or depth=mod_soft",
            )

    def make_cache(self, attention: Any) -> RoutedCache:
        """A cache of the tokens that are computed."""
        return RoutedCache(window=getattr(attention, "window", 0))

    def __call__(self, x_BLD: mx.array, block: Inner, frame: Frame, cache: Any | None) -> mx.array:
        B, L, D = x_BLD.shape
        r_BL, z_BL = self.router(x_BLD)[..., 0], self.predictor(x_BLD)
        valid_Bk = None
        if frame.terms is None:
            at_Bk, valid_Bk = self._foretold(z_BL, frame, cache)
        else:
            at_Bk = self._most(r_BL, frame)
        if cache is not None:
            cache.enter(at_Bk, valid_Bk, L)
        flat = (mx.arange(B)[:, None] * L + at_Bk).flatten()
        if frame.terms is not None:
            self._tell(frame, z_BL, flat)
        k = at_Bk.shape[1]
        if not k:
            return x_BLD
        x_ND = x_BLD.reshape(-1, D)
        origin = inverse(flat, B * L)
        x_BkD = moved(x_ND, flat, origin).reshape(B, k, D)
        added_BkD = block(x_BkD, self._inner(x_BLD, at_Bk, valid_Bk, flat, frame, cache), cache) - x_BkD
        weight_Bk = r_BL.flatten()[flat].reshape(B, k)
        if valid_Bk is not None:
            weight_Bk = mx.where(valid_Bk, weight_Bk, mx.zeros((), weight_Bk.dtype))
        added_ND = (weight_Bk[..., None] * added_BkD).reshape(-1, D)
        return (x_ND + moved(added_ND, origin, flat)).reshape(B, L, D)  # eq. 1

    def _most(self, r_BL: mx.array, frame: Frame) -> mx.array:
        """(B, k) the places of the largest r in each row, in order."""
        L = r_BL.shape[1]
        k = max(1, math.ceil(self._knobs.capacity * L - 1e-6))  # 0.55 * 100 is a little above 55 in floats
        if k == L:
            return mx.broadcast_to(mx.arange(L), r_BL.shape)
        scores_BL = mx.stop_gradient(r_BL).astype(mx.float32)
        if frame.segments is not None:
            scores_BL = mx.where(frame.segments > 0, scores_BL, -mx.inf)
        return mx.sort(mx.argpartition(-scores_BL, k - 1, axis=1)[:, :k], axis=1).astype(mx.int32)

    def _foretold(self, z_BL: mx.array, frame: Frame, cache: Any | None) -> tuple[mx.array, mx.array]:
        """Places (B, k) of the tokens that the predictor chooses, in order, and (B, k) which of them are
        such: rows with fewer are filled up. k is the most of any row, so this waits for the numbers."""
        B, L = z_BL.shape
        steps_L = mx.arange(L)
        chosen_BL = mx.stop_gradient(z_BL) > 0
        if frame.segments is not None:
            chosen_BL = chosen_BL & (frame.segments > 0)
        if cache is not None and cache.left_padding is not None:
            chosen_BL = chosen_BL & (cache.held + steps_L >= cache.left_padding[:, None])
        k = int(chosen_BL.sum(axis=1).max().item())
        if frame.tap is not None and cache is None:
            k = max(k, 1)  # so that a tap finds every point
        at_Bk = mx.argsort(mx.where(chosen_BL, steps_L, steps_L + L), axis=1)[:, :k].astype(mx.int32)
        return at_Bk, mx.take_along_axis(chosen_BL, at_Bk, axis=1)

    def _inner(
        self,
        x_BLD: mx.array,
        at_Bk: mx.array,
        valid_Bk: mx.array | None,
        flat: mx.array,
        frame: Frame,
        cache: Any | None,
    ) -> Frame:
        """The frame of the tokens that are computed. Those that only fill up belong to no document."""
        start = frame.offset[:, None] if isinstance(frame.offset, mx.array) else frame.offset
        places_Bk = at_Bk + start
        segments = None
        if cache is None and frame.segments is not None:
            segments = mx.take_along_axis(frame.segments, at_Bk, axis=1)
        if cache is None and valid_Bk is not None:
            segments = mx.where(valid_Bk, 1 if segments is None else segments, -1)
        return dataclasses.replace(
            frame,
            length=at_Bk.shape[1],
            held=0 if cache is None else cache.entries,
            places=places_Bk,
            key_places=places_Bk if cache is None else cache.places,
            positions=None,
            segments=segments,
            shared={},
            tap=None if frame.tap is None else _whole(frame.tap, x_BLD, flat),
        )

    def _tell(self, frame: Frame, z_BL: mx.array, flat: mx.array) -> None:
        """The predictor's loss, how often it is right, and the share of tokens that it would compute."""
        z_N = z_BL.flatten()
        member_N = mx.zeros(z_N.shape).at[flat].add(1.0)
        real_N = frame.real(z_N.size)
        count = mx.maximum(real_N.sum(), 1.0)
        bce_N = mx.logaddexp(z_N, mx.zeros(())) - z_N * member_N
        right_N = (z_N > 0) == (member_N > 0)
        frame.terms.add("mod_predictor", self._knobs.predictor, (bce_N * real_N).sum() / count)
        frame.terms.tell("mod_accuracy", (right_N * real_N).sum() / count)
        frame.terms.tell("mod_routed", ((z_N > 0) * real_N).sum() / count)


def _whole(tap: Any, x_BLD: mx.array, flat: mx.array) -> Any:
    """A tap that sees and changes whole rows. A token that is not computed shows as itself in the stream,
    and as zeros elsewhere."""
    B, L, _ = x_BLD.shape

    def seen(name: str, y: mx.array) -> mx.array:
        heads = y.ndim == 4  # (B, H, k, K)
        y_BkD = y.swapaxes(1, 2) if heads else y
        flat_kD = y_BkD.reshape(B * y_BkD.shape[1], -1)
        stream = name.endswith("hook_resid_mid")
        base_ND = x_BLD.reshape(B * L, -1) if stream else mx.zeros((B * L, flat_kD.shape[1]), y.dtype)
        whole = base_ND.at[flat].add(flat_kD - base_ND[flat]).reshape(B, L, *y_BkD.shape[2:])
        given = tap(name, whole.swapaxes(1, 2) if heads else whole)
        given = given.swapaxes(1, 2) if heads else given
        back = given.reshape(B * L, -1)[flat].reshape(y_BkD.shape)
        return back.swapaxes(1, 2) if heads else back

    return seen


def refuse_replaced_stream(block: Any, name: str) -> None:
    """ConfigError for residual rules that norm the stream itself: a token passed by would not be normed."""
    if getattr(block.mlp_residual, "leaves_normed", False):
        raise ConfigError(
            f"depth '{name}' weighs what a block adds to the stream, and this residual rule norms the stream",
            hint="use residual=plain",
        )


def _is_whole(knobs: Config, layer: int) -> bool:
    return bool(knobs.whole) and layer % knobs.whole == 0


def share(config: ModelConfig, layer: int) -> float:
    """The share of tokens that a block computes."""
    knobs: Config = config.depth.options
    return 1.0 if _is_whole(knobs, layer) else knobs.capacity


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The rule of one block: with `whole` 3 the blocks 1, 2, 4, 5, 7, ... are routed, counted from 0."""
    if _is_whole(config.depth.options, layer):
        return every_token.build(config, layer)
    return MixtureOfDepths(config)
