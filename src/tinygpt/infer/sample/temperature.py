"""Temperature: divide the logits, so that below 1 the likely gets likelier and above 1 the odds even out.

`p_i ~ exp(z_i / T)`. T -> 0 is greedy (the engine then takes the argmax and draws nothing), T = 1 is the
model's own distribution.

Paper: Ackley, Hinton and Sejnowski, Cognitive Science 9, 1985 (Boltzmann machines).
Differs: nothing.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx

NEUTRAL = 1.0


def apply(logits_BV: mx.array, history: Any, value: Any) -> mx.array:
    """Logits over T."""
    return logits_BV / value
