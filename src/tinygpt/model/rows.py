"""Rows picked out of an array and put back, with gradients that pick rows too.

The gradient of `x[at]` adds rows up one by one, which on CPU costs as much as a product. Where every row is
picked at most once, its gradient is a pick by the inverse places, many times faster.

Shapes: N rows of width D; M picked ones.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx


def _laid(x_ND: mx.array, at_M: mx.array) -> mx.array:
    return mx.concatenate([x_ND, mx.zeros((1, x_ND.shape[1]), x_ND.dtype)])[at_M]


@mx.custom_function
def moved(x_ND: mx.array, at_M: mx.array, from_N: mx.array) -> mx.array:
    """(M, D): row i is x[at[i]], or zeros where at[i] is N.

    from_N says the same the other way round: row n went to from[n], or nowhere where that is M.
    """
    return _laid(x_ND, at_M)


@moved.vjp
def _(primals: Any, d_MD: mx.array, _out: Any) -> Any:
    _x_ND, at_M, from_N = primals
    return _laid(d_MD, from_N), mx.zeros_like(at_M), mx.zeros_like(from_N)


def inverse(at_M: mx.array, n: int) -> mx.array:
    """(n,) from_N of `moved` for at_M, whose places are all different."""
    m = at_M.shape[0]
    return mx.full((n,), m, mx.int32).at[at_M].add(mx.arange(m, dtype=mx.int32) - m)


class Groups:
    """Rows sorted into groups, each padded to whole blocks of T rows, so that a group's product with its own
    matrix is a few products of T rows: on CPU as fast as one large product, with shapes that never change.

    group_N: which of `n` groups each row belongs to. G blocks; P = G T places, some of them empty.
    """

    def __init__(self, group_N: mx.array, n: int) -> None:
        rows = group_N.shape[0]
        self.block = max(1, min(128, rows // (8 * n)))  # at most an eighth of the places are empty
        blocks = (rows + n * (self.block - 1)) // self.block  # as many as may be needed
        hits_NE = (group_N[:, None] == mx.arange(n)).astype(mx.int32)
        before_NE = mx.cumsum(hits_NE, axis=0)
        size_E = (before_NE[-1] + self.block - 1) // self.block * self.block
        end_E = mx.cumsum(size_E)
        self._segments_E2 = mx.stack([end_E - size_E, end_E], axis=-1).astype(mx.uint32)
        first_G = mx.arange(blocks) * self.block
        self._group_G = mx.minimum((first_G[:, None] >= end_E).sum(axis=-1), n - 1)
        start_NE = before_NE - 1 + end_E - size_E
        self._place_N = mx.take_along_axis(start_NE, group_N[:, None], axis=-1)[:, 0]
        self._row_P = inverse(self._place_N, blocks * self.block)

    def sort(self, x_ND: mx.array) -> mx.array:
        """(P, D): the rows by group, zeros in the empty places."""
        return moved(x_ND, self._row_P, self._place_N)

    def unsort(self, y_PD: mx.array) -> mx.array:
        """(N, D): the rows where they were."""
        return moved(y_PD, self._place_N, self._row_P)

    def product(self, x_PD: mx.array, w_EMD: mx.array) -> mx.array:
        """(P, M): each row times the transposed matrix of its group."""
        return _product(x_PD, w_EMD, self._group_G, self._segments_E2)


@mx.custom_function
def _product(x_PD: mx.array, w_EMD: mx.array, group_G: mx.array, _segments_E2: mx.array) -> mx.array:
    return _by_block(x_PD, w_EMD.swapaxes(-1, -2), group_G)


@_product.vjp
def _(primals: Any, d_PM: mx.array, _out: Any) -> Any:
    x_PD, w_EMD, group_G, segments_E2 = primals
    return (
        _by_block(d_PM, w_EMD, group_G),
        mx.segmented_mm(d_PM.T, x_PD, segments_E2),
        mx.zeros_like(group_G),
        mx.zeros_like(segments_E2),
    )


def _by_block(x_PD: mx.array, w_EDM: mx.array, group_G: mx.array) -> mx.array:
    x_GTD = x_PD.reshape(group_G.shape[0], -1, x_PD.shape[-1])
    return mx.gather_mm(x_GTD, w_EDM, rhs_indices=group_G).reshape(x_PD.shape[0], -1)
