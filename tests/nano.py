"""The nano model (d=32, 2 layers, vocab 64) in both shapes, its batches, and the gate of parity tests."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.batch import Batch
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize
from tinygpt.train.loop import Plan, fit
from tinygpt.train.update import Gradient

SHAPES = ("llama", "gpt2")
DRAWN: dict[str, list[tuple[str, mx.array]]] = {}


def config(shape: str = "llama", **changes: Any) -> ModelConfig:
    """A config of one of the two shapes; weights are drawn wide so that logits differ visibly."""
    base: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 128, "initializer_range": 0.25,
    }  # fmt: skip
    if shape == "llama":
        base |= {"num_key_value_heads": 2}
    else:
        slots = {"mlp": Pick("gelu"), "position": Pick("learned"), "norm": Pick("layernorm")}
        base |= {**slots, "attention_bias": True, "mlp_bias": True}
    return ModelConfig(**{**base, **changes})


def model(shape: str = "llama", seed: int = 0, **changes: Any) -> LM:
    """An initialised model whose norms and biases are off their usual ones and zeros. Drawn once for each
    config; every caller has arrays of its own."""
    wanted = config(shape, **changes)
    key = f"{seed} {wanted!r}"
    if key not in DRAWN:
        lm = initialize(LM(wanted), seed)
        DRAWN[key] = [
            (
                name,
                value + 0.2 * mx.random.normal(value.shape, key=mx.random.key(i))
                if value.ndim < 2
                else value,
            )
            for i, (name, value) in enumerate(tree_flatten(lm.parameters()))
        ]
        mx.eval(DRAWN[key])
    lm = LM(wanted)
    lm.update(tree_unflatten([(name, mx.array(value)) for name, value in DRAWN[key]]))
    return lm


def route_half(lm: LM, ids: np.ndarray) -> LM:
    """Move the predictors of routed blocks so that each chooses half of these tokens."""
    for i, layer in enumerate(lm.layers):
        if "predictor" in layer.depth:
            seen: dict[str, mx.array] = {}
            lm(mx.array(ids), tap=lambda name, x, seen=seen: seen.setdefault(name, x))
            last = layer.depth.predictor.down_proj
            z = np.array(layer.depth.predictor(seen[f"blocks.{i}.hook_resid_pre"]))
            last.bias = last.bias - float(np.median(z)) + 1e-3
    return lm


def tokens(rows: int, length: int, *, seed: int = 0, vocab: int = 64) -> np.ndarray:
    """Random token ids (rows, length)."""
    return np.random.default_rng(seed).integers(0, vocab, (rows, length)).astype(np.int32)


def batch(rows: int, length: int, *, seed: int = 0, real: list[int] | None = None, prompt: int = 0) -> Batch:
    """Rows of one document each: `real` tokens (then padding), the first `prompt` targets not learned."""
    ids = tokens(rows, length + 1, seed=seed)
    steps = np.broadcast_to(np.arange(length), (rows, length))
    lengths = np.asarray(real if real is not None else [length] * rows)[:, None]
    return Batch(
        tokens=np.where(steps < lengths, ids[:, :-1], 0).astype(np.int32),
        targets=np.where(steps < lengths, ids[:, 1:], 0).astype(np.int32),
        weights=((steps < lengths) & (steps >= prompt)).astype(np.float32),
        positions=np.where(steps < lengths, steps, 0).astype(np.int32),
        segments=(steps < lengths).astype(np.int32),
    )


def flat(module: Any) -> dict[str, np.ndarray]:
    """All parameters by name, as numpy arrays."""
    return {name: np.array(value) for name, value in tree_flatten(module.parameters())}


def close(a: Any, b: Any, rel: float) -> None:
    """Largest difference below `rel` times the largest value of `b`."""
    a, b = np.array(a, dtype=np.float64), np.array(b, dtype=np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    assert np.isfinite(a).all()
    worst = np.abs(a - b).max() / max(1e-12, np.abs(b).max())
    assert worst <= rel, f"differs by {worst:.2e} of the largest value, {rel:.0e} is allowed"


class Rows:
    """Batch i is a pure function of i; rows have unequal numbers of learned tokens."""

    def __getitem__(self, index: int) -> Batch:
        return batch(8, 12, seed=100 + index, real=[12, 3, 7, 12, 5, 1, 9, 12], prompt=1)


def resumes(
    path: Path, make: Callable[[LM], Gradient], start: Callable[[], LM], stops: tuple[int, ...] = (3, 4, 5, 8)
) -> None:
    """Weights and optimizer are the same, bit for bit, when a run is stopped at each of these steps and goes
    on from what it saved at `path`."""
    quiet = Events(MemorySink())
    straight = make(start())
    fit(Rows(), straight, Plan(steps=stops[-1]), quiet)
    model = start()
    checkpoint.save(path, model, state={"step": 0}, optimizer=make(model).state())
    for until in stops:
        loaded = checkpoint.load(path)
        update = make(loaded.model)
        update.restore(checkpoint.read_tensors(path, "optimizer"))

        def save(step: int, update: Gradient = update, model: LM = loaded.model) -> None:
            checkpoint.save(path, model, state={"step": step}, optimizer=update.state(), replace=True)

        done = fit(Rows(), update, Plan(steps=until), quiet, start=loaded.state()["step"], save=save)
        assert done.step == until
    final, expected = flat(checkpoint.load(path).model), flat(straight.objective.module)
    assert all(np.array_equal(final[n], expected[n]) for n in expected)
    saved = checkpoint.read_tensors(path, "optimizer")
    assert all(mx.array_equal(saved[n], value) for n, value in straight.state().items())


def require(name: str) -> ModuleType:
    """A peer of the extra test-parity: skipped when absent, unless TINYGPT_REQUIRE_PARITY=1 (as in CI)."""
    if os.environ.get("TINYGPT_REQUIRE_PARITY") == "1":
        return importlib.import_module(name)
    return pytest.importorskip(name)
