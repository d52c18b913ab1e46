"""Hidden states: what a layer of the student carries is, through a learned matrix, like the teacher's.

    loss = 1/n sum_(i,j) |W_i s_i - t_j|^2 / |t_j|^2

at each place, for n pairs of layers: s_i is what leaves block i of the student, t_j what leaves block j of
the teacher. The matrix W_i (teacher's width, student's width) learns with the student and is not part of it;
where both are equally wide there is none. The student meets more than the last layer's answer, which helps
most where it is deep and thin, and early in training.

Paper: Romero et al. 2015 (FitNets), arXiv:1412.6550, eq. 3; many layers at once, and the even map: Jiao et
al. 2020 (TinyBERT), arXiv:1909.10351, eq. 8.
Differs: it is a term of the one loss, not a first stage; the error is a share of the teacher's own size, so
that a weight means the same in every model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.distill.hint._points import Projections, Seen, Shapes, need, pairs, spread


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which layers, and what lies between them."""

    layers: Annotated[
        tuple[str, ...],
        "Pairs student:teacher of layers, counted from 0; not given: all of the student's, evenly spread.",
    ] = ()
    project: Annotated[bool, "Learn a matrix between states of one width too."] = False


class Hidden:
    """See Hint. W: width of a stream."""

    def __init__(self, config: Config, student: Shapes, teacher: Shapes, seed: int) -> None:
        self.pairs = pairs(config.layers, student, teacher, spread(student, teacher))
        names = [(_point(i), _point(j)) for i, j in self.pairs]
        widths = {
            i: (student[need(a, student, "student")][-1], teacher[need(b, teacher, "teacher")][-1])
            for (i, _), (a, b) in zip(self.pairs, names, strict=True)
        }
        learned = {i: pair for i, pair in widths.items() if config.project or pair[0] != pair[1]}
        self.projections = Projections(learned, seed) if learned else None
        self.points = frozenset(a for a, _ in names), frozenset(b for _, b in names)

    def losses(self, student: Seen, teacher: Seen, segments_BL: mx.array) -> mx.array:
        """(B, L): the mean over pairs."""
        total = mx.zeros(segments_BL.shape)
        for i, j in self.pairs:
            s_BLW = student[_point(i)]
            made_BLW = s_BLW if self.projections is None else self.projections(i, s_BLW)
            t_BLW = mx.stop_gradient(teacher[_point(j)]).astype(mx.float32)
            far_BL = mx.square(made_BLW.astype(mx.float32) - t_BLW).sum(axis=-1)
            total = total + far_BL / mx.maximum(mx.square(t_BLW).sum(axis=-1), 1e-6)
        return total / len(self.pairs)


def _point(layer: int) -> str:
    return f"blocks.{layer}.hook_resid_post"


def build(config: Config, student: Shapes, teacher: Shapes, *, seed: int = 0) -> Hidden:
    """The hint between two models with these points; its matrices are drawn from `seed`."""
    return Hidden(config, student, teacher, seed)
