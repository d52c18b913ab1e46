"""What every loss between a student and its teacher promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.family import Family
from tinygpt.distill import distillation
from tinygpt.distill.distillation import Distillation
from tinygpt.distill.divergence._events import log_softmax
from tinygpt.distill.signal import LocalTeacher, Sparse
from tinygpt.model.lm import LM
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient, arrays

LOSSES = Family("tinygpt.distill.divergence", verb="losses")
# Other settings than the usual ones.
MORE: dict[str, tuple[dict[str, Any], ...]] = {
    "jsd": ({"beta": 0.1}, {"beta": 0.9}),
    "skew_kl": ({"side": "reverse"}, {"alpha": 0.0}, {"side": "reverse", "alpha": 0.4}),
    "top_k": ({"k": 3}, {"k": 1}, {"k": 500}),
}
CASES = [(name, how) for name in LOSSES.names() for how in ({}, *MORE.get(name, ()))]
# Not 0 where the two agree, as they compare with a token, not with a distribution.
LABELS = ("hard",)


def options(name: str, how: dict[str, Any]) -> Any:
    config = LOSSES.config(name)
    return config(**how) if config is not None else None


def log_p(seed: int, shape: tuple[int, ...] = (5, 17), spread: float = 2.0) -> np.ndarray:
    z = np.random.default_rng(seed).normal(0, spread, shape)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def losses(name: str, how: dict[str, Any], student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    given = (mx.array(x.astype(np.float32)) for x in (student, teacher))
    return np.array(LOSSES.load(name).losses(*given, options(name, how)), np.float64)


# The papers' formulas in float64: s and t are log-probabilities of the student and of the teacher.


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (np.exp(p) * (p - q)).sum(-1)


def jsd(s: np.ndarray, t: np.ndarray, beta: float = 0.5) -> np.ndarray:
    m = np.log(beta * np.exp(t) + (1 - beta) * np.exp(s))
    return beta * kl(t, m) + (1 - beta) * kl(s, m)


def skew(s: np.ndarray, t: np.ndarray, side: str = "forward", alpha: float = 0.1) -> np.ndarray:
    p, q = (t, s) if side == "forward" else (s, t)
    return kl(p, np.log(alpha * np.exp(p) + (1 - alpha) * np.exp(q)))


def top_k(s: np.ndarray, t: np.ndarray, k: int = 64) -> np.ndarray:
    found = []
    for a, b in zip(np.exp(s), np.exp(t), strict=True):
        order = np.argsort(-b)
        keep, others = order[:k], order[k:]
        total = (b[keep] * np.log(b[keep] / a[keep])).sum()
        if len(others):
            total += b[others].sum() * np.log(b[others].sum() / a[others].sum())
        found.append(total)
    return np.array(found)


def uld(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.abs(np.sort(np.exp(t))[:, ::-1] - np.sort(np.exp(s))[:, ::-1]).sum(-1)


REFERENCE: dict[str, Any] = {
    "forward_kl": lambda s, t: kl(t, s),
    "reverse_kl": lambda s, t: kl(s, t),
    "jsd": jsd, "skew_kl": skew, "top_k": top_k, "uld": uld,
    "total_variation": lambda s, t: 0.5 * np.abs(np.exp(t) - np.exp(s)).sum(-1),
    "hard": lambda s, t: -np.take_along_axis(s, t.argmax(-1)[:, None], -1)[:, 0],
}  # fmt: skip


@pytest.mark.parametrize(("name", "how"), CASES)
def test_equals_the_formula(name: str, how: dict[str, Any]) -> None:
    for seed in range(3):
        student, teacher = log_p(seed), log_p(seed + 100, spread=1 + 3 * seed)
        found = losses(name, how, student, teacher)
        np.testing.assert_allclose(found, REFERENCE[name](student, teacher, **how), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("name", "how"), CASES)
def test_gradients_are_those_of_finite_differences(name: str, how: dict[str, Any]) -> None:
    """Of the student's logits, against differences of the formula in float64."""
    z, teacher = np.random.default_rng(7).normal(0, 1.5, (2, 9)), log_p(8, (2, 9))

    def mean(logits: mx.array) -> mx.array:
        taught = mx.array(teacher.astype(np.float32))
        return LOSSES.load(name).losses(log_softmax(logits), taught, options(name, how)).mean()

    gradient = np.array(mx.grad(mean)(mx.array(z.astype(np.float32))))
    for place in np.ndindex(z.shape):
        ends = []
        for step in (1e-5, -1e-5):
            moved = z.copy()
            moved[place] += step
            s = moved - np.log(np.exp(moved).sum(-1, keepdims=True))
            ends.append(REFERENCE[name](s, teacher, **how).mean())
        assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=2e-5)


@pytest.mark.parametrize(("name", "how"), CASES)
def test_it_is_least_where_the_two_agree(name: str, how: dict[str, Any]) -> None:
    teacher = log_p(3)
    same, other = losses(name, how, teacher, teacher), losses(name, how, log_p(4), teacher)
    assert (same < other).all() and (name in LABELS or np.abs(same).max() < 1e-5)


