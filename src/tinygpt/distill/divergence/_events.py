"""What a distillation loss compares: two distributions over the same events, at each place.

Events are the tokens of the vocabulary; or, where only a teacher's likeliest tokens are known, these and one
more event for all the others. A loss is a pure function `losses(student, teacher, config)` of
log-probabilities (..., E), float32, and gives one number for each place (...). Gradients go to the student's
alone: what comes from the teacher has none.

On CPUs what all of them are made of has gradients written by hand: an exp that two kernels share is not fused
into either, and costs twenty times as much (see model/_blocked.py). That is why each is spelled differently.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import has_cpu_forms, mx
from tinygpt.model._blocked import exp_minus, fused

LEAST = 1e-9  # of a bucket's probability: below that rounding is all there is


def log_softmax(logits: mx.array, temperature: float = 1.0) -> mx.array:
    """Log-probabilities in float32 of logits that are divided by a temperature."""
    scaled = logits.astype(mx.float32)
    scaled = scaled if temperature == 1.0 else scaled / temperature
    return _log_softmax_cpu(scaled) if has_cpu_forms() else scaled - mx.logsumexp(scaled, -1, keepdims=True)


def log_p_at(logits: mx.array, ids: mx.array, temperature: float = 1.0) -> mx.array:
    """The same (..., K) of some ids alone, which differ from each other at each place."""
    scaled = logits.astype(mx.float32)
    scaled = scaled if temperature == 1.0 else scaled / temperature
    if has_cpu_forms():
        return _log_p_at_cpu(scaled, ids)[0]
    return mx.take_along_axis(scaled, ids, axis=-1) - mx.logsumexp(scaled, axis=-1, keepdims=True)


def rest(log_p: mx.array) -> mx.array:
    """Log of the probability (...) that these events (..., E) leave to others."""
    return mx.log(mx.maximum(-mx.expm1(mx.logsumexp(log_p, axis=-1)), LEAST))


def kl(p: mx.array, q: mx.array) -> mx.array:
    """KL(p || q) = sum_e p_e (log p_e - log q_e) of log-probabilities (..., E)."""
    return _kl_cpu(p, q) if has_cpu_forms() else (mx.exp(p) * (p - q)).sum(axis=-1)


def mixture(p: mx.array, q: mx.array, share: float) -> mx.array:
    """Log-probabilities of `share` p + (1 - share) q, for a share above 0 and below 1."""
    logs = mx.log(mx.array([share, 1 - share]))
    return _mixture_cpu(p, q, logs) if has_cpu_forms() else mx.logaddexp(p + logs[0], q + logs[1])


# --- the same for CPUs ------------------------------------------------------------------------------------


@fused
def _less_two(x: mx.array, m: mx.array, log_total: mx.array) -> mx.array:
    return -(m - x + log_total)  # not x - m - ..., which the sum's kernel has


@fused
def _less_softmax(d: mx.array, log_p: mx.array, total: mx.array) -> mx.array:
    return d - mx.exp(log_p - 0.0) * total


@mx.custom_function
def _log_softmax_cpu(x: mx.array) -> mx.array:
    m = x.max(axis=-1, keepdims=True)
    return _less_two(x, m, mx.log(exp_minus(x, m).sum(axis=-1))[..., None])


@_log_softmax_cpu.vjp
def _(_x: Any, d: mx.array, log_p: mx.array) -> mx.array:
    return _less_softmax(d, log_p, d.sum(axis=-1)[..., None])


@fused
def _softmax_times(x: mx.array, m: mx.array, d: mx.array) -> mx.array:
    return mx.exp(x - m) * d


@mx.custom_function
def _log_p_at_cpu(x: mx.array, ids: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    m = x.max(axis=-1, keepdims=True)
    total = exp_minus(x, m).sum(axis=-1)
    return mx.take_along_axis(x, ids, axis=-1) - m - mx.log(total)[..., None], m, total


@_log_p_at_cpu.vjp
def _(primals: Any, ds: Any, found: Any) -> Any:
    (x, ids), d, (_, m, total) = primals, ds[0], found
    full = _softmax_times(x, m, (-d.sum(axis=-1) / total)[..., None])
    picked = mx.take_along_axis(full, ids, axis=-1) + d
    return mx.put_along_axis(full, ids, picked, axis=-1), mx.zeros_like(ids)


@fused
def _weighted_gap(p: mx.array, q: mx.array) -> mx.array:
    return mx.exp(p) * (p - q)


@fused
def _gap_of_first(p: mx.array, q: mx.array, d: mx.array) -> mx.array:
    return mx.exp(p + 0.0) * (p + 1 - q) * d


@fused
def _gap_of_second(p: mx.array, d: mx.array) -> mx.array:
    return mx.exp(p * 1.0) * -d


@mx.custom_function
def _kl_cpu(p: mx.array, q: mx.array) -> mx.array:
    return _weighted_gap(p, q).sum(axis=-1)


@_kl_cpu.vjp
def _(primals: Any, d: mx.array, _found: Any) -> Any:
    p, q = primals
    return _gap_of_first(p, q, d[..., None]), _gap_of_second(p, d[..., None])


@fused
def _added(p: mx.array, q: mx.array, log_p: mx.array, log_q: mx.array) -> mx.array:
    a, b = p + log_p, q + log_q
    m = mx.maximum(a, b)
    return m + mx.log(mx.exp(a - m) + mx.exp(b - m))


@fused
def _share_of(p: mx.array, log_share: mx.array, m: mx.array, d: mx.array) -> mx.array:
    return mx.exp(p + log_share - m) * d


@mx.custom_function
def _mixture_cpu(p: mx.array, q: mx.array, logs: mx.array) -> mx.array:
    return _added(p, q, logs[0], logs[1])


@_mixture_cpu.vjp
def _(primals: Any, d: mx.array, m: mx.array) -> Any:
    p, q, logs = primals
    return _share_of(p, logs[0], m, d), _share_of(q, logs[1], m, d), mx.zeros_like(logs)
