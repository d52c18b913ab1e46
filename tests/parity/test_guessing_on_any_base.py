"""Heads learn beside, and guess for, models of mlx_lm: packed ones, windows, states, with adapters on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

import nano
from parity.test_foreign import STABLELM, directory
from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.core.events import Events, MemorySink
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.infer.speculate import draft
from tinygpt.model import checkpoint
from tinygpt.model.drafting import heads as stored
from tinygpt.runs import _pieces, heads, sft
from tinygpt.runs._drafters import Drafters, Speculation

pytestmark = pytest.mark.parity
SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "intermediate_size": 96, "head_dim": 16, "rope_theta": 1e4,
    "max_position_embeddings": 96, "eos_token_id": 257,
}  # fmt: skip
BASES: dict[str, dict[str, Any]] = {
    "stablelm": STABLELM,
    "window": {**SIZES, "model_type": "cohere2", "layer_norm_eps": 1e-5, "logit_scale": 0.06,
               "sliding_window": 16, "sliding_window_pattern": 2},
    "experts": {**SIZES, "model_type": "qwen2_moe", "rms_norm_eps": 1e-5, "num_experts": 4,
                "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    "state": {"model_type": "mamba", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128,
              "state_size": 8, "num_hidden_layers": 2, "conv_kernel": 4, "use_bias": False,
              "use_conv_bias": True, "time_step_rank": 4},
    "griffin": {**SIZES, "model_type": "recurrent_gemma", "rms_norm_eps": 1e-5, "attention_bias": False,
                "conv1d_width": 4, "logits_soft_cap": 30.0, "attention_window_size": 16,
                "block_types": ["recurrent", "attention"]},
}  # fmt: skip
PROMPTS = [[1, 2, 3], [4] * 11, [5, 6, 7, 8]]


def base(path: Path, kind: str, *, dtype: str = "float32", bits: int = 0) -> Path:
    """A random model of mlx_lm, in halves or packed if asked."""
    path.mkdir()
    config = BASES[kind]
    peer = directory(path, config)
    peer.update(nn.utils.tree_map(lambda w: w.astype(getattr(mx, dtype)), peer.parameters()))
    if bits:
        nn.quantize(peer, group_size=32, bits=bits)
        config = {**config, "quantization": {"group_size": 32, "bits": bits}}
    mx.save_safetensors(str(path / "model.safetensors"), dict(tree_flatten(peer.parameters())))
    (path / "config.json").write_text(json.dumps(config))
    return path


def trained(path: Path, out: Path, kind: Any, **more: Any) -> heads.Result:
    corpus = out.parent / "text.txt"
    corpus.write_text("she sells sea shells by the sea shore. " * 40)
    settings = {"steps": 2, "batch": 2, "context": 32, "seed": 1, "held_out": 0.2, "compile": False, **more}
    config = heads.Config(base=path, type=kind, corpus=(corpus,), out=out, lock=False, **settings)
    return heads.run(config, Events(MemorySink()))


def answers(engine: Engine, drafter: Any = None) -> list[list[int]]:
    """Greedy and drawn texts that come while others are written, well beyond the windows."""
    lane = Lane(engine, Limits(rows=4, chunk=8), drafter=drafter)
    configs = [SampleConfig(temperature=t, max_tokens=26, seed=3) for t in (0.0, 1.0)]
    found = []
    for config in configs:
        for prompt in PROMPTS:
            found.append(lane.submit(engine.request(prompt, config, stop_ids=())))
            lane.step()
    lane.drain()
    return [answer.ids for answer in found]


@pytest.mark.parametrize(
    ("name", "dtype", "bits"),
    [("stablelm", "bfloat16", 0), ("experts", "float16", 4), ("window", "float32", 0),
     ("state", "float32", 0), ("griffin", "float32", 0)],
)  # fmt: skip
def test_heads_learn_and_guess_beside_a_foreign_model(
    name: str, dtype: str, bits: int, tmp_path: Path
) -> None:
    path = base(tmp_path / "base", name, dtype=dtype, bits=bits)
    loaded, tokenizer = _pieces.open_model(path)
    engine = Engine(loaded.model, tokenizer)
    plain = answers(engine)
    for kind in ("medusa", "eagle"):
        result = trained(path, tmp_path / kind, kind)
        assert result.status == "done" and 0 <= result.metrics["accept_1"] <= 1
        drafter = Drafters(Speculation(heads=tmp_path / kind / "final"), path)(engine)
        assert answers(engine, drafter) == plain and drafter is not None and drafter.told.drafted
    other = base(tmp_path / "other", name, dtype="bfloat16" if dtype != "bfloat16" else "float16")
    with pytest.raises(CheckpointError, match="trained on other weights"):
        Drafters(Speculation(heads=tmp_path / "eagle/final"), other)(engine)


@pytest.mark.parametrize("name", ["stablelm", "window", "state"])
def test_a_foreign_model_drafts(name: str, tmp_path: Path) -> None:
    loaded, tokenizer = _pieces.open_model(base(tmp_path / "base", name))
    engine = Engine(loaded.model, tokenizer)
    drafter = draft.build(engine, draft.Config(tokens=3), draft=engine)
    plain = answers(engine)
    assert answers(engine, drafter)[:3] == plain[:3]
    assert drafter.told.accepted > 0.8 * drafter.told.drafted > 0  # it drafts for itself
    assert drafter.copies == bool(drafter.note) == (name != "stablelm")


def test_heads_for_a_base_that_wears_an_adapter(tmp_path: Path) -> None:
    """Features are those of the base with it, so they fit it alone; texts are right either way."""
    path = base(tmp_path / "base", "stablelm", bits=4)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"prompt": f"say {i}", "completion": f"{i}"}) + "\n" for i in range(8))
    )
    tuned = sft.Config(base=path, data=(rows,), out=tmp_path / "tuned", steps=3, batch=4, lr=0.3, seed=1,
                       context=32, lock=False, compile=False)  # fmt: skip
    sft.run(tuned, Events(MemorySink()))
    adapter = tmp_path / "tuned" / "final"
    trained(path, tmp_path / "heads", "medusa", adapter=(tmp_path / "tuned",))
    trained(path, tmp_path / "bare", "medusa")
    final = tmp_path / "heads" / "final"
    assert checkpoint.validate(final)["adapters"] == [str(adapter)]
    found = [
        nano.flat(stored.load(run / "final", base=path)) for run in (tmp_path / "heads", tmp_path / "bare")
    ]
    assert any(not np.array_equal(found[0][n], found[1][n]) for n in found[0])
    for worn in ((), (adapter,)):
        loaded, tokenizer = _pieces.open_model(path, worn)
        engine = Engine(loaded.model, tokenizer)
        drafter = Drafters(Speculation(heads=final), path)(engine)
        assert answers(engine, drafter) == answers(engine)
    weights = adapter / "adapter_model.safetensors"
    held = mx.load(str(weights))
    assert isinstance(held, dict)
    mx.save_safetensors(str(weights), {name: x + 1 for name, x in held.items()})
    with pytest.raises((ConfigError, CheckpointError)):
        trained(path, tmp_path / "heads", "medusa", adapter=(tmp_path / "tuned",), resume=True)
