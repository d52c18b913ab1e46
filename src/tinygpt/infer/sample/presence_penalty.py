"""Presence penalty: subtract a constant from the logit of every token the answer already holds.

`z_i - a [c_i > 0]` with c_i the count of token i in the answer. It asks for new words, however often the old
ones came.

Paper: none; defined by OpenAI's API reference (completions, presence_penalty).
Differs: nothing; like that API, and unlike mlx-lm, it does not count the prompt.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx

NEUTRAL = 0.0


def apply(logits_BV: mx.array, history: Any, value: Any) -> mx.array:
    """Logits with those of the answer's tokens lowered once."""
    return logits_BV - value * (history.counts_BV > 0)
