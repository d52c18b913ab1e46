"""Distillations: resumed is straight, whatever learns and whoever teaches; wrong pairs are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data import bpe, rows
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint
from tinygpt.model.checkpoint import read_tensors
from tinygpt.runs import distill


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, two teachers, one of another tokenizer, rows and a text."""
    found = tmp_path_factory.mktemp("distill")
    tokenizer = byte.load()
    for name, seed in (("student", 0), ("teacher", 1), ("other", 2)):
        lm = nano.model(seed=seed, vocab_size=tokenizer.vocab_size, max_position_embeddings=96)
        checkpoint.save(found / name, lm, write_tokenizer=tokenizer.save)
    data = [{"prompt": f"a {i}", "completion": "yes " * (i % 7 + 1)} for i in range(21)]
    rows.write(found / "a.jsonl", data)
    (found / "text.txt").write_text("".join(f"line {i} of a text\n" for i in range(120)))
    own = bpe.train_bpe(["line of a text " * 9], bpe.Config(vocab_size=300))
    lm = nano.model(vocab_size=own.vocab_size, max_position_embeddings=96)
    checkpoint.save(found / "foreign", lm, write_tokenizer=own.save)
    return found


def config(folder: Path, out: Path, **changes: Any) -> distill.Config:
    given: dict[str, Any] = {
        "base": str(folder / "student"), "teacher": str(folder / "teacher"), "out": str(out), "steps": 6,
        "data": [str(folder / "a.jsonl")], "batch": 4, "seed": 1, "compile": False, "save_every": 3,
        "lr": 0.01, "lock": False, "context": 64, "held_out": 0.2, "eval_every": 6, **changes,
    }  # fmt: skip
    return from_dict(distill.Config, {k: v for k, v in given.items() if v is not None})


def weights(path: Path) -> dict[str, Any]:
    return read_tensors(path, "adapter_model" if (path / "adapter_config.json").exists() else "model")


WAYS: dict[str, dict[str, Any]] = {
    "adapter": {"adapter": "lora"},
    "qlora": {"qlora": True, "qlora_group_size": 32},
    "all weights, answers alone": {"full": True, "loss": {"name": "jsd", "beta": 0.3}, "dropout": 0.1},
    "plain text": {"full": True, "data": None, "corpus": ["text.txt"], "loss": "reverse_kl"},
    "own answers": {"full": True, "on_policy": 0.7, "loss": "reverse_kl", "accumulate": 2},
    "own text": {"data": None, "corpus": ["text.txt"], "on_policy": 1.0, "adapter": "lora"},
    "a fresh student": {"base": None, "data": None, "corpus": ["text.txt"], "temperature": 2.0},
}


@pytest.mark.parametrize("way", WAYS)
def test_resumed_is_straight(way: str, folder: Path, tmp_path: Path) -> None:
    how = dict(WAYS[way])
    if "corpus" in how:
        how["corpus"] = [str(folder / name) for name in how["corpus"]]
    done = distill.run(config(folder, tmp_path / "a", **how), Events())
    assert done.step == 6 and done.metrics["divergence"] > 0
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "final")
    shutil.rmtree(tmp_path / "b" / "steps" / "000006")
    again = distill.run(config(folder, tmp_path / "b", **how, resume=True), Events())
    one, other = weights(tmp_path / "a" / "final"), weights(tmp_path / "b" / "final")
    assert again.step == 6 and one.keys() == other.keys()
    assert all((other[name] == value).all().item() for name, value in one.items())


def test_the_student_comes_closer_to_its_teacher(folder: Path, tmp_path: Path, memory: Any) -> None:
    how: dict[str, Any] = {"full": True, "alpha": 1.0, "steps": 40, "eval_every": 1}
    distill.run(config(folder, tmp_path / "a", **how), Events(memory))
    found = [e.metrics["divergence"] for e in memory.events if e.kind == "train.eval"]
    assert len(found) == 40 and found[-1] < 0.5 * found[0], found


def test_another_teacher_is_another_run(folder: Path, tmp_path: Path) -> None:
    distill.run(config(folder, tmp_path / "a"), Events())
    shutil.rmtree(tmp_path / "a" / "steps" / "000006")
    with pytest.raises(ConfigError, match="the teacher changed"):
        distill.run(config(folder, tmp_path / "a", resume=True, teacher=str(folder / "other")), Events())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"teacher": None}, "there is no teacher"),
        ({"data": None}, "nothing to learn from"),
        ({"corpus": ["x.txt"]}, "leave one of them out|--data has rows"),
        ({"data": None, "corpus": ["x.txt"], "learn": "all"}, "learn"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"on_policy": 1.5}, "from 0 to 1"),
        ({"on_policy_temperature": 0.5}, "on.policy"),
        ({"on_policy": 0.5, "alpha": 0.0}, "does not hear it"),
        ({"on_policy": 0.5, "cache_teacher": "auto"}, "the data's answers alone"),
        ({"alpha": 1.5}, "alpha must be from 0 to 1"),
        ({"teacher": "foreign"}, "another tokenizer"),
        ({"loss": {"name": "jsd", "beta": 1.0}}, "above 0 and below 1"),
        ({"loss": "forward-kl2"}, "forward_kl"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], why: str, folder: Path, tmp_path: Path) -> None:
    if change.get("teacher"):
        change = {"teacher": str(folder / change["teacher"])}
    with pytest.raises(ConfigError, match=why):
        distill.run(config(folder, tmp_path / "a", **change), Events())
    assert not (tmp_path / "a").exists()