@pytest.fixture
def teacher() -> LM:
    return nano.model(seed=1)


def objective(name: str, student: LM, teacher: LM, **more: Any) -> Distillation:
    return distillation.build(
        student, LocalTeacher(teacher, 64), LOSSES.load(name), distillation.Config(**more), options(name, {})
    )


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_batch_is_the_mean_of_its_rows_and_masked_places_say_nothing(name: str, teacher: LM) -> None:
    student, batch = nano.model(), nano.batch(4, 10, real=[10, 10, 7, 4], prompt=3)
    found = objective(name, student, teacher, alpha=0.7, temperature=2.0)

    def loss(batch: Any) -> float:
        return found.loss(arrays(batch))[0].item()

    rows = [batch.rows(i, i + 1) for i in range(4)]
    shares = [float(row.weights.sum()) for row in rows]
    assert len(set(shares)) > 1
    mean = sum(s * loss(row) for s, row in zip(shares, rows, strict=True)) / sum(shares)
    assert loss(batch) == pytest.approx(mean, rel=1e-5)
    silent = batch.weights == 0
    other = batch.rows(0, 4)
    other.targets[silent] = 5
    other.tokens[batch.segments == 0] = 9
    assert loss(other) == pytest.approx(loss(nano.batch(4, 10, real=[10, 10, 7, 4], prompt=3)), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES.names())
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.wide)])
def test_the_student_comes_closer_and_the_teacher_stays(name: str, compiled: bool, teacher: LM) -> None:
    before, batch = nano.flat(teacher), nano.batch(4, 10, prompt=2)
    student = nano.model(seed=2, num_hidden_layers=1)
    found = objective(name, student, teacher, alpha=1.0)
    update = Gradient(found, adamw.build(adamw.Config(weight_decay=0.0)), lambda _: 1e-2, compiled=compiled)
    figures = [update.step(batch, step)["divergence"] for step in range(1, 31)]
    assert figures[-1] < 0.6 * figures[0]
    after = nano.flat(teacher)
    assert all((before[key] == after[key]).all() for key in before)


def test_labels_alone_are_the_cross_entropy(teacher: LM) -> None:
    student, batch = nano.model(), arrays(nano.batch(3, 8, prompt=2))
    found = objective("forward_kl", student, teacher, alpha=0.0)
    loss, facts = found.loss(batch)
    assert loss.item() == pytest.approx(found.measure(batch).item(), rel=1e-6)
    assert "divergence" not in facts, "nothing was compared"
    told = found.report(batch)
    sums = {name: (value / count).item() for name, (value, count) in told.items()}
    assert sums["loss"] == pytest.approx(loss.item(), rel=1e-6) and sums["divergence"] > 0


def test_the_temperature_flattens_both_and_is_squared(teacher: LM) -> None:
    student, batch = nano.model(), arrays(nano.batch(2, 6))
    found = objective("forward_kl", student, teacher, alpha=1.0, temperature=3.0)
    z = [np.array(m(batch["tokens"]), np.float64) / 3 for m in (student, teacher)]
    s, t = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in z)
    assert found.loss(batch)[0].item() == pytest.approx(9 * kl(t, s).mean(), rel=1e-5)


def test_a_padded_vocabulary_is_read_up_to_the_shorter_one(teacher: LM) -> None:
    """151,936 rows and 152,064 rows of one tokenizer are the same tokens."""
    wide, batch = nano.model(seed=1, vocab_size=80), arrays(nano.batch(2, 6))
    student = nano.model()
    found = objective("forward_kl", student, teacher, alpha=1.0)
    found.teacher = LocalTeacher(wide, 80)
    z = [np.array(m(batch["tokens"]), np.float64)[..., :64] for m in (student, wide)]
    s, t = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in z)
    assert found.loss(batch)[0].item() == pytest.approx(kl(t, s).mean(), rel=1e-5)


def test_what_a_teacher_left_out_is_one_event() -> None:
    """Forward KL of a sparse signal is the sparse KL of the whole one; unknown places count nothing."""
    logits, teacher = np.random.default_rng(0).normal(0, 1, (2, 3, 17)), log_p(1, (2, 3, 17))
    ids = np.argsort(-teacher, -1)[..., :4]
    kept = np.take_along_axis(teacher, ids, -1)
    known = mx.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    signal = Sparse(mx.array(ids), mx.array(kept.astype(np.float32)), known, 17)
    s, t = signal.events(mx.array(logits.astype(np.float32)), 1.0)
    found = np.array(LOSSES.load("forward_kl").losses(s, t, None))
    student = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = top_k(student.reshape(-1, 17), teacher.reshape(-1, 17), 4).reshape(2, 3)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert np.array(signal.places(mx.ones((2, 3)))).tolist() == [[1, 0, 1], [1, 1, 1]]
