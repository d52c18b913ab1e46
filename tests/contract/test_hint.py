"""What every hint promises: the formula, gradients where they belong, nothing of it in the student."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

import nano
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family
from tinygpt.distill import distillation
from tinygpt.distill.distillation import Distillation
from tinygpt.distill.hint._points import shapes
from tinygpt.distill.signal import LocalTeacher
from tinygpt.model.lm import LM
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient, arrays

HINTS = Family("tinygpt.distill.hint")
LOSSES = Family("tinygpt.distill.divergence", verb="losses")
MORE: dict[str, tuple[dict[str, Any], ...]] = {
    "hidden": ({"layers": ("1:3",)}, {"project": True}),
    "attention": ({"layers": ("0:2", "1:3")}, {"relations": ("qq", "kk")}, {"heads": 2}),
}
CASES = [(name, how) for name in HINTS.names() for how in ({}, *MORE[name])]
WIDE: dict[str, Any] = {
    "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 3,
}  # fmt: skip


def objective(name: str, how: dict[str, Any], student: LM, teacher: LM, **more: Any) -> Distillation:
    """The pair with a hint; what it learns is a part "hints" of the student, as in a run."""
    config = HINTS.config(name)
    assert config is not None
    hint = HINTS.load(name).build(config(**how), shapes(student), shapes(teacher), seed=3)
    taught = LocalTeacher(teacher, 64)
    taught.points = hint.points[1]
    if hint.projections is not None:
        student["hints"] = hint.projections
    mixed = distillation.Config(alpha=more.pop("alpha", 0.5))
    return distillation.build(student, taught, LOSSES.load("forward_kl"), mixed, hint=hint, **more)


def seen(model: LM, batch: Any) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def tap(name: str, x: mx.array) -> mx.array:
        found[name] = np.array(x, np.float64)
        return x

    how = {name: batch[name] for name in ("positions", "segments")}
    mx.eval(model(batch["tokens"], tap=tap, **how))
    return found


def hidden(s: Any, t: Any, student: LM, how: dict[str, Any], segments: np.ndarray) -> np.ndarray:
    pairs = [(1, 3)] if "layers" in how else [(0, 1), (1, 3)]
    total = np.zeros(segments.shape)
    for i, j in pairs:
        one, two = s[f"blocks.{i}.hook_resid_post"], t[f"blocks.{j}.hook_resid_post"]
        made = one @ np.array(student["hints"][f"layer_{i}"], np.float64).T
        total = total + ((made - two) ** 2).sum(-1) / (two**2).sum(-1)
    return total / len(pairs)


def attention(s: Any, t: Any, student: LM, how: dict[str, Any], segments: np.ndarray) -> np.ndarray:
    pairs = [(0, 2), (1, 3)] if "layers" in how else [(1, 3)]
    relations, heads = how.get("relations", ("qk", "vv")), how.get("heads", 0)

    def log_relation(x: Any, layer: int, relation: str, n: int, b: int) -> np.ndarray:
        ends = [x[f"blocks.{layer}.attn.hook_{end}"][b] for end in relation]
        n_heads = max(len(end) for end in ends)
        wide = [np.repeat(end, n_heads // len(end), 0).transpose(1, 0, 2) for end in ends]
        a, c = (end.reshape(len(end), n, -1).transpose(1, 0, 2) for end in wide)
        z = a @ c.transpose(0, 2, 1) / np.sqrt(a.shape[-1])
        same = (segments[b][:, None] == segments[b][None]) & np.tri(len(segments[b]), dtype=bool)
        z = np.where(same, z, -np.inf)
        return (
            z - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True)) - z.max(-1, keepdims=True)
        )

    found = np.zeros(segments.shape)
    for b in range(len(segments)):
        for i, j in pairs:
            for relation in relations:
                n = heads or (4 if "q" in relation else 2)  # as many as the student has
                q, p = log_relation(s, i, relation, n, b), log_relation(t, j, relation, n, b)
                keep = np.isfinite(p)
                each = np.where(keep, np.exp(p) * (np.where(keep, p, 0) - np.where(keep, q, 0)), 0)
                found[b] += each.sum(-1).mean(0)
    return found / (len(pairs) * len(relations))


REFERENCE: dict[str, Any] = {"hidden": hidden, "attention": attention}


@pytest.mark.parametrize(("name", "how"), CASES)
def test_equals_the_formula(name: str, how: dict[str, Any]) -> None:
    student, teacher = nano.model(), nano.model(seed=1, **WIDE)
    found = objective(name, how, student, teacher)
    batch = nano.batch(2, 7, real=[7, 5])
    batch.segments[0, 4:] = 2
    given = arrays(batch)
    told = found.loss(given)[1]["hint"].item()
    s, t = seen(student, given), seen(teacher, given)
    wanted = REFERENCE[name](s, t, student, how, batch.segments)
    assert told == pytest.approx((wanted * batch.weights).sum() / batch.weights.sum(), rel=1e-4)
    value, count = found.report(given)["hint"]
    assert (value / count).item() == pytest.approx(told, rel=1e-5)


@pytest.mark.parametrize("name", HINTS.names())
def test_a_student_like_its_teacher_has_nothing_to_learn(name: str) -> None:
    student, batch = nano.model(), arrays(nano.batch(2, 6))
    found = objective(name, {}, student, nano.model())
    assert found.hint is not None and found.hint.projections is None  # equally wide
    assert found.loss(batch)[1]["hint"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", HINTS.names())
def test_the_gradient_reaches_the_student_and_what_is_learned_beside_it(name: str) -> None:
    student, teacher, batch = nano.model(), nano.model(seed=1, **WIDE), arrays(nano.batch(2, 6))
    found = objective(name, {}, student, teacher, alpha=0.0, hint_weight=2.0)
    assert found.hint is not None

    weights = dict(tree_flatten(student.trainable_parameters()))

    def gradients(weight: float) -> Any:
        def loss(given: Any) -> mx.array:
            student.update(tree_unflatten(list(given.items())))
            return found.loss(batch)[0]

        found.hint_weight = weight
        made = mx.grad(loss)(weights)
        student.update(tree_unflatten(list(weights.items())))
        return made

    none, twice = gradients(0.0), gradients(2.0)
    beside = [key for key in weights if key.startswith("hints.")]
    assert len(beside) == (2 if name == "hidden" else 0)
    for key in [*beside, "model.embed_tokens.weight"]:
        assert np.abs(np.array(twice[key] - none[key])).max() > 1e-4, "more than the labels' alone"
    loss, told = found.loss(batch)
    assert loss.item() == pytest.approx(told["nll"].item() + 2 * told["hint"].item(), rel=1e-5)


@pytest.mark.parametrize("name", HINTS.names())
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.wide)])
def test_the_student_comes_closer_and_the_teacher_stays(name: str, compiled: bool) -> None:
    student, teacher, batch = nano.model(), nano.model(seed=1, **WIDE), nano.batch(4, 10, prompt=2)
    before = nano.flat(teacher)
    found = objective(name, {}, student, teacher, alpha=0.0, hint_weight=10.0)
    update = Gradient(found, adamw.build(adamw.Config(weight_decay=0.0)), lambda _: 1e-2, compiled=compiled)
    figures = [update.step(batch, step)["hint"] for step in range(1, 31)]
    assert figures[-1] < 0.6 * figures[0], figures
    after = nano.flat(teacher)
    assert all((before[key] == after[key]).all() for key in before)


@pytest.mark.parametrize(
    ("name", "how", "why"),
    [
        ("hidden", {"layers": ("0-1",)}, "no pair student:teacher"),
        ("hidden", {"layers": ("2:1",)}, "the student has no layer 2, only 0 to 1"),
        ("attention", {"layers": ("1:4",)}, "the teacher has no layer 4"),
        ("hidden", {"layers": ("1:1", "1:2")}, "twice"),
        ("attention", {"relations": ("qv2",)}, "no 'qv2'"),
        ("attention", {"relations": ()}, "is empty"),
        ("attention", {"heads": 5}, "does not divide"),
        ("attention", {"heads": -1}, "must not be negative"),
    ],
)
def test_what_cannot_be_compared_is_refused(name: str, how: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        objective(name, how, nano.model(), nano.model(seed=1, **WIDE))


def test_a_model_that_does_not_show_a_point_is_named() -> None:
    build, config = HINTS.load("attention").build, HINTS.config("attention")
    assert config is not None
    there = shapes(nano.model())
    blind = {name: shape for name, shape in there.items() if "hook_k" not in name}
    with pytest.raises(ConfigError, match="the teacher does not show 'blocks.1.attn.hook_k'"):
        build(config(), there, blind)
