"""Distillations: resumed is straight, whatever learns and whoever teaches; wrong pairs are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError, DataError
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
    reasons = [{"prompt": f"a {i}", "completion": "yes", "rationale": "so " * (i % 5 + 1)} for i in range(21)]
    rows.write(found / "why.jsonl", reasons)
    (found / "text.txt").write_text("".join(f"line {i} of a text\n" for i in range(120)))
    own = bpe.train_bpe(["line of a text " * 9], bpe.Config(vocab_size=300))
    lm = nano.model(vocab_size=own.vocab_size, max_position_embeddings=96)
    checkpoint.save(found / "foreign", lm, write_tokenizer=own.save)
    wide: dict[str, Any] = {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
    }
    lm = nano.model(seed=3, vocab_size=tokenizer.vocab_size, max_position_embeddings=96, **wide)
    checkpoint.save(found / "wide", lm, write_tokenizer=tokenizer.save)
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
    "another tokenizer, answers": {"full": True, "teacher": "foreign"},
    "another tokenizer, own text": {
        "data": None, "corpus": ["text.txt"], "on_policy": 0.5, "adapter": "lora", "teacher": "foreign",
        "loss": "uld", "accumulate": 2,
    },
    "hidden states": {"full": True, "teacher": "wide", "hint": "hidden"},
    "hidden states, an adapter": {"adapter": "lora", "teacher": "wide", "hint": "hidden"},
    "attention": {"full": True, "teacher": "wide", "hint": "attention", "hint_weight": 0.5},
    "reasons": {"full": True, "data": ["why.jsonl"], "rationale_weight": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_resumed_is_straight(way: str, folder: Path, tmp_path: Path) -> None:
    how = dict(WAYS[way])
    for name in ("corpus", "data", "teacher"):
        if isinstance(given := how.get(name), list):
            how[name] = [str(folder / file) for file in given]
        elif given:
            how[name] = str(folder / given)
    done = distill.run(config(folder, tmp_path / "a", **how), Events())
    assert done.step == 6 and done.metrics["divergence"] > 0
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "final")
    shutil.rmtree(tmp_path / "b" / "steps" / "000006")
    again = distill.run(config(folder, tmp_path / "b", **how, resume=True), Events())
    one, other = weights(tmp_path / "a" / "final"), weights(tmp_path / "b" / "final")
    assert again.step == 6 and one.keys() == other.keys()
    assert all((other[name] == value).all().item() for name, value in one.items())
    assert not any("hints" in name for name in one)
    beside = [
        name for name in read_tensors(tmp_path / "b" / "steps" / "000003", "optimizer") if "beside." in name
    ]
    assert len(beside) == (2 if how.get("hint") == "hidden" else 0)


def test_what_is_learned_beside_the_student_is_not_in_it(folder: Path, tmp_path: Path, memory: Any) -> None:
    """The final model opens as any other, and its projections went on learning."""
    how: dict[str, Any] = {"full": True, "teacher": str(folder / "wide"), "hint": "hidden", "alpha": 0.0}
    done = distill.run(config(folder, tmp_path / "a", **how, steps=20), Events(memory))
    hints = [e.metrics["hint"] for e in memory.events if e.kind == "train.step"]
    assert hints[-1] < 0.8 * hints[0] and done.metrics["hint"] > 0
    loaded = checkpoint.load(tmp_path / "a" / "final")
    assert (
        "hints" not in loaded.model
        and loaded.tensors().keys() == checkpoint.load(folder / "student").tensors().keys()
    )


def test_a_teacher_with_another_tokenizer_says_where_it_meets_the_student(
    folder: Path, tmp_path: Path, memory: Any
) -> None:
    how: dict[str, Any] = {
        "full": True, "alpha": 1.0, "steps": 30, "teacher": str(folder / "foreign"), "data": None,
        "corpus": [str(folder / "text.txt")],
    }  # fmt: skip
    done = distill.run(config(folder, tmp_path / "a", **how), Events(memory))
    facts = next(e.facts for e in memory.events if e.kind == "run.started")
    assert 0.1 < facts["aligned"] < 0.9 and facts["shared_tokens"] == byte.load().vocab_size
    found = [e.metrics["divergence"] for e in memory.events if e.kind == "train.step"]
    assert done.step == 30 and found[-1] < 0.8 * found[0], found


def test_labels_alone_need_no_teacher(folder: Path, tmp_path: Path, memory: Any) -> None:
    how: dict[str, Any] = {
        "full": True, "teacher": None, "alpha": 0.0, "rationale_weight": 0.5,
        "data": [str(folder / "why.jsonl")],
    }  # fmt: skip
    done = distill.run(config(folder, tmp_path / "a", **how), Events(memory))
    facts = next(e.facts for e in memory.events if e.kind == "run.started")
    assert facts["rationales"] == 21 and "teacher_parameters" not in facts
    assert done.metrics["loss"] > 0 and "divergence" not in done.metrics


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
        ({"teacher": "foreign", "hint": "hidden"}, "the student's tokenizer"),
        ({"teacher": None, "alpha": 0.0, "hint": "hidden"}, "there is no teacher"),
        ({"teacher": None, "alpha": 0.0, "teacher_adapter": ["x"]}, "teacher-adapter means nothing"),
        ({"hint_weight": 2.0}, "hint-weight means nothing"),
        ({"hint": "hidden", "hint_weight": 0.0}, "must be positive"),
        ({"hint": "hidden", "grad_checkpoint": True}, "grad-checkpoint keeps nothing"),
        ({"rationale_weight": -1.0}, "must not be negative"),
        ({"rationale_weight": 0.5}, "no row of --data has a 'rationale'"),
        ({"rationale_field": "why"}, "rationale-field means nothing"),
        ({"rationale_weight": 0.1, "prompt_weight": 0.3}, "prompts would count more"),
        ({"loss": {"name": "jsd", "beta": 1.0}}, "above 0 and below 1"),
        ({"loss": "forward-kl2"}, "forward_kl"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], why: str, folder: Path, tmp_path: Path) -> None:
    if change.get("teacher"):
        change = {**change, "teacher": str(folder / change["teacher"])}
    with pytest.raises((ConfigError, DataError), match=why):
        distill.run(config(folder, tmp_path / "a", **change), Events())
    assert not (tmp_path / "a").exists()
