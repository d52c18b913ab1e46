"""Settings of training runs, and what a run does as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core.config import Pick, from_dict, to_dict
from tinygpt.core.errors import ConfigError, LockedError
from tinygpt.core.events import Events
from tinygpt.core.lock import IN_USE, run_lock
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.presets import by_depth
from tinygpt.runs import _settings, automix, bench_train, es, evaluate, pretrain, sft
from tinygpt.runs._held_out import held_out_loss
from tinygpt.runs._settings import OBJECTIVE, FreshModel
from tinygpt.train.update import arrays


def config(out: Path, **changes: Any) -> FreshModel:
    return from_dict(FreshModel, {"out": str(out), "seed": 3, **changes})


# Settings.


def test_what_is_not_given_is_derived() -> None:
    plain = config(Path("r"))
    assert (plain.steps, plain.batch, plain.lr) == (500, 16, 1e-3)
    found = by_depth(2, vocab_size=256, context=64, tokens_per_parameter=20)
    deep = config(Path("r"), depth=2, context=64)
    assert (deep.steps, deep.batch, deep.lr) == (found.steps, found.batch, found.lr)
    more = config(Path("r"), depth=2, context=64, regime="overtrained")
    assert more.steps > deep.steps
    assert config(Path("r"), depth=2, context=64, steps=7).steps == 7, "a given value wins"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1"),
        ({"keep": 0}, "--keep must be at least 1"),
        ({"lr": 0}, "--lr must be positive"),
        ({"clip": -1}, "--clip must not be negative"),
        ({"lr_layer_decay": 0}, "--lr-layer-decay must be above 0, at most 1, got 0"),
        ({"lr_layer_decay": 1.1}, "--lr-layer-decay must be above 0"),
        ({"no_decay": "embed", "optimizer": {"name": "adamw", "weight_decay": 0}}, "--no-decay says nothing"),
        ({"save_every": -1}, "--save-every must not be negative"),
        ({"eval_batches": -1}, "--eval-batches must not be negative"),
        ({"batch": 6, "accumulate": 4}, "--batch 6 is not a multiple of --accumulate 4"),
        ({"resume": True, "force": True}, "--resume continues"),
        ({"spike_window": 5}, "--spike-window must be at least 10"),
        ({"auto_rollback": "off", "spike_factor": 3.0}, "--spike-factor: --auto-rollback off looks for no"),
        ({"spike_detect": False, "spike_window": 40}, "--spike-window: --no-spike-detect looks for no"),
        ({"auto_rollback": "off", "spike_detect": False}, "--no-spike-detect: --auto-rollback off looks for"),
        ({"sample_tokens": 5}, "--sample-tokens means nothing without --sample-every"),
        ({"eval_limit": 3}, "--eval-limit means nothing without --eval-tasks"),
        ({"min_delta": 0.1}, "--min-delta means nothing without --patience"),
        ({"schedule": {"warmup": 1e9}, "steps": 4}, r"--warmup 1e\+09 is not shorter than the run's 4 steps"),
        ({"schedule": {"name": "constant", "warmup": 4}, "steps": 4}, "--warmup 4 is not shorter than"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(Path("r"), **changes)


def adapted(**given: Any) -> tuple[float, str, dict[str, Any]]:
    data = {"out": "r", "corpus": ["x"], "base": "b", "domain_adapt": True, **given}
    found = from_dict(pretrain.Config, data)
    assert from_dict(pretrain.Config, to_dict(found)) == found, "run.json repeats it"
    return found.amounts.lr, found.schedule.name, to_dict(found.schedule)


def test_domain_adapt_fills_in_what_is_not_given() -> None:
    lr, name, knobs = adapted()
    assert (lr, name) == (1e-4, "wsd")
    assert (knobs["warmup"], knobs["decay"], knobs["final"], knobs["shape"]) == (100, 0.05, 0.1, "1-sqrt")
    assert adapted(lr=5e-4)[0] == 5e-4
    knobs = adapted(schedule={"warmup": 20})[2]  # as --warmup 20 arrives
    assert (knobs["name"], knobs["warmup"], knobs["decay"]) == ("wsd", 20, 0.05)
    assert adapted(schedule="wsd")[2]["warmup"] == 100
    assert adapted(schedule="cosine")[2]["warmup"] == 0.05, "another schedule comes with its own knobs"
    assert adapted(schedule={"name": "linear"})[1] == "linear"
    assert adapted(domain_adapt=False)[:2] == (1e-3, "cosine")
    with pytest.raises(ConfigError, match="--domain-adapt means nothing without --base"):
        adapted(base=None)


def test_a_fresh_model() -> None:
    model = config(Path("r"), model={"hidden_size": 32, "num_hidden_layers": 1}, context=16).fresh(70, 1)
    assert model.config.vocab_size == 70 and model.config.hidden_size == 32
    assert model.config.max_position_embeddings == 16
    assert model.config.head_dim == 8 and model.config.intermediate_size == 96, "derived from the new width"
    with pytest.raises(ConfigError, match="vocab_size is 10, but the tokenizer has 70 ids"):
        config(Path("r"), model={"vocab_size": 10}).fresh(70, 1)
    with pytest.raises(ConfigError, match="unknown preset 'tinny'"):
        config(Path("r"), preset="tinny").fresh(70, 1)


@pytest.mark.parametrize(
    ("preset", "changes", "groups", "width"),
    [
        ("tiny", {"attention": {"name": "gqa", "qk_norm": True}}, 2, 352),
        ("tiny", {"norm_eps": 1e-6, "position": "alibi", "hidden_size": 128}, 2, 352),
        ("tiny", {"mlp": "gelu"}, 2, 512),
        ("tiny", {"num_attention_heads": 8}, 8, 352),
        ("mini-llama", {"mlp": {"name": "moe", "experts": 2}}, 4, 8192),
        ("mini-llama", {"mlp": "gelu", "intermediate_size": 96}, 4, 96),
        ("mini-llama", {"hidden_size": 48}, 4, 128),
    ],
)
def test_a_size_changes_only_with_what_it_follows_from(
    preset: str, changes: dict[str, Any], groups: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag of another slot leaves heads and widths as the preset has them."""
    monkeypatch.setattr(_settings, "LM", lambda config: config)
    monkeypatch.setattr(_settings, "initialize", lambda config, seed: config)
    monkeypatch.setattr(FreshModel, "row_length", lambda *_, **__: 0)
    found: Any = config(Path("r"), preset=preset, model=changes).fresh(256, 1)
    assert (found.num_key_value_heads, found.intermediate_size) == (groups, width)
    assert found.head_dim == found.hidden_size // found.num_attention_heads


