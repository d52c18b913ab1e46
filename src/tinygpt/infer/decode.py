"""Prefill and decode steps: which caches hold the text so far, and how one step is run.

Two ways to step, equal up to rounding (tests/equal/test_decode.py):

- as it comes: the model's own caches, any architecture, any number of rows;
- one compiled step, for a single row and plain KV caches: the buffers have a fixed length and the position is
  an array, so one trace serves many tokens and Python's work disappears (3M parameters, CPU: 0.7 of 3 ms).

Shapes: B rows, L tokens, S cache slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core import backend
from tinygpt.core.backend import mx
from tinygpt.model.cache.full import KVCache
from tinygpt.model.cache.sinks import make

if TYPE_CHECKING:
    from tinygpt.model.lm import LM

PREFILL = 512  # tokens of a prompt computed at once: bounds the scores' memory
BLOCK = 64  # slots that fixed buffers grow by, or a quarter of their size: each size is a new trace


class Decoder:
    """Caches of a batch of prompts that grows token by token. B rows are padded at the left by `pads`."""

    def __init__(
        self,
        model: LM,
        pads: Sequence[int],
        step: Callable[..., Any],
        *,
        sinks: int = 0,
        window: int = 0,
    ) -> None:
        """`step` is what `fixed_step` gives for this model. window: remember the first `sinks` tokens and the
        last `window`; 0: all."""
        self.model, self._fixed_step = model, step
        padding = list(pads) if any(pads) else None
        self.cache: list[Any]
        self.cache = make(model, sinks, window, padding) if window else model.make_cache(padding)
        self.fixed: FixedStep | None = None
        # Learned positions check their range on the host, which a trace cannot do.
        plain = (
            all(type(layer) is KVCache and not layer.tailed for layer in self.cache)
            and model.config.position.name != "learned"
        )
        self._may_fix = len(pads) == 1 and plain and backend.compile_works()

    def prefill(self, tokens_BL: mx.array) -> mx.array:
        """Read the prompts; logits (B, V) of what follows them."""
        last = (tokens_BL.shape[1] - 1) // PREFILL * PREFILL
        for start in range(0, last, PREFILL):
            self.model(tokens_BL[:, start : start + PREFILL], self.cache, last=1)
            mx.eval([layer.state for layer in self.cache])
        return self.model(tokens_BL[:, last:], self.cache, last=1)[:, 0]

    def step(self, token_B: mx.array) -> mx.array:
        """Append one token to each row; logits (B, V) of the next."""
        if self._may_fix and self.fixed is None:
            self.fixed = FixedStep(self._fixed_step, self.cache)
        if self.fixed is not None:
            return self.fixed(token_B)
        return self.model(token_B[:, None], self.cache)[:, 0]

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        index = mx.array(list(rows))
        for layer in self.cache:
            select = getattr(layer, "select", None) or layer.filter  # mlx-lm's caches say filter
            select(index)


class _Slots:
    """One layer's cache in the compiled step: fixed buffers written at `offset`; a mask hides the rest."""

    def __init__(self, keys: mx.array, values: mx.array, at_B: mx.array, mask: mx.array) -> None:
        self.keys, self.values, self.offset, self._mask = keys, values, at_B, mask

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.keys = mx.slice_update(self.keys, keys, self.offset, (2,))
        self.values = mx.slice_update(self.values, values, self.offset, (2,))
        return self.keys, self.values

    def make_mask(self, length: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        return self._mask


class FixedStep:
    """The compiled step of one row, with the buffers it works on; continues what `cache` holds."""

    def __init__(self, step: Callable[..., Any], cache: Sequence[KVCache]) -> None:
        self.held = cache[0].held
        self.at = mx.array([self.held])
        self.buffers = [array for layer in cache for array in layer.state]
        self._step = step

    def __call__(self, token_B: mx.array) -> mx.array:
        if self.held == self.buffers[0].shape[2]:
            self._grow()
        logits_BV, self.at, *self.buffers = self._step(token_B, self.at, *self.buffers)
        self.held += 1
        return logits_BV

    def _grow(self) -> None:
        """More slots: to a multiple of BLOCK, so that different prompts share traces."""
        size = -(-(self.held + max(1, self.held // 4)) // BLOCK) * BLOCK
        for i, x in enumerate(self.buffers):
            room = mx.zeros((*x.shape[:2], size - self.held, x.shape[3]), x.dtype)
            self.buffers[i] = mx.concatenate([x, room], axis=2)


def fixed_step(model: LM) -> Callable[..., Any]:
    """A model's compiled step: (token, at, *buffers) -> (logits, at + 1, *buffers). Make it once a model."""

    def step(token_B: mx.array, at_B: mx.array, *buffers: mx.array) -> tuple[mx.array, ...]:
        mask = (mx.arange(buffers[0].shape[2]) <= at_B)[None, None, None]
        cache = [_Slots(k, v, at_B, mask) for k, v in zip(buffers[::2], buffers[1::2])]
        logits_BV = model(token_B[:, None], cache)[:, 0]
        return (logits_BV, at_B + 1, *(x for layer in cache for x in (layer.keys, layer.values)))

    # The weights are inputs, not constants of the trace: they may change between answers, as while training.
    return backend.compile(step, inputs=model.state)
