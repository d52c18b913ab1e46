"""Prefill and decode steps: which caches hold the text so far, and how one step is run.

Two ways to step, equal up to rounding (tests/equal/test_decode.py):

- as it comes: the model's own caches, any architecture, any number of rows;
- one compiled step, for plain KV caches: the buffers have a fixed length and the position is an array, so one
  trace serves many tokens and Python's work disappears.

Shapes: B rows, L tokens, S cache slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core import backend
from tinygpt.core.backend import mx
from tinygpt.model.cache import quantized
from tinygpt.model.cache import sinks as sink_caches
from tinygpt.model.cache.full import KVCache
from tinygpt.model.cache.peers import in_order

if TYPE_CHECKING:
    from tinygpt.model.lm import LM

SETTLED = 4  # steps with the same rows after which a step is compiled: about what that costs
TRACES = 64  # compiled steps that are kept
BLOCK = 64  # slots that fixed buffers grow by, or a quarter of their size: each size is a new trace


class Decoder:
    """Caches of a batch of texts that grow token by token: B rows, padded at the left by `pads`.

    Rows come with `extend` and go with `filter`, while the others write on."""

    def __init__(
        self,
        model: LM,
        pads: Sequence[int],
        step: Callable[..., Any],
        *,
        sinks: int = 0,
        window: int = 0,
        spare: int = 0,
        kv_bits: int = 0,
    ) -> None:
        """`step` is what `fixed_step` gives for this model. window: remember the first `sinks` tokens and the
        last `window`; 0: all. spare: how many last tokens `rewind` can forget at least, where that costs
        memory. kv_bits: of keys and values that are no longer new; 0: as they come."""
        self.model, self._fixed_step, self.pads = model, step, list(pads)
        padding = self.pads if any(self.pads) else None
        self.cache: list[Any]
        if window:
            self.cache = sink_caches.make(model, sinks, window, padding)
        else:
            self.cache = quantized.make(model, kv_bits, padding) if kv_bits else model.make_cache(padding)
        if len(self.pads) > 1:
            self._widen(len(self.pads))
        self.keep_spare(spare)
        self.places = 0  # learned positions, where tokens beyond them may stand at the last; 0: they may not
        self.fixed: FixedStep | None = None
        self._n_steps = 0  # with these rows

    def keep_spare(self, n: int) -> None:
        """From here on, hold so many tokens more than are needed, for `rewind`."""
        for layer in self.cache:
            if hasattr(layer, "spare"):
                layer.spare = n

    def read(self, tokens_BL: mx.array, last: int = 0, **how: Any) -> mx.array:
        """Append tokens to all rows; logits (B, L, V) after each of them, or after the last so many. how:
        what else the model is told, as a tap."""
        self.thaw()
        logits_BLV = self.model(tokens_BL, self.cache, last=last, **self._stand(tokens_BL.shape[1]), **how)
        mx.eval([layer.state for layer in self.cache])
        return logits_BLV

    def step(self, token_B: mx.array) -> mx.array:
        """Append one token to each row; logits (B, V) of the next."""
        self._n_steps += 1
        if self.fixed is None and self._may_fix():
            self.fixed = FixedStep(self._fixed_step, self.cache, self.pads)
        if self.fixed is not None:
            return self.fixed(token_B)
        return self.model(token_B[:, None], self.cache, **self._stand(1))[:, 0]

    def _stand(self, length: int) -> dict[str, mx.array]:
        """Where so many new tokens stand, if that is to be said."""
        if not self.places:
            return {}
        offset = self.cache[0].offset
        start = mx.full((len(self.pads), 1), offset) if isinstance(offset, int) else offset[:, None]
        return {"positions": mx.minimum(start + mx.arange(length), self.places - 1)}

    def _may_fix(self) -> bool:
        if not backend.compile_works() or (len(self.pads) > 1 and self._n_steps <= SETTLED):
            return False
        plain = all(type(c) is KVCache and not c.tailed for c in self.cache)
        # Learned positions check their range on the host, which a trace cannot do.
        return plain and self.model.config.position.name != "learned"

    def extend(self, other: Decoder) -> None:
        """Take in the rows of another decoder of this model, after the own ones. The other is used up."""
        width = max(self.width, other.width)
        pads = [pad + width - one.width for one in (self, other) for pad in one.pads]
        for one in (self, other):
            one._loosen()
        for mine, theirs in zip(self.cache, other.cache, strict=True):
            mine.extend(theirs)
        self.pads, self._n_steps = pads, 0

    def filter(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order; one may come twice."""
        self.thaw()
        self._widen()
        index = mx.array(list(rows))
        for layer in self.cache:
            layer.filter(index)
        self.pads, self._n_steps = [self.pads[row] for row in rows], 0
        self._tighten()

    def rewind(self, n_B: Sequence[int]) -> None:
        """Forget the last tokens of each row, so many of each; see `forgettable`."""
        self.thaw()
        if max(n_B) > self.forgettable:
            raise ValueError(f"these caches cannot forget their last {max(n_B)} tokens")
        for layer in self.cache:
            _rewind(layer, n_B)
        self.pads = [pad + n - min(n_B) for pad, n in zip(self.pads, n_B, strict=True)]

    @property
    def forgettable(self) -> int:
        """How many of its last tokens any row can forget."""
        if self.fixed is not None:
            return self.fixed.held
        return min(map(_forgettable, self.cache))

    @property
    def width(self) -> int:
        """Places of a row that hold a token or padding."""
        if self.fixed is not None:
            return self.fixed.held
        return getattr(self.cache[0], "held", 0)  # caches of mlx-lm keep their padding themselves

    def held(self, row: int) -> int:
        """Tokens of a row that were read."""
        if self.fixed is not None or hasattr(self.cache[0], "held"):
            return self.width - self.pads[row]
        for layer in self.cache:
            offset = getattr(layer, "offset", None)
            if offset is not None:
                return offset if isinstance(offset, int) else int(offset[row].item())
        return -1  # nobody counts

    def thaw(self) -> None:
        """Let the caches have what the compiled step holds, and be ready for several tokens at once."""
        if self.fixed is not None:
            self.fixed.give_back(self.cache)
            self.fixed = None
        for layer in self.cache:
            in_order(layer)

    def _loosen(self) -> None:
        """Bring caches into the form of a batch."""
        self.thaw()
        self._widen()
        for layer in self.cache:
            if hasattr(layer, "left_padding") and layer.left_padding is None:
                layer.left_padding = mx.array(self.pads)

    def _widen(self, rows: int = 1) -> None:
        """Have caches that rows can join and leave: mlx-lm's of a single text become those of a batch."""
        for i, layer in enumerate(self.cache):
            if not hasattr(layer, "left_padding"):
                self.cache[i] = layer.merge([layer] * rows)

    def _tighten(self) -> None:
        """Drop padding that all rows have, and forget of it where none is left: masks cost time."""
        least = min(self.pads)
        ours = all(hasattr(layer, "crop") for layer in self.cache)  # mlx-lm's do it themselves
        if ours and least and (least >= BLOCK or len(self.pads) == 1):
            for layer in self.cache:
                layer.crop(least)
            self.pads = [pad - least for pad in self.pads]
        if ours and not any(self.pads):
            for layer in self.cache:
                layer.left_padding = None


