"""Parameter groups act on what is learned, with every optimizer that takes a learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family
from tinygpt.data.batch import Batch
from tinygpt.peft import _adapter
from tinygpt.train.groups import groups
from tinygpt.train.objective import response
from tinygpt.train.optim import adamw, galore, lisa
from tinygpt.train.update import Gradient

OPTIM = Family("tinygpt.train.optim")
LAYERS, F = 3, 0.5


def batch() -> Batch:
    return nano.batch(8, 12, real=[12, 3, 7, 12, 5, 1, 9, 12])


def updater(model: Any, optimizer: Any, rules: dict[str, Any], **how: Any) -> Gradient:
    objective = response.build(model)
    names = list(Gradient(objective, adamw.build(adamw.Config()), lambda step: 0.0).weights)
    how = {"compiled": False, "groups": groups(names, **rules), **how}
    return Gradient(objective, optimizer, lambda step: 1e-2, **how)


def model(**changes: Any) -> Any:
    return nano.model(num_hidden_layers=LAYERS, tie_word_embeddings=False, **changes)


def moved(optimizer: Any, rules: dict[str, Any], steps: int = 1, **how: Any) -> dict[str, np.ndarray]:
    """How far each tensor is from where it began."""
    update = updater(model(), optimizer, rules, **how)
    before = {n: np.array(w) for n, w in update.weights.items()}
    for step in range(1, steps + 1):
        update.step(batch(), step)
    return {n: np.array(w, np.float64) - before[n] for n, w in update.weights.items()}


def rate(name: str) -> float:
    """The paper's: F^(L-1-i) in block i, F^L in the embeddings."""
    if name.startswith("model.embed_"):
        return F**LAYERS
    return F ** (LAYERS - 1 - int(name.split(".")[2])) if ".layers." in name else 1.0


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_first_step_of_adamw_is_so_much_smaller_in_each_layer(decay: float, compiled: bool) -> None:
    """Element for element, decay included. A multiplied gradient would change nothing."""
    config = adamw.Config(weight_decay=decay)
    plain = moved(adamw.build(config), {}, compiled=compiled)
    grouped = moved(adamw.build(config), {"layer_decay": F}, compiled=compiled)
    assert len({rate(n) for n in plain}) == LAYERS + 1
    for name, change in plain.items():
        assert np.abs(change).max() > 1e-3
        assert np.abs(grouped[name] - rate(name) * change).max() < 3e-7, name


@pytest.mark.parametrize("name", OPTIM.names())
def test_every_optimizer_learns_slower_below(name: str) -> None:
    """And what they keep is all there after steps in groups: a further step can be taken."""
    knobs = {"galore": {"rank": 8}, "lisa": {"layers": LAYERS}}.get(name, {})
    build = lambda: OPTIM.load(name).build(OPTIM.config(name)(**knobs))  # noqa: E731
    plain, grouped = moved(build(), {}), moved(build(), {"layer_decay": F})
    for n, change in plain.items():
        nano.close(grouped[n], rate(n) * change, 3e-3)  # differences of weights: few digits are left
    again = moved(build(), {"layer_decay": F}, steps=3)
    assert all(np.isfinite(change).all() for change in again.values())


def test_the_state_does_not_depend_on_groups() -> None:
    """Groups change where weights go, so one step from the same weights: the same moments and directions."""
    for make in (
        lambda: galore.build(galore.Config(rank=8)), lambda: lisa.build(lisa.Config(layers=2)),
    ):  # fmt: skip
        plain, grouped = updater(model(), make(), {}), updater(model(), make(), {"layer_decay": F})
        for update in (plain, grouped):
            update.step(batch(), 1)
        assert plain.state().keys() == grouped.state().keys()
        assert all(mx.array_equal(value, grouped.state()[n]) for n, value in plain.state().items())


def test_lora_plus_moves_b_faster_and_nothing_else() -> None:
    changes = []
    for rules in ({}, {"lora_plus": 16.0}):
        lm = nano.model()
        _adapter.attach(lm, Pick("lora", {"rank": 4}), seed=1)
        update = updater(lm, adamw.build(adamw.Config()), rules)
        before = {n: np.array(w) for n, w in update.weights.items()}
        update.step(batch(), 1)
        changes.append({n: np.array(w) - before[n] for n, w in update.weights.items()})
    plain, plus = changes
    assert any("lora_A" in n for n in plain)
    for name, change in plain.items():
        nano.close(plus[name], (16 if "lora_B" in name else 1) * change, 1e-5)


def test_what_is_named_does_not_decay() -> None:
    config = adamw.Config(weight_decay=0.5)
    still, pulled = adamw.Config(weight_decay=0.0), adamw.build(config)
    plain, none = moved(pulled, {}), moved(adamw.build(still), {})
    named = moved(pulled, {"no_decay": ("embed", "q_proj")}, undecayed=adamw.build(still))
    for name, change in named.items():
        same = none if "embed" in name or "q_proj" in name else plain
        assert np.array_equal(change, same[name]), name
    assert not np.array_equal(plain["model.embed_tokens.weight"], none["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"layer_decay": 0.5}, "--lr-layer-decay finds no block that learns"),
        ({"lora_plus": 2.0}, "--lora-plus-ratio finds no adapter matrix B"),
        ({"no_decay": ("weigth",)}, r"--no-decay weigth: no tensor .* Did you mean 'weight'"),
        ({"no_decay": ("",)}, "--no-decay"),
    ],
)
def test_a_rule_that_acts_on_nothing_is_refused(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        groups(["lm_head.weight"], **rules)
