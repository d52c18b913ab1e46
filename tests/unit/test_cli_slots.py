"""The original's architecture flags fill slots, and are refused where they would be ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from tinygpt.cli import _slots
from tinygpt.cli._options import from_config
from tinygpt.core.config import from_dict, to_dict
from tinygpt.core.errors import ConfigError
from tinygpt.model.config import ModelConfig
from tinygpt.model.presets import preset
from tinygpt.runs.pretrain import Config


@pytest.fixture
def slots() -> Any:
    """Parse a command line of `train`; gives the slots that a fresh model would have."""
    seen: list[Config] = []
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(from_config(Config, lambda config, _: seen.append(config), slots=True))
    command = typer.main.get_command(app)

    def parse(*words: str) -> ModelConfig:
        command.main(["--corpus", "a", "--out", "b", *words], standalone_mode=False)
        plain = to_dict(preset("tiny", vocab_size=256))
        return from_dict(ModelConfig, {**plain, **seen[-1].model}, "model")

    return parse


def test_every_flag_fills_its_slot(slots: Any) -> None:
    usual = slots()
    for name, to in _slots.FLAGS.items():
        words = ["--" + name.replace("_", "-"), *([] if to.type is bool else ["3"])]
        first = ["--moe-experts", "6"] if to.follows else []
        pick = getattr(slots(*first, *words), to.slot)
        assert pick.name == to.technique and pick != getattr(usual, to.slot), name
        if to.knob:
            assert getattr(pick.options, to.knob) == (True if to.type is bool else 3), name
        if to.off is not None:
            assert slots(words[0], str(to.off)) == usual, f"{name} off"


def test_flags_go_together_and_over_a_file(slots: Any, tmp_path: Path) -> None:
    config = slots(
        "--moe-experts", "4", "--moe-topk", "1", "--moe-aux-weight", "0.5", "--alibi", "--diff-attn"
    )
    mixture = config.mlp.options
    assert (mixture.experts, mixture.top_k, mixture.balance) == (4, 1, 0.5)
    assert (config.position.name, config.attention.name) == ("alibi", "diff")
    file = tmp_path / "run.json"
    file.write_text(
        json.dumps({"model": {"head": {"name": "mtp", "horizons": 2, "weight": 0.1}, "mlp": "moe"}})
    )
    config = slots("--config", str(file), "--mtp-horizons", "3", "--moe-topk", "1")
    assert (config.head.options.horizons, config.head.options.weight) == (3, 0.1)
    assert config.mlp.options.top_k == 1
    assert slots("--config", str(file), "--set", "model.head=linear").head.name == "linear"
    config = slots("--config", str(file), "--mtp-horizons", "1", "--moe-experts", "1")
    assert (config.head.name, config.mlp.name) == ("linear", "swiglu"), "flags turn off what a file says"
    with pytest.raises(ConfigError, match="--moe-topk means nothing without --moe-experts"):
        slots("--config", str(file), "--moe-experts", "1", "--moe-topk", "1")
    file.write_text(json.dumps({"model": {"head": "pointer"}}))
    assert slots("--config", str(file), "--mtp-horizons", "1").head.name == "pointer"
    assert slots("--config", str(file), "--mtp-horizons", "3").head.name == "mtp", "flags go before files"
    assert slots("--mtp-horizons", "3", "--set", "model.head.weight=0.2").head.options.weight == 0.2


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("", "gqa"),
        ("--diff-attn", "diff"),
        ("--yoco", "yoco"),
        ("--set model.attention=diff", "diff"),
        ("--set model.attention.name=diff", "diff"),
        ("--set model.attention=gqa", "gqa"),
    ],
)
def test_window_and_norm_are_knobs_of_the_attention_that_is_chosen(
    slots: Any, tmp_path: Path, words: str, name: str
) -> None:
    flags = ["--sliding-window", "8", "--qk-norm"]
    for line in ([*words.split(), *flags], [*flags, *words.split()]):
        attention = slots(*line).attention
        assert (attention.name, attention.options.window, attention.options.qk_norm) == (name, 8, True)
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"model": {"attention": {"name": "yoco", "window": 4}}}))
    attention = slots("--config", str(file), *words.split(), *flags).attention
    assert (attention.name, attention.options.window) == (name if words else "yoco", 8)
    kept = slots("--config", str(file), "--qk-norm").attention
    assert kept.options.window == 4 and kept.options.qk_norm
    file.write_text(json.dumps({"model": {"attention": 3}}))
    with pytest.raises(ConfigError, match="attention' must be a technique's name"):
        slots("--config", str(file), *flags)


def test_a_later_set_of_the_name_alone_leaves_the_flags(slots: Any) -> None:
    assert slots("--moe-experts", "4", "--set", "model.mlp=moe").mlp.options.experts == 4
    assert slots("--sliding-window", "8", "--set", "model.attention.window=4").attention.options.window == 4


@pytest.mark.parametrize(
    ("words", "attention", "knobs"),
    [
        ("--diff-attn --set model={hidden_size=32}", "diff", {}),
        ("--yoco --set model={}", "yoco", {}),
        ("--sliding-window 8 --set model={hidden_size=32}", "gqa", {"window": 8}),
        (
            "--diff-attn --sliding-window 8 --set model.attention={qk_norm=true}",
            "diff",
            {"window": 8, "qk_norm": True},
        ),
    ],
)
def test_a_later_set_of_a_table_leaves_the_flags(slots: Any, words: str, attention: str, knobs: Any) -> None:
    found = slots(*words.split()).attention
    assert found.name == attention and {n: getattr(found.options, n) for n in knobs} == knobs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--moe-topk 2", "--moe-topk means nothing without --moe-experts"),
        ("--moe-experts 1 --moe-topk 1", "--moe-topk means nothing without --moe-experts"),
        ("--yoco --diff-attn", "--diff-attn and --yoco ask for two kinds of attention, diff and yoco"),
        ("--yoco --set model.attention=diff", "--yoco asks for the attention 'yoco', but --set"),
        ("--sliding-window 8 --set model.attention=dif", "unknown attention 'dif'. Did you mean 'diff'"),
        ("--qk-norm --set model=3", "'model' must be a table"),
        ("--qk-norm --set model.attention=3", "'model.attention' must be a technique's name"),
        (
            "--mtp-horizons 2 --set model.head=pointer",
            "asks for the head 'mtp', but --set model.head is 'pointer'",
        ),
        ("--base c --alibi", "--alibi: the base c brings its own position"),
        ("--mtp-horizons 0", "head.horizons must be at least 2, got 0"),
        ("--sliding-window -1", "window must not be negative"),
    ],
)
def test_what_would_be_ignored_is_refused(slots: Any, words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        slots(*words.split())
