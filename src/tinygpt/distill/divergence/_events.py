"""What a distillation loss compares: two distributions over the same events, at each place.

Events are the tokens of the vocabulary; or, where only a teacher's likeliest tokens are known, these and one
more event for all the others. A loss is a pure function `losses(student, teacher, config)` of
log-probabilities (..., E), float32, and gives one number for each place (...). Gradients go to the student's
alone: what comes from the teacher has none.
"""

from __future__ import annotations

from tinygpt.core.backend import mx

NEVER = -1e4  # the log-probability of what cannot be; -inf times 0 is no number
LEAST = 1e-9  # of a bucket's probability: below that rounding is all there is


def log_softmax(logits: mx.array, temperature: float = 1.0) -> mx.array:
    """Log-probabilities in float32 of logits that are divided by a temperature."""
    scaled = logits.astype(mx.float32)
    scaled = scaled if temperature == 1.0 else scaled / temperature
    return scaled - mx.logsumexp(scaled, axis=-1, keepdims=True)


def rest(log_p: mx.array) -> mx.array:
    """Log of the probability (...) that these events (..., E) leave to others."""
    return mx.log(mx.maximum(-mx.expm1(mx.logsumexp(log_p, axis=-1)), LEAST))


def kl(p: mx.array, q: mx.array) -> mx.array:
    """KL(p || q) = sum_e p_e (log p_e - log q_e) of log-probabilities (..., E)."""
    return (mx.exp(p) * (p - q)).sum(axis=-1)


def mixture(p: mx.array, q: mx.array, share: float) -> mx.array:
    """Log-probabilities of `share` p + (1 - share) q, for a share above 0 and below 1."""
    return mx.logaddexp(p + mx.log(mx.array(share)), q + mx.log(mx.array(1 - share)))
