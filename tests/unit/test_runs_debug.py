"""Debugging an adapter: it is opened on its base, and what is shown are its own tensors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlx.utils import tree_map

import nano
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint
from tinygpt.peft import _adapter
from tinygpt.runs import _pieces, debug


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
    with pytest.raises(CheckpointError, match="fewer than two tokens"):
        debug.loss(adapter.parent / "base", "")
    with pytest.raises(ConfigError, match="--top must be at least 1, got 0"):
        debug.logits(adapter.parent / "base", "a", 0)


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
