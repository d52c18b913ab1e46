"""Debugging an adapter: it is opened on its base, and what is shown are its own tensors."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from mlx.utils import tree_map

import nano
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError, DataError
from tinygpt.data.tokenizer import byte
from tinygpt.eval.suites import heldout_loss
from tinygpt.eval.suites._result import Examples
from tinygpt.model import checkpoint
from tinygpt.peft import _adapter
from tinygpt.runs import _pieces, debug, inspect
from tinygpt.runs._local_endpoint import LocalEndpoint


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A run's adapter, not at its start any more, beside its base."""
    tokenizer = byte.load(None)
    model = nano.model(vocab_size=tokenizer.vocab_size)
    base = checkpoint.save(tmp_path / "base", model, write_tokenizer=tokenizer.save)
    _adapter.attach(model, Pick("lora"), seed=1)
    model.update(tree_map(lambda w: w + 0.1, model.trainable_parameters()))
    return _adapter.save_adapter(tmp_path / "run" / "final", model, Pick("lora"), base=base).parent


def test_an_adapter_is_debugged_on_its_base(adapter: Path) -> None:
    tensors = checkpoint.read_tensors(adapter / "final", "adapter_model")
    assert debug.names(adapter) == {"common": len(tensors), "missing": [], "extra": []}
    assert debug.dtypes(adapter)["float32"]["values"] == sum(t.size for t in tensors.values())
    rows = debug.load(adapter)
    assert len(rows) == len(tensors) and all(r["difference"] == 0 for r in rows)
    base = adapter.parent / "base"
    loaded, _ = _pieces.open_model(base, adapter)
    wanted = loaded.model(nano.mx.array([[ord("a")]]))[0, -1].max().item()
    assert debug.logits(adapter, "a", 1)[0]["logit"] == pytest.approx(wanted, rel=1e-5)
    assert debug.loss(adapter, None)["loss"] != pytest.approx(debug.loss(base, None)["loss"], rel=1e-3)


def test_what_cannot_be_measured(adapter: Path) -> None:
    with pytest.raises(DataError, match="there is no text to measure"):
        debug.loss(adapter.parent / "base", "")
    with pytest.raises(ConfigError, match="--top must be at least 1, got 0"):
        debug.logits(adapter.parent / "base", "a", 0)


def test_the_last_losses_are_those_of_the_held_out_text(adapter: Path) -> None:
    """A suite is told of in events of the same kind; a loss of 0 is a loss."""
    rows: list[dict[str, object]] = [
        {"kind": "train.step", "step": 1, "loss": 3.0},
        {"kind": "train.eval", "step": 1, "name": "held_out", "metrics": {"loss": 2.5}},
        {"kind": "train.step", "step": 2, "loss": 0.0},
        {"kind": "train.eval", "step": 2, "name": "held_out", "metrics": {"loss": 2.0}},
        {"kind": "train.eval", "step": 2, "name": "sort_6", "metrics": {"accuracy": 0.5}},
    ]
    (adapter / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = inspect.inspect(adapter)
    assert (facts["last_loss"], facts["last_held_out"]) == (0.0, {"loss": 2.0})


def test_adapters_of_others_are_shown(adapter: Path, tmp_path: Path) -> None:
    (adapter / "final" / "tinygpt.json").unlink()  # now as peft leaves one
    facts = inspect.inspect(adapter)
    assert (facts["kind"], facts["adapter"]["peft_type"]) == ("adapter of peft", "LORA")
    assert facts["parameters"] == sum(math.prod(t["shape"]) for t in facts["tensors"]) > 0
    (tmp_path / "old.lora").write_bytes(b"TGLA" + bytes(20))
    with pytest.raises(CheckpointError, match="an adapter file of the original"):
        inspect.inspect(tmp_path / "old.lora")


@pytest.mark.parametrize("bos", [None, "<|im_start|>"])
def test_the_loss_is_that_of_eval(tmp_path: Path, bos: str | None) -> None:
    """A start token comes first, and of a character that the context cuts the bytes that were read count."""
    tokenizer = byte.load()
    model = nano.model(vocab_size=tokenizer.vocab_size)
    path = checkpoint.save(tmp_path / "m", model, write_tokenizer=tokenizer.save)
    if bos is not None:
        beside = path / "tokenizer_config.json"
        beside.write_text(json.dumps(json.loads(beside.read_text()) | {"bos_token": bos}))
        (path / "tinygpt.json").unlink()  # it lists the file that has changed
    found = debug.loss(path, "to be é")
    examples = Examples.of([{"id": "x", "text": "to be é"}])
    rows = heldout_loss.score(LocalEndpoint.open(path), examples, heldout_loss.Config()).rows
    wanted = {row.metric: row.score for row in rows}
    assert (found["tokens"], found["bytes"]) == (8, 8)
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(wanted["bits_per_byte"], rel=1e-5)
    cut = debug.loss(path, "a" * 127 + "é")
    assert (cut["tokens"], cut["bytes"]) == (128, 128)
    ids = [*([] if bos is None else [tokenizer.special[bos]]), *b"to"]
    best = model(nano.mx.array([ids]))[0, -1].max().item()
    assert debug.logits(path, "to", 1)[0]["logit"] == pytest.approx(best, rel=1e-5)


def test_an_adapter_of_peft(adapter: Path) -> None:
    (adapter / "final" / "tinygpt.json").unlink()
    assert _pieces.base_of(adapter / "final") == adapter.parent / "base"
    assert debug.names(adapter / "final")["common"] == 8


def test_an_adapter_without_its_base(adapter: Path) -> None:
    shutil.move(adapter.parent / "base", adapter.parent / "moved")
    assert debug.dtypes(adapter)["float32"]["tensors"] == 8, "that needs no base"
    for call in (debug.names, debug.load, lambda path: debug.logits(path, "a", 1)):
        with pytest.raises(CheckpointError, match="final is an adapter, and its base model is not at .*base"):
            call(adapter)
