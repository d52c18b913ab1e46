"""Sampling settings: defaults, refusals, seeds."""

from __future__ import annotations

from typing import Any

import pytest

from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError
from tinygpt.infer.config import SampleConfig


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 1.5}, {"min_p": 2.0},
        {"repetition_penalty": 0.0}, {"presence_penalty": float("inf")}, {"max_tokens": 0},
        {"stop": ("a", "")}, {"typical_p": 1.1}, {"top_n_sigma": -1.0}, {"xtc_probability": -0.1},
        {"xtc_threshold": 0.6, "xtc_probability": 0.5}, {"xtc_threshold": 0.2},
        # What float32, or the device's integers, cannot hold would be a NaN, and then the token 0.
        {"presence_penalty": 1e300}, {"frequency_penalty": -1e39}, {"repetition_penalty": 1e-300},
        {"temperature": 1e300}, {"logit_bias": ("65=1e39",)}, {"top_k": 2**70}, {"top_k": 10**400},
    ],
)  # fmt: skip
def test_refuses_what_cannot_be(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        SampleConfig(**bad)


def test_reads_from_data_and_names_the_nearest_key() -> None:
    assert from_dict(SampleConfig, {"top_k": 5, "stop": ["a,b", "c"]}).stop == ("a,b", "c")
    with pytest.raises(ConfigError, match="temperature"):
        from_dict(SampleConfig, {"temprature": 1})


def test_a_missing_seed_is_drawn_and_kept() -> None:
    drawn = SampleConfig().seeded()
    assert drawn.seed is not None and drawn.seeded() is drawn
    assert SampleConfig(seed=5).seeded().seed == 5


def test_greedy() -> None:
    assert SampleConfig(temperature=0).greedy and SampleConfig(top_k=1).greedy and not SampleConfig().greedy
    assert SampleConfig(temperature=1e-38).greedy and not SampleConfig(temperature=1e-3).greedy
