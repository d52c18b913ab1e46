"""What every way of merging promises, and each one's definition in numpy and float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.merge import _change, dare, linear, slerp, task_arithmetic, ties
from tinygpt.merge._change import MERGES, Parts

SHAPE = (6, 5)
Array = np.ndarray


def draw(n: int, seed: int = 0) -> list[Array]:
    """A base and n tensors around it."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=SHAPE).astype(np.float32)
    return [base, *(base + rng.normal(size=SHAPE).astype(np.float32) for _ in range(n))]


def parts(arrays: Sequence[Array], weights: Sequence[float], base: Array | None) -> Parts:
    return Parts("t", [mx.array(a) for a in arrays], weights, None if base is None else mx.array(base))


def trim(change: Array, density: float) -> Array:
    flat = change.ravel()
    keep = np.argsort(-np.abs(flat), kind="stable")[: int(density * flat.size)]
    result = np.zeros_like(flat)
    result[keep] = flat[keep]
    return result.reshape(change.shape)


def elect(changes: list[Array], w: Sequence[float], normalize: bool) -> Array:
    result = np.zeros(SHAPE)
    for at in np.ndindex(SHAPE):
        values = [c[at] for c in changes]
        sign = 1 if sum(x * v for x, v in zip(w, values, strict=True)) >= 0 else -1
        agree = [(x, v) for x, v in zip(w, values, strict=True) if np.sign(v) == sign]
        if agree:
            over = sum(x for x, _ in agree) if normalize else len(agree)
            result[at] = sum(x * v for x, v in agree) / over
    return result


def by_linear(c: linear.Config, xs: list[Array], w: Sequence[float], base: Any) -> Array:
    return sum(a * x for a, x in zip(w, xs, strict=True)) / (sum(w) if c.normalize else 1)


def by_task_arithmetic(c: task_arithmetic.Config, xs: list[Array], w: Sequence[float], base: Array) -> Array:
    total = sum(a * (x - base) for a, x in zip(w, xs, strict=True))
    return base + c.scale * total / (sum(w) if c.normalize else 1)


def by_ties(c: ties.Config, xs: list[Array], w: Sequence[float], base: Array) -> Array:
    return base + c.scale * elect([trim(x - base, c.density) for x in xs], w, c.normalize)


def by_dare(c: dare.Config, xs: list[Array], w: Sequence[float], base: Array) -> Array:
    masks = [np.array(dare._drawn(c, "t", i, SHAPE)) for i in range(len(xs))]
    kept = [m * (x - base) / c.density for m, x in zip(masks, xs, strict=True)]
    if c.then == "ties":
        return base + c.scale * elect(kept, w, c.normalize)
    return base + c.scale * sum(a * k for a, k in zip(w, kept, strict=True)) / (sum(w) if c.normalize else 1)


