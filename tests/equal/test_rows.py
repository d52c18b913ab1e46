"""Rows sorted into padded groups give what one product a row gives, values and gradients."""

import mlx.core as mx
import numpy as np
import pytest

from tinygpt.model import rows


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param([0, 1, 2, 3] * 64, id="even"),
        pytest.param([2] * 200 + [0] * 3, id="nearly-all-in-one"),
        pytest.param([3, 1], id="fewer-rows-than-groups"),
        pytest.param([1], id="one-row"),
    ],
)
def test_a_grouped_product_is_that_of_each_row(groups: list[int]) -> None:
    rng = np.random.default_rng(0)
    x, w, d = (
        mx.array(rng.normal(size=shape).astype(np.float32))
        for shape in ((len(groups), 6), (4, 5, 6), (len(groups), 5))
    )
    group = mx.array(rng.permutation(groups))

    def grouped(x: mx.array, w: mx.array) -> mx.array:
        sorted_rows = rows.Groups(group, 4)
        return sorted_rows.unsort(sorted_rows.product(sorted_rows.sort(x), w))

    def plain(x: mx.array, w: mx.array) -> mx.array:
        return (w[group] @ x[..., None])[..., 0]

    np.testing.assert_allclose(grouped(x, w), plain(x, w), rtol=1e-5, atol=1e-5)
    _, got = mx.vjp(grouped, [x, w], [d])
    _, want = mx.vjp(plain, [x, w], [d])
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_moved_rows_and_their_gradients() -> None:
    x, at = mx.arange(8.0).reshape(4, 2), mx.array([3, 4, 0])
    back = mx.array([2, 3, 3, 0])
    np.testing.assert_array_equal(rows.moved(x, at, back), [[6, 7], [0, 0], [0, 1]])
    _, (d, *_) = mx.vjp(rows.moved, [x, at, back], [mx.arange(6.0).reshape(3, 2)])
    np.testing.assert_array_equal(d, [[4, 5], [0, 0], [0, 0], [0, 1]])
    np.testing.assert_array_equal(rows.inverse(mx.array([2, 0]), 4), [1, 2, 0, 2])