def test_rows_are_at_most_as_long_as_the_model_can_read() -> None:
    model = ModelConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=32
    )
    assert config(Path("r")).row_length(model, whole=True) == 32
    assert config(Path("r"), context=8).row_length(model, whole=True) == 8
    with pytest.raises(ConfigError, match="--context 33 is longer than the model's own, 32"):
        config(Path("r"), context=33).row_length(model, whole=True)
    ahead = replace(model, head=Pick("mtp", {"horizons": 9}))
    assert config(Path("r"), context=9).row_length(ahead, whole=True) == 9
    with pytest.raises(ConfigError, match="'mtp' predicts 9 tokens ahead, and a row has 8"):
        config(Path("r"), context=8).row_length(ahead, whole=True)


def test_held_out_loss_weighs_by_tokens() -> None:
    objective = OBJECTIVE.load("next_token").build(nano.model())
    one, two = nano.batch(1, 10, seed=1, real=[10]), nano.batch(1, 10, seed=2, real=[3])
    losses = [held_out_loss(objective, [b], 0)(1)["loss"] for b in (one, two)]
    both = held_out_loss(objective, [one, two], 0)(1)["loss"]
    counts = [float(b.weights.sum()) for b in (one, two)]
    nano.close(both, sum(n * loss for n, loss in zip(counts, losses)) / sum(counts), 1e-5)
    assert held_out_loss(objective, [one, two], 1)(1)["loss"] == losses[0]


def test_held_out_loss_is_that_of_the_whole_batch() -> None:
    """Cores share its rows; one of them may get nothing but padding. The default reads more than a few."""
    objective = OBJECTIVE.load("next_token").build(nano.model())
    batch = nano.batch(5, 10, real=[10, 0, 7, 0, 1])
    wanted = objective.loss(arrays(batch))[0].item()
    nano.close(held_out_loss(objective, [batch], 0)(1)["loss"], wanted, 1e-5)
    source = Counted([batch] * 40)
    held_out_loss(objective, source, config(Path("r")).eval_batches)(1)
    assert source.read == 32, "an evaluation of 8 said little"


class Counted(list[Any]):
    """Knows how many of its items were asked for."""

    read = 0

    def __getitem__(self, index: Any) -> Any:
        self.read += 1
        return super().__getitem__(index)


def test_a_run_tells_whoever_listens(tmp_path: Path, memory: Any) -> None:
    """The run's own events file and the caller's sinks hear the same."""
    from tinygpt.core import events as ev

    (tmp_path / "t.txt").write_text("to be or not to be, that is the question\n" * 30)
    settings = pretrain.Config(
        corpus=(tmp_path / "t.txt",), out=tmp_path / "run", steps=2, batch=2, context=16, seed=1,
        compile=False, save_every=1, keep=1, model={"hidden_size": 32, "num_hidden_layers": 1},
    )  # fmt: skip
    result = pretrain.run(settings, Events(memory))
    assert (result.status, result.step) == ("done", 2)
    kinds = [type(e).kind for e in memory.events if not isinstance(e, ev.Progress)]
    assert kinds == [e["kind"] for e in ev.read(tmp_path / "run" / "events.jsonl")]
    assert kinds[0] == "run.started" and kinds[-1] == "run.ended" and kinds.count("train.step") == 2
    assert [p.name for p in (tmp_path / "run" / "steps").iterdir()] == ["000002"]


