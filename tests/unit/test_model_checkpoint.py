"""The checkpoint directory: round trips, and one sentence for each way it can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core import files
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError, UnsupportedError
from tinygpt.model import checkpoint
from tinygpt.model.lm import LM

IDS = mx.array(nano.tokens(2, 9))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def reseal(folder: Path) -> None:
    """Hashes that fit again, so that what lies below them is looked at."""
    checkpoint.seal(folder, kind="model")


@pytest.fixture
def saved(tmp_path: Path, nano_model: LM) -> Path:
    return checkpoint.save(
        tmp_path / "m.tinygpt", nano_model, ids={"eos": 1, "bos": None, "pad": 0}, state={"step": 7},
        optimizer={"m.x": mx.ones((2,))}, run={"command": "train", "config": {}}, run_id="r1",
    )  # fmt: skip


def test_round_trip(saved: Path, nano_model: LM, shape: str) -> None:
    loaded = checkpoint.load(saved)
    assert loaded.config == nano_model.config
    assert mx.array_equal(loaded.model(IDS), nano_model(IDS)), "the same bits, whatever the layout on disk"
    one, two = nano.flat(loaded.model), nano.flat(nano_model)
    assert one.keys() == two.keys() and all((one[n] == two[n]).all() for n in one)
    manifest = checkpoint.validate(saved)
    assert manifest == loaded.manifest and manifest["kind"] == "model" and manifest["run_id"] == "r1"
    assert set(manifest["files"]) == {p.name for p in saved.iterdir()} - {"tinygpt.json"}
    assert loaded.state() == {"step": 7}
    assert checkpoint.read_tensors(saved, "optimizer")["m.x"].tolist() == [1, 1]
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == shape and config["eos_token_id"] == 1
    assert json.loads((saved / "generation_config.json").read_text()) == {
        "eos_token_id": 1,
        "pad_token_id": 0,
    }


def test_several_stop_ids(tmp_path: Path, nano_model: LM) -> None:
    """Other tools stop at what generation_config.json names; config.json keeps to the one eos."""
    ids = {"eos": 1, "bos": None, "pad": 0}
    for stop_ids, named in (((1, 5), [1, 5]), ((1,), 1)):
        path = checkpoint.save(tmp_path / "m", nano_model, ids=ids, stop_ids=stop_ids, replace=True)
        assert checkpoint.read_json(path / "generation_config.json")["eos_token_id"] == named
        assert checkpoint.read_json(path / "config.json")["eos_token_id"] == 1


def test_a_model_that_is_neither_llama_nor_gpt2(tmp_path: Path) -> None:
    model = nano.model("llama", mlp=Pick("gelu", {"approximate": "none"}), attention_bias=True, mlp_bias=True)
    path = checkpoint.save(tmp_path / "m", model)
    assert json.loads((path / "config.json").read_text())["model_type"] == "tinygpt"
    loaded = checkpoint.load(path)
    assert loaded.config == model.config and mx.array_equal(loaded.model(IDS), model(IDS))


def test_shards(tmp_path: Path, nano_model: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 20_000)
    path = checkpoint.save(tmp_path / "m", nano_model)
    assert len(list(path.glob("model-*-of-*.safetensors"))) > 2
    assert mx.array_equal(checkpoint.load(path).model(IDS), nano_model(IDS))
    next(path.glob("model-00002*")).unlink()
    with pytest.raises(CheckpointError, match="lacks model-00002-of-"):
        checkpoint.load(path)


def test_an_identity_follows_the_weights(tmp_path: Path, saved: Path, nano_model: LM) -> None:
    mine = checkpoint.identity(saved)
    copy = shutil.copytree(saved, tmp_path / "copy")
    assert checkpoint.identity(copy) == mine
    (copy / "tinygpt.json").unlink()
    assert checkpoint.identity(copy) == mine, "with or without a manifest"
    other = checkpoint.save(tmp_path / "other", nano.model(seed=3))
    assert checkpoint.identity(other) != mine
    with pytest.raises(CheckpointError, match="holds no model"):
        checkpoint.identity(tmp_path)


def test_saving_over_one_needs_leave(saved: Path, nano_model: LM) -> None:
    with pytest.raises(ConfigError, match="exists"):
        checkpoint.save(saved, nano_model)
    checkpoint.save(saved, nano_model, replace=True)
    assert not (saved / "state.json").exists(), "nothing of the old one is left"


def truncate(p: Path) -> None:
    file = p / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def flip(p: Path) -> None:
    file = p / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)


def newer(p: Path) -> None:
    edit(p / "tinygpt.json", lambda d: d.update(format=2))


def strange_kind(p: Path) -> None:
    edit(p / "tinygpt.json", lambda d: d.update(kind="banana"))


def other_kind(p: Path) -> None:
    edit(p / "tinygpt.json", lambda d: d.update(kind="probe"))


def no_list(p: Path) -> None:
    edit(p / "tinygpt.json", lambda d: d.pop("files"))


def bad_list(p: Path) -> None:
    edit(p / "tinygpt.json", lambda d: d["files"].update({"config.json": 3}))


def torn_manifest(p: Path) -> None:
    (p / "tinygpt.json").write_text('{"format": 1, "ki')


def lost_file(p: Path) -> None:
    (p / "state.json").unlink()


def lost_manifest(p: Path) -> None:
    (p / "tinygpt.json").unlink()
    (p / "config.json").unlink()


def lost_tensor(p: Path) -> None:
    tensors = checkpoint.read_tensors(p, "model")
    mx.eval(tensors)
    tensors.pop(sorted(tensors)[0])
    mx.save_safetensors(str(p / "model.safetensors"), tensors)
    reseal(p)


def foreign_tensor(p: Path) -> None:
    tensors = checkpoint.read_tensors(p, "model") | {"model.layers.0.self_attn.gate.weight": mx.ones((2,))}
    mx.eval(tensors)
    mx.save_safetensors(str(p / "model.safetensors"), tensors)
    reseal(p)


def wrong_shape(p: Path) -> None:
    edit(p / "config.json", lambda d: d.update(vocab_size=65))
    reseal(p)


def foreign_key(p: Path) -> None:
    edit(p / "config.json", lambda d: d.update(sliding_windw=4))
    reseal(p)


def foreign_type(p: Path) -> None:
    edit(p / "config.json", lambda d: d.update(model_type="no such type"))
    reseal(p)


def no_size(p: Path) -> None:
    edit(p / "config.json", lambda d: d.pop("vocab_size"))
    reseal(p)


def outside(p: Path) -> None:
    edit(p / "tinygpt.json", lambda d: d["files"].update({"../../mine.jsonl": {"bytes": 1, "sha256": ""}}))


def strange_index(p: Path) -> None:
    (p / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}')
    reseal(p)


def vast(p: Path) -> None:
    edit(p / "config.json", lambda d: d.update({"n_embd" if "n_embd" in d else "hidden_size": 2**40}))
    reseal(p)


def many_layers(p: Path) -> None:
    edit(p / "config.json", lambda d: d.update({"n_layer" if "n_layer" in d else "num_hidden_layers": 2**30}))
    reseal(p)


def not_finite(p: Path) -> None:
    tensors = checkpoint.read_tensors(p, "model")
    mx.eval(tensors)
    name = sorted(tensors)[-1]
    tensors[name] = mx.where(mx.arange(tensors[name].size).reshape(tensors[name].shape) == 3, mx.nan, 1.0)
    mx.save_safetensors(str(p / "model.safetensors"), tensors)
    reseal(p)


def not_tensors(p: Path) -> None:
    (p / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header at all")
    reseal(p)


def no_tensors(p: Path) -> None:
    (p / "model.safetensors").unlink()
    reseal(p)


DEFECTS = {
    truncate: r"model\.safetensors has \d+ bytes, the manifest says \d+",
    flip: "was changed after it was saved",
    newer: "format version 2, this tinygpt reads up to 1",
    strange_kind: "unknown kind 'banana'",
    other_kind: "of kind probe, not a model",
    no_list: "lists no files",
    bad_list: "gives no size and SHA-256 for config.json",
    torn_manifest: r"tinygpt\.json cannot be read",
    lost_file: r"lacks state\.json, which its manifest lists",
    lost_manifest: "has no tinygpt.json",
    lost_tensor: "lacks the tensor model.*weight|lacks the tensor model.*bias",
    foreign_tensor: "self_attn.gate.weight, which this model has no place for",
    wrong_shape: r"has shape \(64, 32\), the config says \(65, 32\)",
    foreign_key: "the key 'sliding_windw', which this build does not know",
    foreign_type: "model_type 'no such type' is not one this build opens",
    no_size: r"vocab_size' is required",
    outside: r"lists \.\./\.\./mine\.jsonl, which lies outside",
    strange_index: "does not say which file of .* holds a tensor",
    vast: r"hidden_size is 1099511627776, at most 2147483647 can be",
    many_layers: "num_hidden_layers is 1073741824, at most 10000 can be",
    not_finite: "holds NaN or infinity",
    not_tensors: "is not a whole safetensors file",
    no_tensors: r"lacks model\.safetensors",
}


# Every third is looked at whenever a file is saved; the others by `make test`.
@pytest.mark.parametrize(
    "defect",
    [
        pytest.param(defect, marks=[pytest.mark.wide] if i % 3 else [], id=defect.__name__)
        for i, defect in enumerate(DEFECTS)
    ],
)
def test_each_defect_has_its_sentence(saved: Path, defect: Callable[[Path], None]) -> None:
    defect(saved)
    with pytest.raises(CheckpointError, match=DEFECTS[defect]) as caught:
        checkpoint.load(saved)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    told = {foreign_key, foreign_type, no_size}  # the message alone says what to do
    assert caught.value.hint or defect in told


def test_a_large_sum_of_finite_values_is_no_defect() -> None:
    tensors = {"w": mx.full((4096,), 6e4).astype(mx.float16)}
    assert tensors["w"].sum().item() == float("inf")
    checkpoint.refuse_nan(tensors, "here")
    for value in (mx.nan, mx.inf, -mx.inf):
        with pytest.raises(CheckpointError, match="here: w holds NaN or infinity"):
            checkpoint.refuse_nan({"w": mx.array([1.0, value])}, "here")


def test_a_file_that_may_not_be_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name == "model.safetensors":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    for call in (checkpoint.load, checkpoint.validate, lambda p: checkpoint.load(p, hashes=False)):
        with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: Permission denied"):
            call(saved)


def test_no_two_defects_share_a_sentence() -> None:
    assert len(set(DEFECTS.values())) == len(DEFECTS)


def test_what_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no model at"):
        checkpoint.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is not a directory"):
        checkpoint.load(tmp_path / "file")
    with pytest.raises(CheckpointError, match="has no tinygpt.json"):
        checkpoint.load(tmp_path)


def test_a_replacement_killed_between_its_renames_is_undone_by_reading(saved: Path, nano_model: LM) -> None:
    work = files.beside(saved)
    (work / "new").mkdir(parents=True)
    saved.rename(work / "old")
    assert mx.array_equal(checkpoint.load(saved).model(IDS), nano_model(IDS))


def test_weights_that_are_no_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    """MLX reads 8-bit floats as bytes: as weights they would be other numbers. Pickles are not opened."""
    (saved / checkpoint.MANIFEST).unlink()
    file = saved / "model.safetensors"
    tensors = checkpoint.read_tensors(saved, "model")
    name = next(name for name in tensors if name.endswith("norm.weight") or name == "wte.weight")
    mx.save_safetensors(str(file), tensors | {name: tensors[name].astype(mx.int32)})
    with pytest.raises(CheckpointError, match="holds numbers of the type int32, and config.json"):
        checkpoint.load(saved)
    header = b'{"x":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(UnsupportedError, match="numbers of the type F64"):
        checkpoint.load(saved)
    file.rename(saved / "pytorch_model.bin")
    with pytest.raises(UnsupportedError, match=r"only pickled weights \(pytorch_model.bin\)"):
        checkpoint.load(saved)
