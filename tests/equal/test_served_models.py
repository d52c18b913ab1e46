"""Models of a server say what they say in this process, with adapters over the arrays of one base."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError, UnknownModel
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane
from tinygpt.infer.worker import Worker
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize
from tinygpt.model.quantized import Packing
from tinygpt.model.twin import own_bytes, twin
from tinygpt.peft import _adapter
from tinygpt.runs import _pieces, _served
from tinygpt.runs._lanes import Lanes
from tinygpt.runs._packs import Packs
from tinygpt.runs._serve_settings import Config
from tinygpt.serve.registry import Registry

GREEDY = SampleConfig(temperature=0, max_tokens=12)
ADAPTERS = {"lora": {"rank": 2}, "dora": {"rank": 2}, "ia3": {}}


def _saved(folder: Path, seed: int = 3) -> Path:
    config = ModelConfig(
        vocab_size=260, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, initializer_range=0.25,
    )  # fmt: skip
    tokenizer = ByteTokenizer()
    ids = {"eos": tokenizer.eos_id, "bos": tokenizer.bos_id, "pad": tokenizer.pad_id}
    return checkpoint.save(
        folder,
        initialize(LM(config), seed),
        write_tokenizer=tokenizer.save,
        ids=ids,
        stop_ids=tokenizer.stop_ids,
    )


def _adapter_of(base: Path, out: Path, name: str, seed: int) -> Path:
    model = checkpoint.load(base).model
    pick = Pick(name, ADAPTERS[name]).resolve(_adapter.PEFT, "peft")
    _adapter.attach(model, pick, seed=seed)
    learned = tree_flatten(model.trainable_parameters())
    assert learned
    keys = mx.random.split(mx.random.key(seed), len(learned))
    noisy = [
        (n, v + (0.5 * mx.random.normal(v.shape, key=k)).astype(v.dtype)) for (n, v), k in zip(learned, keys)
    ]
    model.update(tree_unflatten(noisy))
    return _adapter.save_adapter(out, model, pick, base=base)


def _text(engine: Engine) -> list[int]:
    answer = engine.generate_batch([engine.encode("hello")], GREEDY, stop_ids=())
    return answer[0].ids


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("served")
    base = _saved(folder / "base")
    found = {"base": base, "other": _saved(folder / "other", 4)}
    for i, name in enumerate(ADAPTERS):
        found[name] = _adapter_of(base, folder / name, name, i)
    return found


def _registry(worker: Worker, source: _served.Source) -> tuple[Registry, _served.Models]:
    models = _served.Models(source, lambda card, engine: Lane(engine), Events())
    models.check()
    return Registry(worker, models.open, models.known), models


def _held() -> int:
    gc.collect()
    mx.clear_cache()
    return mx.get_active_memory()


def _measure_twins(registry: Registry, before: int) -> Any:
    """That what adapted models hold is in memory once: all together take what their own bytes say."""

    def measure() -> None:
        held, told = _held() - before, registry.used_bytes
        assert held < 1.2 * told + 100_000, (held, told)

    return measure


def _asked(source: _served.Source, names: list[str]) -> dict[str, tuple[list[int], Any, int]]:
    """What each name says, its card and its own bytes, all of them open at once."""

    async def go() -> dict[str, tuple[list[int], Any, int]]:
        with Worker() as worker:
            registry, _ = _registry(worker, source)
            before = await asyncio.wrap_future(worker.call(_held))
            for name in names:
                await registry.load(name)
            await asyncio.wrap_future(worker.call(_measure_twins(registry, before)))
            found = {}
            for name in names:
                async with registry.use(name) as served:
                    ids = await asyncio.wrap_future(worker.call(lambda e=served.engine: _text(e)))
                    found[name] = (ids, served.card, served.own_bytes)
            await registry.close()
            return found

    return asyncio.run(go())


def test_adapters_share_their_base_and_say_what_they_say_alone(made: dict[str, Path]) -> None:
    adapters = [_served.Adapter(name=name, path=made[name]) for name in ADAPTERS]
    source = _served.Source(models={"m": made["base"], "o": made["other"]}, adapters=adapters)
    names = ["m+lora", "m", "m+dora", "m+ia3", "o", "m+lora+ia3"]
    found = _asked(source, names)
    for name, (ids, card, _) in found.items():
        root, *worn = name.split("+")
        path = made["base" if root == "m" else "other"]
        loaded, tokenizer = _pieces.open_model(path, [made[each] for each in worn])
        assert ids == _text(Engine(loaded.model, tokenizer)), name
        assert (card.name, card.adapters, card.loaded) == (name, tuple(worn), True)
    assert len({tuple(ids) for ids, _, _ in found.values()}) == len(names)
    whole = found["m"][2]
    assert all(found[name][2] < whole / 4 for name in names if "+" in name)


def test_an_adapter_for_other_weights_is_not_offered(made: dict[str, Path]) -> None:
    adapters = [_served.Adapter(name="lora", path=made["lora"])]
    source = _served.Source(models={"m": made["base"], "o": made["other"]}, adapters=adapters)
    with Worker() as worker:
        registry, models = _registry(worker, source)
        assert list(models.known()) == ["m", "o", "m+lora"]
        with pytest.raises(UnknownModel):
            registry.resolve("o+lora")


def test_worn_adapters_are_on_every_answer_with_their_weights(made: dict[str, Path]) -> None:
    worn = [
        _served.Adapter(name="", path=made["lora"], weight=0.5),
        _served.Adapter(name="ia3", path=made["ia3"]),
    ]
    found = _asked(_served.Source(models={"m": made["base"]}, adapters=worn), ["m", "m+ia3"])
    for name, paths, weights in (("m", ["lora"], [0.5]), ("m+ia3", ["lora", "ia3"], [0.5, 1.0])):
        loaded, tokenizer = _pieces.open_model(made["base"], [made[p] for p in paths], weights=weights)
        assert found[name][0] == _text(Engine(loaded.model, tokenizer))


@pytest.mark.parametrize(("text", "group"), [("8", 0), ("int4", 32), ("mxfp4", 0)])
def test_packed_models_take_adapters_too(made: dict[str, Path], text: str, group: int) -> None:
    packing = Packs(quantize=text, quantize_group=group).packing
    assert isinstance(packing, Packing)
    adapters = [_served.Adapter(name="lora", path=made["lora"])]
    found = _asked(
        _served.Source(models={"m": made["base"]}, adapters=adapters, packing=packing), ["m", "m+lora"]
    )
    for name, worn in (("m", []), ("m+lora", [made["lora"]])):
        loaded, tokenizer = _pieces.open_model(made["base"], worn, packing=packing)
        assert found[name][0] == _text(Engine(loaded.model, tokenizer))
    assert found["m"][2] < 0.6 * own_bytes(checkpoint.load(made["base"]).model)


def test_context_stops_and_folders(made: dict[str, Path]) -> None:
    source = _served.Source(models={}, folder=made["base"].parent, context=20, stops=False)

    async def go() -> None:
        with Worker() as worker:
            registry, models = _registry(worker, source)
            assert list(models.known()) == ["base", "other"]  # adapters are no models
            async with registry.use("") as served:
                assert served.engine.context == 20 and not served.engine.stop_ids
                with pytest.raises(ConfigError):
                    served.engine.request([1] * 20, GREEDY)

    asyncio.run(go())


def test_a_model_behind_a_link_has_the_links_name(made: dict[str, Path], tmp_path: Path) -> None:
    """As links into the hub's cache, where folders are called by hashes."""
    (tmp_path / "mine").symlink_to(made["base"])
    (tmp_path / "theirs").symlink_to(made["other"])
    assert _served.named(str(tmp_path / "mine"))[0] == "mine"
    models = _served.Models(_served.Source(models={}, folder=tmp_path), lambda c, e: Lane(e), Events())
    assert list(models.known()) == ["mine", "theirs"]


