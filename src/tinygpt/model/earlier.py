"""Features of the tokens before: what short convolutions and shifted keys read.

The token i places earlier counts only inside the same document: before a text begins, before a packed
document's first token and inside padding there are zeros. While decoding, the last few features wait in the
layer's cache under the reader's name.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.model.frame import Frame


def earlier(x_BLD: mx.array, n: int, frame: Frame, cache: Any | None, name: str) -> list[mx.array]:
    """x one token earlier, two, ... n: each (B, L, D), zero where there is no such token."""
    B, L, D = x_BLD.shape
    if cache is not None and not hasattr(cache, "tail"):
        raise ConfigError(
            "this model reads earlier tokens, which this cache does not keep", hint="use model.make_cache()"
        )
    before = mx.zeros((B, n, D), x_BLD.dtype) if cache is None else cache.tail(name, x_BLD, n)
    joined = mx.concatenate([before, x_BLD], axis=1)
    found = []
    for i in range(1, n + 1):
        shifted = joined[:, n - i : n - i + L]
        here = _same_text(i, L, frame, cache)
        found.append(shifted if here is None else shifted * here.astype(x_BLD.dtype))
    return found


def _same_text(i: int, length: int, frame: Frame, cache: Any | None) -> mx.array | None:
    """(B, L, 1): whether the token i places earlier belongs to the same text; None: wherever there is one."""
    key = f"same_text.{i}"
    if key not in frame.shared:
        same = None
        if frame.segments is not None:
            ids = mx.pad(frame.segments, [(0, 0), (i, 0)], constant_values=-1)
            same = (ids[:, i:] == ids[:, : ids.shape[1] - i])[..., None]
        elif cache is not None and cache.left_padding is not None:
            at_L = mx.arange(frame.held, frame.held + length)
            same = (at_L[None] - i >= cache.left_padding[:, None])[..., None]
        frame.shared[key] = same
    return frame.shared[key]
