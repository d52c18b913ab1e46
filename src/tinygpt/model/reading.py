"""What attention reads: new queries and keys get their positions, the cache adds what came before.

Every attention that keeps keys goes through here, so a cache that arranges its tokens in another way, as
attention sinks do, needs no word in the attention itself. Shapes: B batch, H query heads, G key/value heads,
L new tokens, S tokens read, K head width, V width of values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model.frame import Frame
from tinygpt.model.ops import Mask


@dataclass(frozen=True)
class Read:
    """Turned queries (B, H, L, K), keys (B, G, S, K), values (B, G, S, V), and what a query may read."""

    q: mx.array
    k: mx.array
    v: mx.array
    mask: Mask
    bias: mx.array | None


def read(
    q_BHLK: mx.array,
    k_BGLK: mx.array,
    v_BGLV: mx.array,
    frame: Frame,
    cache: Any | None,
    *,
    window: int = 0,
    name: str,
) -> Read:
    """Queries, keys and values of new tokens, not yet turned, and with them all that they read.

    window: only the last so many keys. name: of the attention, before its hook points; keys pass the tap
    unturned where caches keep them so."""
    arrange = getattr(cache, "arrange", None)
    late = frame.late or arrange is not None
    offset = 0 if cache is None else cache.offset
    if arrange is None:
        q_BHLK = frame.position.rotate(q_BHLK, offset, frame)
    if not late:
        k_BGLK = frame.position.rotate(k_BGLK, offset, frame)
    q_BHLK = frame.point(f"{name}.hook_q", q_BHLK)
    k_BGLK = frame.point(f"{name}.hook_k", k_BGLK)
    v_BGLV = frame.point(f"{name}.hook_v", v_BGLV)
    if arrange is not None:
        return Read(*arrange(q_BHLK, k_BGLK, v_BGLV, frame))
    mask = frame.mask(cache, window)
    if cache is not None:
        k_BGLK, v_BGLV = cache.update_and_fetch(k_BGLK, v_BGLV)
    first = getattr(cache, "first", 0)
    k_BGLK = frame.turn_late(k_BGLK, offset, first)
    return Read(q_BHLK, k_BGLK, v_BGLV, mask, frame.bias(k_BGLK.shape[2], first))
