"""Divergences beside TRL's GKD trainer: values, gradients, temperature, masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.family import Family
from tinygpt.distill.divergence._events import log_softmax

pytestmark = pytest.mark.parity

LOSSES = Family("tinygpt.distill.divergence", verb="losses")
# TRL's beta is the share of the teacher in the mixture, too; its limits are the plain divergences.
SAME = [("forward_kl", {}, 0.0), ("reverse_kl", {}, 1.0)]
SAME += [("jsd", {"beta": beta}, beta) for beta in (0.1, 0.5, 0.9)]


@pytest.mark.parametrize(("name", "how", "beta"), SAME)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_gkd(name: str, how: dict[str, Any], beta: float, temperature: float) -> None:
    torch = nano.require("torch")
    trainer = nano.require("trl.experimental.gkd.gkd_trainer").GKDTrainer
    draw = np.random.default_rng(int(10 * beta))
    student, teacher = (draw.normal(0, 2, (3, 7, 33)).astype(np.float32) for _ in range(2))
    learned = draw.random((3, 7)) < 0.6
    labels = torch.tensor(np.where(learned, 1, -100))
    given = torch.tensor(student, requires_grad=True)
    theirs = trainer.generalized_jsd_loss(
        given, torch.tensor(teacher), labels=labels, beta=beta, temperature=temperature
    )
    theirs.backward()
    config = LOSSES.config(name)

    def ours(logits: mx.array) -> mx.array:
        pair = (log_softmax(z, temperature) for z in (logits, mx.array(teacher)))
        found = LOSSES.load(name).losses(*pair, config(**how) if config else None)
        return (found * mx.array(learned)).sum() / int(learned.sum())

    value, gradient = mx.value_and_grad(ours)(mx.array(student))
    assert value.item() == pytest.approx(theirs.item(), rel=1e-5)
    nano.close(gradient, given.grad.numpy(), 1e-5)