def test_what_is_gone_or_damaged_is_left_out_and_the_rest_is_served(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_served, "FRESH", -1.0)
    base, folder = tmp_path / "base", tmp_path / "folder"
    shutil.copytree(made["base"], base)
    shutil.copytree(made["lora"], tmp_path / "lora")
    for name in ("whole", "json", "cut"):
        shutil.copytree(made["other"], folder / name)
    (folder / "json" / "config.json").write_text("{")
    (folder / "cut" / "model.safetensors").write_bytes(b"xx")
    said = MemorySink()
    lora = _served.Adapter(name="l", path=tmp_path / "lora")
    source = _served.Source(models={"base": base}, folder=folder, adapters=[lora])
    events = Events(said)
    models = _served.Models(source, lambda card, engine: Lane(engine), events)
    models.check()
    for _ in range(3):
        assert list(models.known()) == ["base", "whole", "base+l"]
    assert len(said.events) == 2 and "config.json" in str(said.events)  # told once

    shutil.move(tmp_path / "lora", tmp_path / "gone")
    assert list(models.known()) == ["base", "whole"] and len(said.events) == 3
    shutil.rmtree(folder)
    shutil.move(base, tmp_path / "away")
    assert list(models.known()) == ["base"]  # promised on the command line, and perhaps in memory
    for name in ("base", "whole"):
        with pytest.raises(CheckpointError):
            models.open(name, None)
    with pytest.raises(CheckpointError):  # at the start it is an error
        _served.Models(source, lambda card, engine: Lane(engine), Events()).check()
    shutil.move(tmp_path / "away", base)
    assert models.open("base", None).card.name == "base"