def small(folder: Path, **changes: Any) -> pretrain.Config:
    """A run of one step on t.txt."""
    return from_dict(pretrain.Config, {
        "corpus": [str(folder / "t.txt")], "out": str(folder / "run"), "steps": 1, "batch": 2, "context": 16,
        "seed": 1, "compile": False, **changes,
    })  # fmt: skip


def test_resuming_needs_the_same_inputs(tmp_path: Path) -> None:
    text, base, out = tmp_path / "t.txt", tmp_path / "base", tmp_path / "run"

    def make(seed: int) -> None:
        tokenizer = byte.load(None)
        model = nano.model(seed=seed, vocab_size=tokenizer.vocab_size)
        checkpoint.save(base, model, write_tokenizer=tokenizer.save, replace=True)

    def resume() -> None:
        pretrain.run(small(tmp_path, base=str(base), resume=True), Events())

    make(0)
    text.write_text("to be or not to be, that is the question\n" * 30)
    resume()
    before = (out / "run.json").read_bytes()
    assert set(json.loads(before)["inputs"]) == {"the base model", "the tokenizer", "the data"}
    text.write_text("to be or not to be, that is the answer?!\n" * 30)
    with pytest.raises(
        ConfigError, match="cannot resume .*run: the data changed since the run began"
    ) as caught:
        resume()
    assert "another --out" in caught.value.hint
    make(1)
    with pytest.raises(ConfigError, match="run: the base model and the data changed since"):
        resume()
    assert (out / "run.json").read_bytes() == before
    text.write_text("to be or not to be, that is the question\n" * 30)
    make(0)
    resume()
    record = json.loads(before)
    del record["inputs"]
    (out / "run.json").write_text(json.dumps(record))
    resume()
    assert (out / "run.json").read_bytes() == before, "a run of an older version gets its hashes now"


def test_resuming_needs_the_same_tokenizer(tmp_path: Path) -> None:
    byte.load(None).save(tmp_path / "tok")
    (tmp_path / "t.txt").write_text("to be or not to be, that is the question\n" * 30)
    changes = {"tokenizer": str(tmp_path / "tok"), "model": {"hidden_size": 32, "num_hidden_layers": 1}}
    pretrain.run(small(tmp_path, **changes), Events())
    beside = tmp_path / "tok" / "tokenizer_config.json"
    beside.write_text(beside.read_text().replace("<|pad|>", "<|im_end|>"))
    with pytest.raises(ConfigError, match="run: the tokenizer changed since the run began"):
        pretrain.run(small(tmp_path, resume=True, **changes), Events())


def test_two_never_write_to_one_run(tmp_path: Path) -> None:
    """Whatever --no-lock says."""
    (tmp_path / "t.txt").write_text("to be or not to be, that is the question\n" * 30)
    settings = small(tmp_path, lock=False, resume=True, model={"hidden_size": 32, "num_hidden_layers": 1})
    with (
        run_lock(tmp_path / "run", "sft"),
        pytest.raises(LockedError, match=rf"another process writes to .*run: 'sft' \(process {os.getpid()}"),
    ):
        pretrain.run(settings, Events())
    assert not (tmp_path / "run").exists()
    pretrain.run(settings, Events())
    assert IN_USE not in {p.name for p in (tmp_path / "run").iterdir()}


def test_an_adapter_beside_full_tuning_is_refused() -> None:
    given: dict[str, Any] = {
        "out": Path("x"),
        "data": (Path("y"),),
        "base": Path("z"),
        "adapter": Pick("lora", {"rank": 3}),
    }
    assert sft.Config(**given).adapter.options.rank == 3
    with pytest.raises(ConfigError, match="all weights will learn"):
        sft.Config(**given, full=True)
    with pytest.raises(ConfigError, match="--lora-plus-ratio is about an adapter"):
        sft.Config(**{**given, "adapter": Pick("lora")}, full=True, lora_plus_ratio=4.0)
    with pytest.raises(ConfigError, match="--lora-plus-ratio must be positive"):
        sft.Config(**given, lora_plus_ratio=0.0)


def test_two_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="--depth and --preset"):
        FreshModel(out=Path("x"), depth=4, preset="mega")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: config(Path("r"), regime="overtrained"), "--regime means nothing without --depth"),
        (lambda: config(Path("r"), wait=True, lock=False), "--wait means nothing without --lock"),
        (lambda: bench_train.Config(wait=True, lock=False), "--wait means nothing without --lock"),
        (
            lambda: automix.Config(corpus=("a=a", "b=b"), target=(Path("t"),), wait=True, lock=False),
            "--wait means nothing without --lock",
        ),
        (
            lambda: es.Config(base=Path("m"), data=(Path("d"),), out=Path("r"), glob="*"),
            "--glob means nothing without --corpus",
        ),
        (
            lambda: evaluate.Config(model=Path("m"), suite=("sort_6",), glob="*"),
            "--glob means nothing without --corpus",
        ),
    ],
)
def test_a_setting_without_the_one_it_needs_is_refused(make: Callable[[], Any], message: str) -> None:
    """Whoever makes the config: the command line is not the only one."""
    with pytest.raises(ConfigError, match=message):
        make()
