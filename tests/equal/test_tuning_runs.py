"""Tuning runs: resumed is straight for every way to lay rows, epochs are counted, the best is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core import events as ev
from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data import rows
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint
from tinygpt.model.checkpoint import read_tensors
from tinygpt.runs import finetune, sft

PACKS = ("none", "sequential", "best_fit", "bucket")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two files of rows and a text."""
    found = tmp_path_factory.mktemp("tuning")
    tokenizer = byte.load()
    lm = nano.model(vocab_size=tokenizer.vocab_size, max_position_embeddings=96)
    checkpoint.save(found / "base", lm, write_tokenizer=tokenizer.save)
    for name, n in (("a", 21), ("b", 8)):
        data = [{"prompt": f"{name} {i}", "completion": "yes " * (i % 7 + 1)} for i in range(n)]
        rows.write(found / f"{name}.jsonl", data)
    rows.write(found / "val.jsonl", [{"prompt": f"new {i}", "completion": "yes"} for i in range(6)])
    (found / "text.txt").write_text("".join(f"line {i} of a text\n" for i in range(120)))
    return found


def settings(folder: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "base": str(folder / "base"), "out": str(out), "steps": 6, "batch": 4, "seed": 1, "compile": False,
        "save_every": 3, "lr": 0.01, "lock": False, "context": 64, **changes,
    }  # fmt: skip


def tune(folder: Path, out: Path, **changes: Any) -> sft.Config:
    return from_dict(sft.Config, {"data": [str(folder / "a.jsonl")], **settings(folder, out, **changes)})


def learned(run: Path) -> dict[str, Any]:
    return read_tensors(run / "final", "adapter_model")


def back_to(step: int, straight: Path, copy: Path) -> Path:
    """The run as it was when it had taken so many steps."""
    shutil.copytree(straight, copy)
    shutil.rmtree(copy / "final")
    for path in (copy / "steps").iterdir():
        if int(path.name) > step:
            shutil.rmtree(path)
    return copy


def same(a: Path, b: Path) -> None:
    one, other = learned(a), learned(b)
    assert one.keys() == other.keys()
    assert all((other[name] == value).all().item() for name, value in one.items())


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("mixed", [False, True])
def test_resumed_is_straight(pack: str, mixed: bool, folder: Path, tmp_path: Path) -> None:
    data = [f"{folder}/a.jsonl:1", f"{folder}/b.jsonl:2"] if mixed else [str(folder / "a.jsonl")]
    more = {"data": data, "pack": pack, "epochs": 1.5, "steps": None, "dropout": 0.1}
    done = sft.run(tune(folder, tmp_path / "a", **more), Events())
    assert done.step > 4
    copy = back_to(3, tmp_path / "a", tmp_path / "b")
    again = sft.run(tune(folder, copy, **more, resume=True), Events())
    assert again.step == done.step
    same(tmp_path / "a", copy)
    record = json.loads((copy / "run.json").read_text())["config"]
    assert record["steps"] is None and record["epochs"] == 1.5, "run.json says what was asked for"
    with pytest.raises(ConfigError, match="cannot resume .*: pack"):
        other = "none" if pack != "none" else "bucket"
        sft.run(tune(folder, copy, **more | {"pack": other}, resume=True), Events())
    if mixed:
        copy = back_to(3, tmp_path / "a", tmp_path / "c")
        with pytest.raises(ConfigError, match="cannot resume .*: the data changed"):
            weights = [f"{folder}/a.jsonl:1", f"{folder}/b.jsonl:1"]
            sft.run(tune(folder, copy, **more | {"data": weights}, resume=True), Events())


def test_accumulated_is_whole(folder: Path, tmp_path: Path) -> None:
    for parts in (1, 4):
        config = tune(folder, tmp_path / str(parts), pack="bucket", accumulate=parts, optimizer="sgd")
        sft.run(config, Events())
    one, other = learned(tmp_path / "1"), learned(tmp_path / "4")
    for name, value in one.items():
        nano.close(other[name], value, 1e-3)


