"""What every adapter technique promises."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError, UnsupportedError
from tinygpt.model import checkpoint
from tinygpt.model.lm import LM
from tinygpt.peft import _adapter, _layers
from tinygpt.peft._adapter import PEFT
from tinygpt.runs import inspect
from tinygpt.train.objective import next_token
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient


def _pair(config: Any, n_out: int, n_in: int) -> int:
    return config.rank * (n_in + n_out)


# Numbers that learn beside a matrix of (out, in), by technique; a new one adds its formula from the paper.
FORMULA = {
    "lora": _pair, "rslora": _pair, "pissa": _pair, "olora": _pair, "loftq": _pair,
    "lora_fa": lambda config, n_out, n_in: config.rank * n_out,
    "adalora": lambda config, n_out, n_in: config.start_rank * (n_in + n_out + 1),
    "vera": lambda config, n_out, n_in: config.rank + n_out,
    "ia3": lambda config, n_out, n_in: n_out,
    "dora": lambda config, n_out, n_in: _pair(config, n_out, n_in) + n_out,
}  # fmt: skip
# Techniques whose start differs from the base model on purpose: a quantized matrix takes the base's place.
NOT_IDENTITY = {"loftq"}
# Techniques whose base ends quantized.
QUANTIZES = {"loftq"}
# Techniques that draw nothing: their start is the matrix's own.
NOT_DRAWN = {"pissa", "olora", "loftq", "vera", "ia3"}
# What makes a config of rank r, where that is not `rank` alone; (): the technique has no rank.
RANKED = {"adalora": ("rank", "init_rank"), "ia3": ()}
# Techniques whose rank no matrix bounds.
UNBOUND = {"ia3", "vera"}
# What a technique needs to mean something on the nano model, whose base may be quantized already.
KNOBS: dict[str, dict[str, Any]] = {"loftq": {"bits": 2, "iters": 2}}


def options(name: str, **more: Any) -> dict[str, Any]:
    return {**KNOBS.get(name, {}), **more}


def ranked(name: str, rank: int) -> dict[str, int]:
    return dict.fromkeys(RANKED.get(name, ("rank",)), rank)


# Looked at whenever a file is saved; the others by `make test`.
QUICK = ("lora", "dora")
pytestmark = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.wide) for n in PEFT.names()]
)
IDS = mx.array(nano.tokens(2, 12))


def learn(model: LM, steps: int = 3) -> Gradient:
    update = Gradient(next_token.build(model), adamw.build(adamw.Config()), lambda step: 1e-2, compiled=False)
    for step in range(1, steps + 1):
        update.step(nano.batch(2, 12, seed=step), step)
    return update


SAVED: dict[tuple[str, str], tuple[Path, Path, LM]] = {}


@pytest.fixture
def saved(tmp_path_factory: pytest.TempPathFactory, name: str, shape: str) -> tuple[Path, Path, LM]:
    """A base, an adapter trained on it for a few steps, and the model that carries it; made once for all."""
    if (name, shape) not in SAVED:
        folder = tmp_path_factory.mktemp(f"{name}-{shape}")
        model = nano.model(shape)
        base = checkpoint.save(folder / "base.tinygpt", model)
        pick = Pick(name, options(name, targets=("all-linear",)))
        _adapter.attach(model, pick, seed=1)
        update = learn(model)
        path = _adapter.save_adapter(
            folder / "a.lora", model, pick, base=base, state={"step": 3}, optimizer=update.state()
        )
        SAVED[name, shape] = base, path, model
    return SAVED[name, shape]


def test_starts_as_the_base_model(name: str, nano_model: LM) -> None:
    before = nano_model(IDS)
    _adapter.attach(nano_model, Pick(name), seed=1)
    if name not in NOT_IDENTITY:
        assert mx.array_equal(nano_model(IDS), before)


def test_only_the_adapter_learns(name: str, nano_model: LM) -> None:
    _adapter.attach(nano_model, Pick(name), seed=1)
    before = nano.flat(nano_model)
    own = set(dict(tree_flatten(nano_model.trainable_parameters())))
    assert own and own <= set(_adapter.tensors(nano_model))
    learn(nano_model)
    after = nano.flat(nano_model)
    for tensor in before:
        assert np.array_equal(before[tensor], after[tensor]) == (tensor not in own), tensor


def test_number_of_parameters_is_the_formula(name: str, nano_model: LM) -> None:
    config = PEFT.config(name)(**ranked(name, 3), targets=("k_proj", "v_proj"))
    layers = _adapter.picked(nano_model, Pick(name, config))
    expected = sum(FORMULA[name](config, *_layers.shape(layer)) for layer in layers.values())
    _adapter.attach(nano_model, Pick(name, config))
    assert sum(t.size for _, t in tree_flatten(nano_model.trainable_parameters())) == expected


def test_same_seed_same_start(name: str) -> None:
    def start(seed: int, targets: str = "q_proj") -> dict[str, mx.array]:
        model = nano.model()
        _adapter.attach(model, Pick(name, {"targets": targets.split(",")}), seed=seed)
        return _adapter.tensors(model)

    one, again, other, more = start(1), start(1), start(2), start(1, "q_proj,v_proj")
    assert all(mx.array_equal(one[n], again[n]) for n in one)
    assert any(not mx.array_equal(one[n], other[n]) for n in one) == (name not in NOT_DRAWN)
    # A tensor's draw depends on its own name only, not on what else is adapted.
    assert all(mx.array_equal(one[n], more[n]) for n in one)


def test_saved_and_loaded_gives_the_same_logits(name: str, saved: tuple[Path, Path, LM]) -> None:
    base, path, model = saved
    fresh = checkpoint.load(base).model
    untouched = fresh(IDS)
    loaded = _adapter.load_adapter(path, fresh, base=base)
    assert loaded.pick.name == name and loaded.manifest["kind"] == "adapter"
    assert inspect.inspect(path)["peft"]["name"] == name
    assert mx.array_equal(fresh(IDS), model(IDS))
    assert not mx.allclose(fresh(IDS), untouched, atol=1e-3)
    learning = [set(dict(tree_flatten(m.trainable_parameters()))) for m in (fresh, model)]
    assert learning[0] == learning[1]


def test_resumed_equals_straight(name: str, saved: tuple[Path, Path, LM]) -> None:
    base, path, model = saved
    model = checkpoint.load(base).model
    _adapter.attach(model, Pick(name, options(name, targets=("all-linear",))), seed=1)
    straight = learn(model, 5)

    resumed = checkpoint.load(base).model
    loaded = _adapter.load_adapter(path, resumed, base=base)
    update = Gradient(
        next_token.build(resumed), adamw.build(adamw.Config()), lambda step: 1e-2, compiled=False
    )
    update.restore(loaded.optimizer())
    for step in range(loaded.state()["step"] + 1, 6):
        update.step(nano.batch(2, 12, seed=step), step)
    assert all(mx.array_equal(straight.weights[n], update.weights[n]) for n in straight.weights)
    assert all(mx.array_equal(v, update.state()[n]) for n, v in straight.state().items())


def test_parts_of_a_batch_add_up(name: str) -> None:
    """8 parts of a row each learn what the whole batch does."""

    def learned(parts: int) -> dict[str, mx.array]:
        model = nano.model()
        _adapter.attach(model, Pick(name, options(name)), seed=1)
        optimizer = adamw.build(adamw.Config(eps=1e-4))
        update = Gradient(
            next_token.build(model), optimizer, lambda step: 1e-2, compiled=False, accumulate=parts
        )
        for step in range(1, 3):
            update.step(nano.Rows()[step], step)
        return update.weights

    whole, split = learned(1), learned(8)
    for tensor, value in whole.items():
        nano.close(split[tensor], value, 1e-3)


def test_fused_equals_unfused(name: str, saved: tuple[Path, Path, LM], tmp_path: Path) -> None:
    base, _, model = saved
    beside = model(IDS)
    bits = nano.flat(model)
    out = _adapter.fuse(model, dequantize=name in QUANTIZES)
    nano.close(model(IDS), beside, 1e-4)
    assert not _adapter.adapters(model)
    merged = checkpoint.save(tmp_path / "merged.tinygpt", model)
    assert mx.array_equal(checkpoint.load(merged).model(IDS), model(IDS))
    _adapter.unfuse(model, out)
    assert mx.array_equal(model(IDS), beside)
    assert all(np.array_equal(value, bits[n]) for n, value in nano.flat(model).items())


def test_a_quantized_base_learns_and_fuses_dequantized(name: str) -> None:
    model = nano.model()
    nn.quantize(model, group_size=32, bits=8, class_predicate=lambda path, m: isinstance(m, nn.Linear))
    before = model(IDS)
    _adapter.attach(model, Pick(name, options(name)), seed=1)
    assert mx.array_equal(model(IDS), before) == (name not in NOT_IDENTITY)
    learn(model)
    beside = model(IDS)
    assert not mx.array_equal(beside, before)
    with pytest.raises(UnsupportedError, match="quantized"):
        _adapter.fuse(model)
    out = _adapter.fuse(model, dequantize=True)
    nano.close(model(IDS), beside, 1e-4)
    _adapter.unfuse(model, out)
    assert mx.array_equal(model(IDS), beside)


def test_a_model_with_an_adapter_is_not_saved_as_a_model(name: str, nano_model: LM, tmp_path: Path) -> None:
    _adapter.attach(nano_model, Pick(name))
    with pytest.raises(UnsupportedError, match="fuse"):
        checkpoint.save(tmp_path / "x", nano_model)
    with pytest.raises(ConfigError, match="carries an adapter already"):
        _adapter.attach(nano_model, Pick(name))


def test_an_unknown_target_names_the_nearest(name: str, nano_model: LM) -> None:
    with pytest.raises(ConfigError, match="'q_prj'.*Did you mean 'q_proj'"):
        _adapter.attach(nano_model, Pick(name, {"targets": ("q_prj",)}))
    with pytest.raises(ConfigError, match="unknown config key 'peft.tagets'.*'targets'"):
        _adapter.attach(nano_model, Pick(name, {"tagets": ("q_proj",)}))


def test_a_rank_beyond_a_matrix_is_not_trained_but_read(name: str, tmp_path: Path) -> None:
    """q_proj is 32 x 32 and v_proj 16 x 32 here."""
    if name in UNBOUND:
        return
    model = nano.model("llama")
    base = checkpoint.save(tmp_path / "base", model)
    check, config = PEFT.load(name).check, PEFT.config(name)
    check(config(**ranked(name, 16)), _adapter.chosen(model, ("q_proj", "v_proj")))
    check(config(**ranked(name, 32)), _adapter.chosen(model, ("q_proj",)))
    with pytest.raises(ConfigError, match=r"rank 17 is larger than .*layers\.0\.self_attn\.v_proj: 16 x 32"):
        check(config(**ranked(name, 17)), _adapter.chosen(model, ("q_proj", "v_proj")))
    _adapter.attach(model, Pick(name, ranked(name, 17)))
    wide = _adapter.save_adapter(tmp_path / "wide", model, Pick(name, ranked(name, 17)), base=base)
    assert _adapter.load_adapter(wide, checkpoint.load(base).model, base=base).pick.options.rank == 17


def edit(path: Path, **changes: object) -> None:
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(data))


def test_what_does_not_fit_is_refused_and_the_model_is_left_alone(
    name: str, saved: tuple[Path, Path, LM], tmp_path: Path
) -> None:
    base, path, model = saved
    other = checkpoint.save(tmp_path / "other.tinygpt", nano.model(seed=5))
    wrong = checkpoint.load(other).model
    with pytest.raises(CheckpointError, match="trained on other weights"):
        _adapter.load_adapter(path, wrong, base=other)
    narrow = nano.model("llama", hidden_size=16)
    before = nano.flat(narrow)
    with pytest.raises(CheckpointError, match=r"has shape|lacks the tensor|no place for|does not fit"):
        _adapter.load_adapter(path, narrow)
    assert nano.flat(narrow).keys() == before.keys()
    with pytest.raises(CheckpointError, match="of kind model, not an adapter"):
        _adapter.load_adapter(base, checkpoint.load(base).model)
    with pytest.raises(CheckpointError, match="of kind adapter, not a model"):
        checkpoint.load(path)
    with pytest.raises(CheckpointError, match="no adapter at"):
        _adapter.load_adapter(tmp_path / "nowhere", wrong)

    cut = shutil.copytree(path, tmp_path / "cut")
    tensors = cut / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="bytes, the manifest says"):
        _adapter.load_adapter(cut, wrong)
    with pytest.raises(ConfigError, match="carries an adapter already"):
        _adapter.load_adapter(path, model)


def test_weights_that_are_not_finite_are_refused(name: str, tmp_path: Path) -> None:
    model = nano.model()
    base = checkpoint.save(tmp_path / "base", model)
    _adapter.attach(model, Pick(name))
    model.update(tree_map(lambda w: w * mx.nan, model.trainable_parameters()))
    path = _adapter.save_adapter(tmp_path / "a", model, Pick(name), base=base)
    fresh = nano.model()
    before = nano.flat(fresh)
    with pytest.raises(CheckpointError, match="a: base_model.* holds NaN or infinity"):
        _adapter.load_adapter(path, fresh)
    assert nano.flat(fresh).keys() == before.keys()
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        inspect.validate(path)


def test_the_base_is_found_from_anywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the adapter's folder sees it: also when both were moved, and when another model has the old name."""
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    model = nano.model()
    base = checkpoint.save(Path("base"), model)
    _adapter.attach(model, Pick(name))
    _adapter.save_adapter(Path("run/final"), model, Pick(name), base=base)
    manifest = checkpoint.read_json(Path("run/final/tinygpt.json"))
    assert manifest["base"]["path"] == "../../base"
    config = checkpoint.read_json(Path("run/final/adapter_config.json"))
    assert config["base_model_name_or_path"] == "base", "what peft goes by, as it was given"
    assert _adapter.base_of(Path("run/final")) == Path("base")
    monkeypatch.chdir(tmp_path)
    assert _adapter.base_of(Path("one/run/final")) == (tmp_path / "one" / "base").resolve()
    (tmp_path / "one").rename(tmp_path / "two")
    checkpoint.save(tmp_path / "base", nano.model(seed=5))
    found = _adapter.base_of(Path("two/run/final"))
    assert found == (tmp_path / "two" / "base").resolve()
    _adapter.load_adapter(Path("two/run/final"), checkpoint.load(found).model, base=found)
    assert _adapter.base_of(tmp_path / "base") is None
    for odd in ("base", {"path": 3}, [1]):
        edit(tmp_path / "two" / "run" / "final" / "tinygpt.json", base=odd)
        with pytest.raises(CheckpointError, match="names no base model"):
            _adapter.base_of(Path("two/run/final"))
        with pytest.raises(CheckpointError, match="names no base model"):
            _adapter.load_adapter(Path("two/run/final"), nano.model())