def test_prompts_are_kept_apart_of_models_that_differ_in_their_weights_alone(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of those without a manifest, and of those that take the place of another."""
    monkeypatch.setattr(_served, "FRESH", -1.0)
    for name in ("base", "other"):
        shutil.copytree(made[name], tmp_path / name)
        (tmp_path / name / checkpoint.MANIFEST).unlink()
    source = _served.Source(models={name: tmp_path / name for name in ("base", "other")})
    models = _served.Models(source, lambda card, engine: Lane(engine), Events())
    first, second = (models.known()[name].digest for name in ("base", "other"))
    assert first != second and models.known()["base"].digest == first
    shutil.copyfile(made["other"] / "model.safetensors", tmp_path / "base" / "model.safetensors")
    assert models.known()["base"].digest != first


def test_prompts_of_an_adapter_belong_to_the_base_that_read_them(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where other files took the place of the base's while it was in memory."""
    monkeypatch.setattr(_served, "FRESH", -1.0)
    base, lora = tmp_path / "base", tmp_path / "lora"
    shutil.copytree(made["base"], base)
    shutil.copytree(made["lora"], lora)
    (lora / checkpoint.MANIFEST).unlink()  # as peft's own are
    config = Config(model=(f"m={base}",), lora=(f"l={lora}",), force=True, prompt_cache_dir=tmp_path / "kept")

    def cached(then: Path | None = None) -> int:
        models = _served.Models(config.source, Lanes(config, Events()), Events())
        root = models.open("m", None)
        if then is not None:
            shutil.rmtree(base)
            shutil.copytree(then, base)
        opened = models.open("m+l", root.engine)
        answer = opened.lane.submit(opened.engine.request(list(range(40)), GREEDY, stop_ids=()))
        opened.lane.drain()
        return answer.n_cached

    assert cached(made["other"]) == 0 and cached() == 0
    assert cached() == 39
    settings = json.loads((lora / "adapter_config.json").read_text())
    (lora / "adapter_config.json").write_text(json.dumps({**settings, "lora_alpha": 99}))
    assert cached() == 0, "the same tensors count otherwise"


@pytest.mark.parametrize("text", ["", "8", "4", "mxfp4", "nvfp4"])
def test_what_a_model_will_take_is_known_before_it_opens(made: dict[str, Path], text: str) -> None:
    source = _served.Source(models={"m": made["base"]}, packing=Packs(quantize=text).packing)
    models = _served.Models(source, lambda card, engine: Lane(engine), Events())
    card, opened = models.known()["m"], models.open("m", None)
    assert card.open_bytes == opened.own_bytes and (not text or card.open_bytes < card.size_bytes / 2)


@pytest.mark.parametrize("shape", nano.SHAPES)
def test_a_twin_shares_arrays_and_nothing_else(shape: str) -> None:
    model = nano.model(shape)
    ids = mx.array(nano.tokens(1, 7))
    before = np.array(model(ids))
    other = twin(model)
    assert own_bytes(other, model) == 0 and own_bytes(other) == own_bytes(model)
    _adapter.attach(other, Pick("lora", {"rank": 2}).resolve(_adapter.PEFT, "peft"))
    other.update({"model": {"embed_tokens": {"weight": mx.zeros_like(other.model.embed_tokens.weight)}}})
    assert (np.array(model(ids)) == before).all() and not _adapter.adapters(model)
    assert not np.allclose(np.array(other(ids)), before)
