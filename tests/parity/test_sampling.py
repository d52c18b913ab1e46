"""Sampling rules against transformers' processors, and the whole chain in their order."""

from __future__ import annotations

import numpy as np
import pytest

from nano import require
from tinygpt.core.backend import mx
from tinygpt.infer.sampler import ORDER, RULES, History

pytestmark = pytest.mark.parity
torch = require("torch")
process = require("transformers.generation.logits_process")

PROMPTS = [[1, 5, 9, 9], [2, 2, 3, 40]]
PEERS = {
    "repetition_penalty": (1.3, lambda v: process.RepetitionPenaltyLogitsProcessor(v)),
    "temperature": (0.7, lambda v: process.TemperatureLogitsWarper(v)),
    "top_k": (20, lambda v: process.TopKLogitsWarper(v)),
    "top_p": (0.85, lambda v: process.TopPLogitsWarper(v)),
    "min_p": (0.08, lambda v: process.MinPLogitsWarper(v)),
    "typical_p": (0.6, lambda v: process.TypicalLogitsWarper(v)),
}


def _logits(seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(2, 50)) * 2).astype(np.float32)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("seed", range(5))
def test_each_rule(name: str, seed: int) -> None:
    value, peer = PEERS[name]
    ours = RULES.load(name).apply(mx.array(_logits(seed)), History(PROMPTS, 50), value)
    theirs = peer(value)(torch.tensor(PROMPTS), torch.tensor(_logits(seed)))
    np.testing.assert_allclose(np.array(ours), theirs.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_chain(seed: int) -> None:
    ours, theirs = mx.array(_logits(seed)), torch.tensor(_logits(seed))
    history = History(PROMPTS, 50)
    for name in (n for n in ORDER if n in PEERS):
        value, peer = PEERS[name]
        ours = RULES.load(name).apply(ours, history, value)
        theirs = peer(value)(torch.tensor(PROMPTS), theirs)
    np.testing.assert_allclose(np.array(ours), theirs.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.02, 0.05, 0.5])
def test_xtc_where_it_acts(threshold: float) -> None:
    peer = require("mlx_lm.sample_utils").apply_xtc
    logits_BV = mx.array(_logits(3))
    # The peer's bar is open, ours closed, and it draws once for all rows: at probability 1 that is the same.
    theirs = peer(logits_BV, 1.0, threshold, [])
    history = History(PROMPTS, 50, seeds=[1, 2], counts=False)
    ours = RULES.load("xtc").apply(logits_BV, history, 1.0, threshold)
    assert mx.array_equal(ours, theirs) and (threshold < 0.5) == (not mx.array_equal(ours, logits_BV))


def test_the_order_is_that_of_transformers() -> None:
    import inspect

    from transformers import GenerationMixin

    source = inspect.getsource(GenerationMixin._get_logits_processor)
    names = [type(PEERS[n][1](PEERS[n][0])).__name__ for n in ORDER if n in PEERS]
    assert sorted(names, key=lambda n: source.index(f"{n}(")) == names
