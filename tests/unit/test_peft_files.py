"""Files of peft's: what we lack or cannot be is refused by name, targets mean what peft means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError
from tinygpt.model import checkpoint
from tinygpt.peft import _adapter, _layers

# peft's config says all of these.
WIDE = [pytest.param(name, marks=pytest.mark.wide) for name in ("rslora", "dora")]
NAMES = pytest.mark.parametrize("name", ["lora", *WIDE])
IDS = mx.array(nano.tokens(2, 12))


def edit(path: Path, **changes: object) -> None:
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("key", "value"),
    [("bias", "all"), ("rank_pattern", {"q_proj": 2}), ("modules_to_save", ["lm_head"]),
     ("layers_to_transform", [0]), ("a_later_idea", 1), ("init_lora_weights", "corda"),
     ("init_lora_weights", "pissa_niter_4"), ("peft_type", "LOFTQ")],
)  # fmt: skip
@NAMES
def test_features_of_peft_we_lack_are_refused_by_name(
    name: str, tmp_path: Path, key: str, value: object
) -> None:
    model = nano.model()
    base = checkpoint.save(tmp_path / "base", model)
    _adapter.attach(model, Pick(name))
    path = _adapter.save_adapter(tmp_path / "a", model, Pick(name), base=base)
    (path / "tinygpt.json").unlink()
    _adapter.load_adapter(path, nano.model())  # a plain directory of peft's is fine
    edit(path / "adapter_config.json", **{key: value})
    with pytest.raises(CheckpointError, match=key):
        _adapter.load_adapter(path, nano.model())


@pytest.mark.parametrize(
    ("key", "value"),
    [("r", "x"), ("r", None), ("r", 8.5), ("r", True), ("r", 0), ("r", 10**12), ("lora_alpha", None),
     ("lora_alpha", "much"), ("lora_alpha", float("nan")), ("lora_alpha", 10**400), ("target_modules", 3),
     ("target_modules", [3, "q_proj"]), ("target_modules", {"q_proj": 1})],
)  # fmt: skip
@NAMES
def test_values_that_cannot_be_are_refused(name: str, tmp_path: Path, key: str, value: object) -> None:
    model = nano.model()
    base = checkpoint.save(tmp_path / "base", model)
    _adapter.attach(model, Pick(name))
    path = _adapter.save_adapter(tmp_path / "a", model, Pick(name), base=base)
    (path / "tinygpt.json").unlink()
    edit(path / "adapter_config.json", **{key: value})
    with pytest.raises(CheckpointError, match=rf"adapter_config\.json: .*({key}|rank)") as caught:
        _adapter.load_adapter(path, nano.model())
    assert "\n" not in str(caught.value)


@NAMES
def test_a_rank_that_the_tensors_do_not_have(name: str, tmp_path: Path) -> None:
    model = nano.model()
    base = checkpoint.save(tmp_path / "base", model)
    _adapter.attach(model, Pick(name))
    path = _adapter.save_adapter(tmp_path / "a", model, Pick(name), base=base)
    (path / "tinygpt.json").unlink()
    edit(path / "adapter_config.json", r=65536)
    with pytest.raises(
        CheckpointError, match=r"has shape \(8, 32\), this base and config need \(65536, 32\)"
    ):
        _adapter.load_adapter(path, nano.model())


@NAMES
def test_target_patterns_of_peft(name: str, tmp_path: Path) -> None:
    """peft reads a string as a regular expression; a name without tensors is reported."""
    model = nano.model()
    base = checkpoint.save(tmp_path / "base", model)
    pick = Pick(name, {"targets": ("layers.1.self_attn.q_proj",)})
    assert _adapter.attach(model, pick) == ["model.layers.1.self_attn.q_proj"]
    path = _adapter.save_adapter(tmp_path / "a", model, pick, base=base)
    (path / "tinygpt.json").unlink()
    edit(path / "adapter_config.json", target_modules=r".*\.1\..*q_proj")
    fresh = nano.model()
    loaded = _adapter.load_adapter(path, fresh)
    assert list(_adapter.adapters(fresh)) == ["model.layers.1.self_attn.q_proj"]
    assert loaded.pick.name == name
    assert mx.array_equal(fresh(IDS), model(IDS))
    edit(path / "adapter_config.json", target_modules=["q_proj"])
    with pytest.raises(CheckpointError, match="lacks the tensor .*layers.0.self_attn.q_proj"):
        _adapter.load_adapter(path, nano.model())


def test_the_table_of_adapters_is_what_the_files_say() -> None:
    """docs/explain/peft.md: all are there, on the layers that they name. Parity tests see to the rest."""
    page = (Path(__file__).parents[2] / "docs" / "explain" / "peft.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line[:3] == "| `"
    ]
    table = {row[0].strip("`"): row for row in rows}
    assert sorted(table) == _adapter.PEFT.names()
    short = {_layers.LINEAR: "linear", _layers.EMBEDDING: "embedding", _layers.EXPERTS: "experts"}
    for name, row in table.items():
        on = getattr(_adapter.PEFT.load(name), "ON", (_layers.LINEAR,))
        assert row[2] == ", ".join(short[kind] for kind in on), name