def by_slerp(c: Any, xs: list[Array], w: Sequence[float], base: Array | None) -> Array:
    a, b = xs if base is None else (x - base for x in xs)
    t = w[1] / sum(w)
    angle = np.arccos((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    walked = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    return walked if base is None else base + walked


DEFINITION: dict[str, Callable[..., Array]] = {
    "linear": by_linear, "task_arithmetic": by_task_arithmetic, "ties": by_ties, "dare": by_dare,
    "slerp": by_slerp,
}  # fmt: skip
BASED = {"task_arithmetic", "ties", "dare"}  # those that mean nothing without a base
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "linear": [{}, {"normalize": False}],
    "task_arithmetic": [{}, {"scale": 0.4, "normalize": True}],
    "ties": [{}, {"density": 0.7, "normalize": False, "scale": 0.5}, {"density": 1.0}],
    "dare": [{}, {"density": 0.3, "then": "ties"}, {"normalize": True, "seed": 7}],
    "slerp": [{}],
}
pytestmark = pytest.mark.parametrize("name", MERGES.names())


def merged(name: str, options: dict[str, Any], xs: list[Array], w: Sequence[float], base: Any) -> Array:
    module = MERGES.load(name)
    config = module.Config(**options)
    module.check(config, w, base is not None)
    return np.array(module.combine(config, parts(xs, w, base)))


def test_equals_its_definition(name: str) -> None:
    for options in SETTINGS[name]:
        for w in ((1.0, 1.0), (0.7, 0.3)) if name == "slerp" else ((1.0, 1.0, 1.0), (0.5, 2.0, 0.25)):
            base, *xs = draw(len(w))
            based = name in BASED
            for grew in (base,) if based else (None, base) if name == "slerp" else (None,):
                exact = [x.astype(np.float64) for x in xs]
                config = MERGES.load(name).Config(**options)
                expected = DEFINITION[name](
                    config, exact, w, None if grew is None else grew.astype(np.float64)
                )
                np.testing.assert_allclose(merged(name, options, xs, w, grew), expected, rtol=2e-5, atol=2e-5)


def test_a_model_with_itself_is_itself(name: str) -> None:
    base, x = draw(1)
    options = {"ties": {"density": 1.0}, "dare": {"density": 1.0, "normalize": True}}.get(name, {})
    options = {"normalize": True} if name == "task_arithmetic" else options
    found = merged(name, options, [x, x], (1.0, 1.0), base if name in BASED else None)
    np.testing.assert_allclose(found, x, rtol=1e-6, atol=1e-6)


def test_a_base_is_demanded_or_refused_where_it_matters(name: str) -> None:
    base, *xs = draw(2)
    if name in BASED:
        with pytest.raises(ConfigError, match=f"'{name}' adds up changes from a base, and none is given"):
            merged(name, {}, xs, (1.0, 1.0), None)
    elif name == "linear":
        with pytest.raises(ConfigError, match="a base plays no part"):
            merged(name, {}, xs, (1.0, 1.0), base)


def test_the_order_of_models_does_not_matter_where_none_is_drawn(name: str) -> None:
    base, *xs = draw(2)
    grew = base if name in BASED else None
    options = {"density": 1.0} if name == "dare" else {}
    there, back = (merged(name, options, xs[::d], (0.7, 0.3)[::d], grew) for d in (1, -1))
    np.testing.assert_allclose(there, back, rtol=1e-5, atol=1e-5)


def test_the_ends_of_an_arc(name: str) -> None:
    base, *xs = draw(2)
    if name != "slerp":
        return
    for w, end in (((1.0, 0.0), xs[0]), ((0.0, 1.0), xs[1])):
        np.testing.assert_allclose(merged(name, {}, xs, w, None), end, rtol=1e-6)
    length = np.linalg.norm(xs[0])
    turned = xs[1] * length / np.linalg.norm(xs[1])
    assert np.linalg.norm(merged(name, {}, [xs[0], turned], (1.0, 1.0), None)) == pytest.approx(
        length, rel=1e-5
    )
    opposite = merged(name, {}, [xs[0], -xs[0]], (3.0, 1.0), None)
    np.testing.assert_allclose(opposite, 0.5 * xs[0], rtol=1e-4, atol=1e-5)
    zero = merged(name, {}, [np.zeros(SHAPE, np.float32)] * 2, (1.0, 1.0), None)
    assert not zero.any()
    with pytest.raises(ConfigError, match="walks between two models, 3 were given"):
        slerp.check(slerp.Config(), (1.0, 1.0, 1.0), False)


def test_special_cases_of_ties_and_dare(name: str) -> None:
    if name not in ("ties", "dare"):
        return
    base, *xs = draw(3)
    same = [base + np.abs(x - base) for x in xs]  # all changes have one sign
    options = {"density": 1.0} if name == "ties" else {"density": 1.0, "then": "ties"}
    np.testing.assert_allclose(
        merged(name, options, same, (1.0,) * 3, base), np.mean(same, axis=0), rtol=1e-5
    )
    with pytest.raises(ConfigError, match="--density must be above 0 and at most 1, got 0"):
        MERGES.config(name)(density=0.0)
    level = np.ones(SHAPE, np.float32)  # equal magnitudes: still exactly the share that is asked for
    assert int((np.array(_change.trimmed(mx.array(level), 0.5)) != 0).sum()) == level.size // 2
    assert not np.array(_change.trimmed(mx.array(level), 0.01)).any()


def test_dare_keeps_the_expected_change(name: str) -> None:
    if name != "dare":
        return
    base, x = np.zeros((300, 300), np.float32), np.ones((300, 300), np.float32)
    found = merged(name, {"density": 0.25}, [x], (1.0,), base)
    assert set(np.unique(found)) == {0.0, 4.0} and found.mean() == pytest.approx(1.0, abs=0.03)
    again, other = (merged(name, {"density": 0.25, "seed": s}, [x], (1.0,), base) for s in (42, 43))
    assert np.array_equal(found, again) and not np.array_equal(found, other)


def test_shares_need_a_sum(name: str) -> None:
    module = MERGES.load(name)
    config = module.Config() if name == "slerp" else module.Config(normalize=True)
    for weights in ((1.0, -1.0), (0.0, 0.0)):
        with pytest.raises(ConfigError, match="takes shares, so --weights must not be negative or all zero"):
            module.check(config, weights, name in BASED)