def _forgettable(layer: Any) -> int:
    """How many of the last tokens a cache, ours or mlx-lm's, can forget."""
    if hasattr(layer, "forgettable"):
        return layer.forgettable
    if hasattr(layer, "caches"):
        return min(map(_forgettable, layer.caches))
    return layer.size() if layer.is_trimmable() else 0


def _rewind(layer: Any, n_B: Sequence[int]) -> None:
    if hasattr(layer, "rewind"):
        layer.rewind(n_B)
    elif hasattr(layer, "caches"):
        for one in layer.caches:
            _rewind(one, n_B)
    else:
        layer.trim(min(n_B))
        if max(n_B) > min(n_B):
            shift = [n - min(n_B) for n in n_B]
            layer.prepare(lengths=[-n for n in shift], right_padding=shift)
            layer.finalize()


class _Slots:
    """One layer's cache in the compiled step: fixed buffers written at `held`; a mask hides the rest."""

    def __init__(
        self, keys: mx.array, values: mx.array, at: mx.array, offset_B: mx.array, mask: mx.array
    ) -> None:
        self.keys, self.values, self.held, self.offset, self._mask = keys, values, at, offset_B, mask

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.keys = mx.slice_update(self.keys, keys, self.held, (2,))
        self.values = mx.slice_update(self.values, values, self.held, (2,))
        return self.keys, self.values

    def make_mask(self, length: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        return self._mask


class FixedStep:
    """The compiled step with the buffers it works on; continues what `cache` holds of rows padded so."""

    def __init__(self, step: Callable[..., Any], cache: Sequence[KVCache], pads: Sequence[int]) -> None:
        self.held = cache[0].held
        self.at, self.pads_B = mx.array([self.held]), mx.array(list(pads))
        self.buffers = [array for layer in cache for array in layer.state]
        self._step = step

    def __call__(self, token_B: mx.array) -> mx.array:
        if self.held == self.buffers[0].shape[2]:
            self._grow()
        logits_BV, self.at, *self.buffers = self._step(token_B, self.at, self.pads_B, *self.buffers)
        self.held += 1
        return logits_BV

    def give_back(self, cache: Sequence[KVCache]) -> None:
        """Hand the buffers over to the caches."""
        for i, layer in enumerate(cache):
            layer.keys, layer.values = self.buffers[2 * i], self.buffers[2 * i + 1]
            layer.held = self.held

    def _grow(self) -> None:
        """More slots: to a multiple of BLOCK, so that different prompts share traces."""
        size = -(-(self.held + max(1, self.held // 4)) // BLOCK) * BLOCK
        for i, x in enumerate(self.buffers):
            room = mx.zeros((*x.shape[:2], size - self.held, x.shape[3]), x.dtype)
            self.buffers[i] = mx.concatenate([x, room], axis=2)


def fixed_step(model: LM) -> Callable[..., Any]:
    """A model's compiled step: (token, at, pads, *buffers) -> (logits, at + 1, *buffers). Make it once a
    model."""

    def step(token_B: mx.array, at: mx.array, pads_B: mx.array, *buffers: mx.array) -> tuple[mx.array, ...]:
        places = mx.arange(buffers[0].shape[2])
        mask = ((places <= at) & (places >= pads_B[:, None]))[:, None, None]
        cache = [_Slots(k, v, at, at - pads_B, mask) for k, v in zip(buffers[::2], buffers[1::2])]
        logits_BV = model(token_B[:, None], cache)[:, 0]
        return (logits_BV, at + 1, *(x for layer in cache for x in (layer.keys, layer.values)))

    # The weights are inputs, not constants of the trace: they may change between answers, as while training.
    return backend.compile(step, max_traces=TRACES, inputs=model.state)