def test_epochs_are_counted(folder: Path, tmp_path: Path, memory: Any) -> None:
    result = sft.run(
        tune(folder, tmp_path / "a", pack="none", epochs=3, steps=None, held_out=0, save_every=0),
        Events(memory),
    )
    assert result.step == -(-3 * 21 // 4)
    facts = memory.of(ev.RunStarted)[0].facts
    assert facts["epochs"]["all"] == pytest.approx(3, abs=4 / 21)
    steps = memory.of(ev.TrainStep)
    assert [e.step for e in steps] == list(range(1, result.step + 1)) and all(e.tok_s > 0 for e in steps)
    assert steps[-1].lr == pytest.approx(0.1 * 0.01), "the schedule ends with the last epoch"
    assert facts["memory_bytes"] > 0
    every = sum(e.tokens for e in steps)
    assert 2.8 * facts["tokens"] < every < 3.3 * facts["tokens"], "padding is not counted"
    with pytest.raises(ConfigError, match="both say how long"):
        tune(folder, tmp_path / "b", epochs=1)
    with pytest.raises(ConfigError, match="--warmup 40 is not shorter than the run's 16 steps"):
        long = {"name": "cosine", "warmup": 40}
        sft.run(
            tune(folder, tmp_path / "b", pack="none", epochs=3, steps=None, held_out=0, schedule=long),
            Events(),
        )
    assert not (tmp_path / "b").exists()


def test_the_best_step_on_a_file_is_kept(folder: Path, tmp_path: Path, memory: Any) -> None:
    """A rate that is far too high: the held-out loss rises, the run ends early, best/ is an earlier step."""
    result = sft.run(
        tune(
            folder, tmp_path / "a", val_data=[str(folder / "val.jsonl")], keep_best=True, patience=3,
            steps=60, eval_every=2, lr=3.0, optimizer="sgd", clip=0, auto_rollback="off",
        ),
        Events(memory),
    )  # fmt: skip
    losses = {e.step: e.metrics["loss"] for e in memory.of(ev.Evaluated)}
    best = min(losses, key=lambda step: losses[step])
    assert result.status == "early" and result.metrics["best_step"] == best < result.step < 60
    assert (tmp_path / "a" / "best").is_dir()
    assert memory.of(ev.RunStarted)[0].facts["held_out"]["documents"] == 6


def test_defaults_suit_what_learns(folder: Path, tmp_path: Path) -> None:
    def amounts(**changes: Any) -> Any:
        unset = {"steps": None, "batch": None, "lr": None}
        return tune(folder, tmp_path / "a", **unset | changes).amounts

    assert amounts() == (500, 8, 2e-4)
    assert amounts(full=True) == (500, 8, 2e-5)
    assert amounts(base=None) == (500, 16, 1e-3)
    assert amounts(base=None, depth=2).lr > 1e-3, "as --depth says"
    assert amounts(lr=0.5, batch=3, steps=7) == (7, 3, 0.5)
    config = tune(folder, tmp_path / "a", context=0)
    wide = nano.config(max_position_embeddings=8192)
    assert config.row_length(wide, whole=False) == 2048
    assert config.row_length(nano.config(), whole=False) == 128
    assert tune(folder, tmp_path / "a", context=4096).row_length(wide, whole=False) == 4096
    fresh = tune(folder, tmp_path / "a", context=0, base=None)
    assert fresh.row_length(wide, whole=True) == 8192, "a fresh model has the context that it was given"


def test_finetune(folder: Path, tmp_path: Path, memory: Any) -> None:
    """The base's own tokenizer reads the text; an adapter or all weights learn; resumed is straight."""

    def config(out: Path, **changes: Any) -> finetune.Config:
        text = {"corpus": [str(folder / "text.txt")], "held_out": 0.2}
        return from_dict(finetune.Config, text | settings(folder, out, **changes))

    more = {"epochs": 1, "steps": None, "sample_every": 4, "sample_tokens": 3}
    result = finetune.run(config(tmp_path / "a", **more), Events(memory))
    found = [e.metrics["loss"] for e in memory.of(ev.Evaluated)]
    facts = memory.of(ev.RunStarted)[0].facts
    assert facts["bytes"] + facts["held_out"]["bytes"] == (folder / "text.txt").stat().st_size
    assert facts["epochs"]["all"] >= 1 and memory.of(ev.Sampled) and len(found) == 1
    finetune.run(config(back_to(3, tmp_path / "a", tmp_path / "b"), **more, resume=True), Events())
    same(tmp_path / "a", tmp_path / "b")
    base = finetune.run(config(tmp_path / "c", steps=1, lr=1e-9), Events())
    assert result.metrics["loss"] < base.metrics["loss"]
    finetune.run(config(tmp_path / "d", steps=1, full=True), Events())
    assert "model.embed_tokens.weight" in read_tensors(tmp_path / "d" / "final", "model")
    for changes, message in (({"base": None}, "no base to tune"), ({"corpus": []}, "nothing to learn from")):
        with pytest.raises(ConfigError, match=message):
            finetune.run(config(tmp_path / "e", **changes), Events())
