"""Frequency penalty: subtract a constant from a token's logit for every time the answer holds it.

`z_i - a c_i` with c_i the count of token i in the answer. A word said often sinks further each time.

Paper: none; defined by OpenAI's API reference (completions, frequency_penalty).
Differs: nothing; like that API, and unlike mlx-lm, it does not count the prompt.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx

NEUTRAL = 0.0


def apply(logits_BV: mx.array, history: Any, value: Any) -> mx.array:
    """Logits lowered by the count of each token."""
    return logits_BV - value * history.counts_BV
