"""Attention relations: the student's heads relate the tokens of a text to each other as the teacher's do.

    R(a, b)_h = softmax(a_h b_h^T / sqrt(K))      loss = 1/n sum_(a,b) 1/H sum_h KL(R_teacher || R_student)

over what each token may read. With queries and keys R is the attention pattern, with values and values what
MiniLM calls the value relation. Heads of all layers are joined and cut anew into H relation heads, so the two
models may have any numbers of heads and any widths: nothing has to be projected, and nothing is learned
beside the student.

Paper: Wang et al. 2020 (MiniLM), arXiv:2002.10957, section 3, for patterns and values of the last layer; Wang
et al. 2021 (MiniLMv2), arXiv:2012.15828, section 3.1, for relation heads.
Differs: queries and keys are compared as positions have turned them; of biases, sinks, windows and bounds on
scores, which some attentions have, nothing is known: only a place's own document before it is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.distill.hint._points import Seen, Shapes, depth, need, pairs

RELATIONS = {
    "qk": ("hook_q", "hook_k"),
    "qq": ("hook_q", "hook_q"),
    "kk": ("hook_k", "hook_k"),
    "vv": ("hook_v", "hook_v"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which layers and relations, in how many heads."""

    layers: Annotated[
        tuple[str, ...], "Pairs student:teacher of layers, counted from 0; not given: the last of both."
    ] = ()
    relations: Annotated[tuple[str, ...], "Which relations: qk (the attention pattern), vv, qq, kk."] = (
        "qk",
        "vv",
    )
    heads: Annotated[int, "Relation heads; 0: the student's heads where that divides, else one."] = 0

    def __post_init__(self) -> None:
        if odd := [name for name in self.relations if name not in RELATIONS]:
            raise ConfigError(f"hint.relations has no '{odd[0]}'", hint=f"known: {', '.join(RELATIONS)}")
        if not self.relations:
            raise ConfigError("hint.relations is empty", hint="leave it out: qk,vv")
        if self.heads < 0:
            raise ConfigError(f"hint.heads must not be negative, got {self.heads}")


class Attention:
    """See Hint. H heads, L queries, S keys, K features of a head."""

    projections = None

    def __init__(self, config: Config, student: Shapes, teacher: Shapes) -> None:
        last = [(depth(student) - 1, depth(teacher) - 1)]
        self.pairs = pairs(config.layers, student, teacher, last)
        self.relations = [RELATIONS[name] for name in config.relations]
        self.points = tuple(
            frozenset(
                need(f"blocks.{pair[side]}.attn.{end}", there, who)
                for pair in self.pairs for ends in self.relations for end in ends
            )
            for side, (there, who) in enumerate(((student, "student"), (teacher, "teacher")))
        )  # fmt: skip
        self.heads = {
            (pair, ends): _heads(
                config.heads,
                *(
                    [there[f"blocks.{pair[side]}.attn.{end}"] for end in ends]
                    for side, there in enumerate((student, teacher))
                ),
            )
            for pair in self.pairs
            for ends in self.relations
        }

    def losses(self, student: Seen, teacher: Seen, segments_BL: mx.array) -> mx.array:
        """(B, L): the mean over pairs of layers, relations and heads."""
        L = segments_BL.shape[1]
        same = (segments_BL[:, :, None] == segments_BL[:, None, :]) & (mx.arange(L)[:, None] >= mx.arange(L))
        total = mx.zeros(segments_BL.shape)
        for pair in self.pairs:
            for ends in self.relations:
                heads = self.heads[pair, ends]
                log_q, log_p = (
                    _relation([seen[f"blocks.{layer}.attn.{end}"] for end in ends], heads, same)
                    for seen, layer in zip((student, teacher), pair, strict=True)
                )
                log_p = mx.stop_gradient(log_p)
                far_BHLS = mx.where(same[:, None], mx.exp(log_p) * (log_p - log_q), 0.0)
                total = total + far_BHLS.sum(axis=-1).mean(axis=1)
        return total / (len(self.pairs) * len(self.relations))


def _relation(ends: list[mx.array], heads: int, same: mx.array) -> mx.array:
    """Log of R (B, H, L, S) of two ends in float32."""
    n = max(end.shape[1] for end in ends)
    a, b = (_cut(end, n, heads) for end in ends)
    scores = (a @ b.swapaxes(-1, -2)) / math.sqrt(a.shape[-1])
    scores = mx.where(same[:, None], scores, -1e9)
    return scores - mx.logsumexp(scores, axis=-1, keepdims=True)


def _cut(x_BGLK: mx.array, n: int, heads: int) -> mx.array:
    """Heads, each as often as n heads read it, joined and cut into `heads` (B, H, L, n K / H)."""
    B, G, L, _ = x_BGLK.shape
    wide = mx.repeat(x_BGLK, n // G, axis=1) if n > G else x_BGLK
    joined = wide.astype(mx.float32).swapaxes(1, 2).reshape(B, L, heads, -1)
    return joined.swapaxes(1, 2)


def _heads(wanted: int, *sides: list[tuple[int, ...]]) -> int:
    """Relation heads of two ends (B, H, L, K) each: as many as the student has, where that divides."""
    most = [max(shape[1] for shape in ends) for ends in sides]
    widths = [n * ends[0][3] for n, ends in zip(most, sides, strict=True)]
    if wanted and any(width % wanted for width in widths):
        raise ConfigError(
            f"hint.heads={wanted} does not divide the widths of all heads together, {widths[0]} and "
            f"{widths[1]}",
            hint="leave it out, or choose a divisor",
        )
    return wanted or (1 if any(width % most[0] for width in widths) else most[0])


def build(config: Config, student: Shapes, teacher: Shapes, *, seed: int = 0) -> Attention:
    """The hint between two models with these points; nothing of it is drawn."""
    return Attention(config, student, teacher)
