"""Models of mlx_lm behind our calls: its logits, and decoding, scoring and adapters as on a model of ours."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError, DependencyError, UnsupportedError
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.tokenizer import byte
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.decode import Decoder, fixed_step
from tinygpt.infer.engine import Engine
from tinygpt.model import checkpoint, quantized
from tinygpt.model.quantized import Packing
from tinygpt.peft import _adapter
from tinygpt.runs import _pieces, inspect, preference, sft
from tinygpt.serve import embed

pytestmark = pytest.mark.parity
IDS = nano.tokens(3, 20)
STABLELM: dict[str, Any] = {
    "model_type": "stablelm", "architectures": ["StableLmForCausalLM"], "vocab_size": 320, "hidden_size": 64,
    "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "intermediate_size": 96,
    "rope_theta": 10000.0, "use_qkv_bias": True, "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5,
    "use_parallel_residual": False, "qk_layernorm": False, "max_position_embeddings": 96, "eos_token_id": 257,
}  # fmt: skip
STARCODER: dict[str, Any] = {
    "model_type": "starcoder2", "vocab_size": 320, "hidden_size": 64, "num_attention_heads": 4,
    "num_hidden_layers": 2, "num_key_value_heads": 2, "intermediate_size": 96, "norm_epsilon": 1e-5,
    "rope_theta": 500.0, "max_position_embeddings": 96, "tie_word_embeddings": True,
}  # fmt: skip
KINDS = {"stablelm": STABLELM, "starcoder2": STARCODER}


def directory(path: Path, config: dict[str, Any]) -> Any:
    """A model of mlx_lm with weights spread wide, written as a Hugging Face directory; returns it."""
    module = nano.require(f"mlx_lm.models.{config['model_type']}")
    mx.random.seed(0)  # mlx_lm draws from the global generator
    peer = module.Model(module.ModelArgs.from_dict(config))
    keys = iter(range(10_000))
    peer.update(
        tree_map(
            lambda w: w + 0.1 * mx.random.normal(w.shape, key=mx.random.key(next(keys))), peer.parameters()
        )
    )
    mx.eval(peer.parameters())
    byte.load().save(path)
    mx.save_safetensors(str(path / "model.safetensors"), dict(tree_flatten(peer.parameters())))
    (path / "config.json").write_text(json.dumps(config))
    return peer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "foreign"
    path.mkdir()
    return path


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, folder: Path) -> tuple[Any, Any]:
    peer = directory(folder, KINDS[request.param])
    return peer, checkpoint.load(folder).model


def test_logits_losses_and_taps(pair: tuple[Any, Any]) -> None:
    peer, model = pair
    ids = mx.array(IDS)
    assert mx.array_equal(model(ids), peer(ids))
    assert mx.array_equal(model(ids, last=1), peer(ids)[:, -1:])
    assert (model.config.vocab_size, model.config.reach, model.packs) == (320, 96, False)
    assert set(dict(tree_flatten(model.parameters()))) == set(dict(tree_flatten(peer.parameters())))
    p = np.array(peer(ids), np.float64)
    p = p - np.log(np.exp(p).sum(-1, keepdims=True))
    expected = -np.take_along_axis(p, IDS[..., None] % 320, axis=-1)[..., 0]
    nano.close(model.losses(ids, ids), expected, 1e-5)
    seen: dict[str, mx.array] = {}
    model(ids, tap=lambda name, x: seen.setdefault(name, x))
    assert list(seen) == [f"blocks.{i}.hook_resid_{at}" for i in (0, 1) for at in ("pre", "post")]
    assert mx.array_equal(seen["blocks.0.hook_resid_post"], seen["blocks.1.hook_resid_pre"])
    cut = model(ids, tap=lambda name, x: mx.zeros_like(x) if name == "blocks.1.hook_resid_pre" else x)
    assert not mx.allclose(cut, model(ids)) and mx.array_equal(model(ids), peer(ids))


def test_embeddings_are_the_mean_of_what_the_final_norm_gives(pair: tuple[Any, Any]) -> None:
    peer, model = pair
    engine = Engine(model, byte.load())
    rows = [IDS[0].tolist(), IDS[1, :7].tolist()]
    for ids, vector in zip(rows, embed.embed(engine, rows), strict=True):
        mean = np.array(peer.model(mx.array([ids]), cache=None)[0]).mean(axis=0)
        nano.close(mx.array(vector), mean / np.linalg.norm(mean), 1e-5)


def test_decoding_is_as_without_a_cache(pair: tuple[Any, Any]) -> None:
    _, model = pair
    engine, greedy = Engine(model, byte.load()), SampleConfig(temperature=0.0, max_tokens=9, seed=0)
    prompts = [IDS[0, :12].tolist(), IDS[1, :5].tolist(), IDS[2, :9].tolist()]
    together = engine.generate_batch(prompts, greedy, stop_ids=())
    for prompt, found in zip(prompts, together):
        ids = list(prompt)
        for _ in range(9):
            ids.append(int(model(mx.array([ids]))[0, -1].argmax().item()))
        assert found.ids == ids[len(prompt) :]
        assert [p.token for p in engine.generate(prompt, greedy, stop_ids=())] == found.ids
    scores = engine.logprobs([prompts[0]])[0]
    losses = model.losses(mx.array([prompts[0][:-1]]), mx.array([prompts[0][1:]]))
    nano.close(scores, -np.array(losses[0]), 1e-5)


def test_rows_of_several_documents_are_no_number(folder: Path) -> None:
    directory(folder, STABLELM)
    model, ids = checkpoint.load(folder).model, mx.array(IDS)
    one = mx.ones(IDS.shape, mx.int32)
    assert mx.array_equal(model.losses(ids, ids, segments=one), model.losses(ids, ids))
    two = mx.concatenate([one[:1] + (mx.arange(20) > 9), one[1:]])
    found = mx.isnan(model.losses(ids, ids, segments=two)).all(axis=1)
    assert found.tolist() == [True, False, False]


def rows(path: Path) -> Path:
    lines = [{"prompt": f"say {i}", "completion": f"{i * 7 % 10}"} for i in range(24)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("qlora", [False, True])
def test_an_adapter_is_trained_saved_and_put_on_again(qlora: bool, folder: Path, tmp_path: Path) -> None:
    directory(folder, STABLELM)
    sink = MemorySink()
    config = sft.Config(
        base=folder, data=(rows(tmp_path / "rows.jsonl"),), out=tmp_path / "run", steps=4, batch=4, lr=0.01,
        adapter=Pick("lora"), qlora=qlora, lock=False, seed=1, held_out=0.1,
    )  # fmt: skip
    sft.run(config, Events(sink))
    losses = [e.loss for e in sink.events if e.kind == "train.step"]  # type: ignore[union-attr]
    assert losses[-1] < losses[0] and np.isfinite(losses).all()
    tuned = _pieces.open_model(folder, tmp_path / "run" / "final")[0].model
    base = _pieces.open_model(folder)[0].model
    assert bool(quantized.packed(tuned)) == qlora
    assert not mx.allclose(tuned(mx.array(IDS)), base(mx.array(IDS)), atol=1e-3)
    assert {n.rsplit(".", 1)[-1] for n in _adapter.adapters(tuned)} == {"q_proj", "v_proj"}
    with pytest.raises(ConfigError, match="is run by mlx_lm, and tinygpt has no way to save one"):
        full = {"full": True, "out": tmp_path / "full"}
        sft.run(sft.Config(base=folder, data=config.data, steps=1, lock=False, **full), Events(sink))


def test_a_tied_table_adapted_as_the_input_alone_is_not_fused(folder: Path) -> None:
    directory(folder, STARCODER)
    model = checkpoint.load(folder).model
    _adapter.attach(model, Pick("lora", {"targets": ["embed_tokens"], "tied": False}))
    with pytest.raises(UnsupportedError, match="also the output matrix"):
        _adapter.fuse(model)
    directory(folder, STABLELM)  # which has an output matrix of its own
    model = checkpoint.load(folder).model
    _adapter.attach(model, Pick("lora", {"targets": ["embed_tokens"], "tied": False}))
    assert set(_adapter.fuse(model)) == {"model.embed_tokens"}


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_preferences_are_learned(loss: str, folder: Path, tmp_path: Path) -> None:
    """A pair's second answer is a row of its own too, which once was taken for a second document: no number
    was finite."""
    directory(folder, STABLELM)
    lines = [{"prompt": f"say {i}", "chosen": "yes" * (1 + i % 3), "rejected": "no"} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sink = MemorySink()
    preference.run(
        preference.Config(
            base=folder, data=(tmp_path / "pairs.jsonl",), out=tmp_path / "run", steps=2, batch=4, lock=False,
            seed=1, loss_type=Pick(loss), held_out=0.0,
        ),
        Events(sink),
    )  # fmt: skip
    first = next(e.loss for e in sink.events if e.kind == "train.step")  # type: ignore[union-attr]
    assert first == pytest.approx({"dpo": 0.693147, "kto": 0.5}[loss], abs=1e-5)


def test_it_is_packed_as_it_is_read(folder: Path) -> None:
    directory(folder, STABLELM)
    model = checkpoint.load(folder, packing=Packing(group_size=32)).model
    plain = checkpoint.load(folder).model
    for name, module in quantized.packed(model).items():
        original = dict(plain.named_modules())[name]
        original.weight = quantized.dense(module)
    assert len(quantized.packed(model)) == 16
    nano.close(model(mx.array(IDS)), plain(mx.array(IDS)), 1e-4)


def test_what_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory(folder, STABLELM)
    path = folder / "config.json"

    def edited(**changes: Any) -> None:
        path.write_text(json.dumps({**STABLELM, **changes}))

    (folder / "code.py").write_text("raise SystemExit(9)")
    edited(auto_map={"AutoModelForCausalLM": "code.Model"})
    checkpoint.load(folder)  # the program beside it is not looked at
    for change, sentence in (
        ({"model_file": "code.py"}, "names a program of its own, code.py"),
        ({"attn_logit_softcapping": 30.0}, "attn_logit_softcapping = 30.0, which mlx_lm's stablelm does not"),
        ({"model_type": "no_such_thing"}, "model_type 'no_such_thing' is not one this build opens"),
        ({"intermediate_size": 128}, "mlx_lm cannot open this stablelm|has shape"),
    ):
        edited(**change)
        with pytest.raises(CheckpointError, match=sentence):
            checkpoint.load(folder)
    edited()
    model = checkpoint.load(folder).model
    with pytest.raises(ConfigError, match="no dropout"):
        model.noise = type(model.noise) and True
    with pytest.raises(ConfigError, match="cannot be recomputed"):
        model.recompute = True
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="stablelm") as caught:
        checkpoint.load(folder)
    assert "tinygpt[hf]" in caught.value.hint


def test_keys_of_transformers_5_and_windows_are_heeded(folder: Path) -> None:
    directory(folder, STARCODER)
    ids = mx.array(IDS)
    usual = checkpoint.load(folder).model(ids)
    data = {k: v for k, v in STARCODER.items() if k != "rope_theta"}
    new = {**data, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "sliding_window": 32}
    (folder / "config.json").write_text(json.dumps(new))
    model = checkpoint.load(folder).model
    assert mx.array_equal(model(ids), usual)
    assert model.config.reach == 32  # mlx_lm reads the whole text, which is the same up to the window
    (folder / "config.json").write_text(json.dumps(data))
    assert not mx.allclose(checkpoint.load(folder).model(ids), usual, atol=1e-2)
    scaled = {**data, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}}
    (folder / "config.json").write_text(json.dumps(scaled))
    with pytest.raises(CheckpointError, match="rope_scaling"):
        checkpoint.load(folder)


def test_it_is_inspected(folder: Path) -> None:
    peer = directory(folder, STABLELM)
    facts = inspect.inspect(folder)
    assert facts["model_type"] == "stablelm" and facts["config"]["hidden_size"] == 64
    assert facts["parameters"] == sum(w.size for _, w in tree_flatten(peer.parameters()))


def test_a_directory_that_mlx_lm_packed(folder: Path, tmp_path: Path) -> None:
    directory(folder, STABLELM)
    path = tmp_path / "packed"
    nano.require("mlx_lm").convert(str(folder), str(path), quantize=True, q_group_size=32, q_bits=4)
    peer, _ = nano.require("mlx_lm.utils").load_model(path)
    model = checkpoint.load(path).model
    assert {type(m) for m in quantized.packed(model).values()} == {
        quantized.PackedLinear, quantized.PackedEmbedding,
    }  # fmt: skip
    nano.close(model(mx.array(IDS)), np.array(peer(mx.array(IDS))), 1e-4)
    with pytest.raises(ConfigError, match="quantized already"):
        checkpoint.load(path, packing=Packing(bits=8))


def test_rows_take_tokens_back(pair: tuple[Any, Any]) -> None:
    _, model = pair
    whole, decoder = np.array(model(mx.array(IDS))), Decoder(model, [1, 0, 2], fixed_step(model), spare=4)
    padded = [[0] * pad + IDS[row, : 6 - pad].tolist() for row, pad in enumerate(decoder.pads)]
    decoder.read(mx.array(padded))
    ends = [5, 6, 4]
    for n_B in ([0, 4, 2], [3, 3, 3], [4, 0, 1]):
        rows = [
            np.r_[IDS[i, end : end + 5 - n], np.full(n, 7, int)] for i, (end, n) in enumerate(zip(ends, n_B))
        ]
        logits = np.array(decoder.read(mx.array(np.stack(rows))))
        for i, n in enumerate(n_B):
            nano.close(logits[i, : 5 - n], whole[i, ends[i] : ends[i] + 5 - n], 1e-5)
            ends[i] += 5 - n
        decoder.rewind(n_B)
