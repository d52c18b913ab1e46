"""Repetition penalty: make every token that prompt or answer already holds less likely, by a factor.

`z_i / r` where z_i > 0 and `z_i * r` where z_i < 0, for tokens seen so far; r > 1 discourages, r < 1
encourages. It also punishes what must be copied from the prompt (names, numbers), so it harms extraction and
tool calls.

Paper: Keskar et al. 2019 (CTRL), arXiv:1909.05858, section 4.1.
Differs: negative logits are multiplied (the paper divides, which would reward them), as transformers does.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx

NEUTRAL = 1.0


def apply(logits_BV: mx.array, history: Any, value: Any) -> mx.array:
    """Logits with those of seen tokens scaled."""
    scaled_BV = mx.where(logits_BV < 0, logits_BV * value, logits_BV / value)
    return mx.where(history.seen(), scaled_BV, logits_BV)
