"""What no memory can hold is refused before it is built, and the estimate stays below what is taken."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core import backend
from tinygpt.core.backend import mx
from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.model import count
from tinygpt.runs import _memory, bench_train
from tinygpt.runs._settings import FreshModel

NEEDS = "needs at least [0-9,]+ GB of memory, this machine has"
DTYPE = backend.setup().default_dtype


def settings(**changes: Any) -> FreshModel:
    return from_dict(FreshModel, {"out": str(Path("r")), **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": 10**9},
        {"context": 10**12},
        {"depth": 100_000},
        {"depth": 10**100},
        {"model": {"num_hidden_layers": 10**9}},
        {"model": {"hidden_size": 10**12, "num_attention_heads": 1}},
        {"model": {"vocab_size": 10**15}},
    ],
)
def test_a_model_or_a_step_that_no_machine_holds(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=NEEDS) as refusal:
        settings(**changes).fresh(70, 1)
    assert "--batch" in refusal.value.hint


@pytest.mark.parametrize("changes", [{"batch": 10**9}, {"context": 10**6}, {"vocab_size": 10**15}])
def test_bench_train_refuses_them_too(changes: dict[str, Any], memory: Any) -> None:
    with pytest.raises(ConfigError, match=NEEDS):
        bench_train.run(bench_train.Config(**changes, lock=False), Events(memory))


def test_parts_of_a_step_are_what_counts() -> None:
    model = nano.config(max_position_embeddings=32)
    assert settings(batch=10**9, accumulate=10**9).row_length(model, whole=True) == 32
    with pytest.raises(ConfigError, match="on 500000000 rows of 32 tokens"):
        settings(batch=10**9, accumulate=2).row_length(model, whole=True)


def test_an_adapter_may_need_one_layer_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nano.config()
    monkeypatch.setattr(backend, "memory", lambda: count.activation_bytes(model, 4, 32, dtype=DTYPE))
    _memory.refuse_too_large(model, 4 * model.num_hidden_layers, 32, whole=False)
    for rows, whole in ((4, True), (4 * model.num_hidden_layers + 1, False)):
        with pytest.raises(ConfigError, match="memory"):
            _memory.refuse_too_large(model, rows, 32, whole=whole)


@pytest.mark.parametrize(
    ("shape", "rows", "context"),
    [
        ("llama", 16, 32),
        ("gpt2", 2, 256),
        *(
            pytest.param(s, *sizes, marks=pytest.mark.wide)
            for s, *sizes in (("llama", 2, 32), ("llama", 2, 256), ("gpt2", 2, 32), ("gpt2", 16, 32))
        ),
    ],
)
def test_the_estimate_is_below_what_a_step_takes(shape: str, rows: int, context: int) -> None:
    model = nano.config(shape, max_position_embeddings=context)
    gc.collect()  # what earlier tests left would be freed while this one is measured
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    bench_train.time_steps(model, batch=rows, context=context, steps=1, warmup=0, dtype=DTYPE, compiled=False)
    least = count.state_bytes(model) + count.activation_bytes(model, rows, context, dtype=DTYPE)
    assert least < mx.get_peak_memory() - before < 12 * least


def test_a_long_context_of_learned_positions_has_its_table(memory: Any) -> None:
    """Positions beyond the preset's table would be read, and written, outside of it."""
    config = bench_train.Config(
        preset="gpt2-tiny", context=160, batch=1, steps=1, warmup=0, lock=False, compile=False
    )
    found = bench_train.run(config, Events(memory))
    assert found["context"] == 160 and found["parameters"] == 842_496 + 32 * 128
