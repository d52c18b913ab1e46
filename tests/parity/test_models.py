"""Our models open in transformers and mlx_lm with the same logits, and transformers' open in ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM

pytestmark = pytest.mark.parity
IDS = nano.tokens(2, 90)

CONFIGS: dict[str, ModelConfig] = {
    "llama": nano.config(),
    "llama-biased-untied": nano.config(attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    "llama-head-width": nano.config(head_dim=10, num_key_value_heads=1),
    "llama-theta-eps": nano.config(position=Pick("rope", {"theta": 500.0}), norm_eps=0.03),
    "llama-linear": nano.config(position=Pick("rope_linear", {"factor": 2.5})),
    "llama-dynamic": nano.config(position=Pick("rope_dynamic", {"factor": 3.0}), max_position_embeddings=40),
    "llama-llama3": nano.config(position=Pick("rope_llama3", {"factor": 4.0, "theta": 100.0})),
    "llama-yarn": nano.config(position=Pick("rope_yarn", {"theta": 100.0, "beta_slow": 0.7})),
    "llama-yarn-factor": nano.config(position=Pick("rope_yarn", {"theta": 100.0, "attention_factor": 1.6})),
    "llama-yarn-untruncated": nano.config(position=Pick("rope_yarn", {"theta": 100.0, "truncate": False})),
    "llama-narrow-start": nano.config(initializer_range=0.02),
    "qwen3": nano.config(attention=Pick("gqa", {"qk_norm": True})),
    "qwen3-untied-width-eps": nano.config(
        attention=Pick("gqa", {"qk_norm": True}), tie_word_embeddings=False, head_dim=10, norm_eps=0.03
    ),
    "qwen3-yarn": nano.config(
        attention=Pick("gqa", {"qk_norm": True}), position=Pick("rope_yarn", {"theta": 100.0})
    ),
    "qwen3-window": nano.config(attention=Pick("gqa", {"qk_norm": True, "window": 9})),
    "mistral": nano.config(attention=Pick("gqa", {"window": 9})),
    "mistral-untied-theta": nano.config(
        attention=Pick("gqa", {"window": 1}),
        position=Pick("rope", {"theta": 500.0}),
        tie_word_embeddings=False,
    ),
    "gpt2": nano.config("gpt2"),
    "gpt2-exact-gelu": nano.config("gpt2", mlp=Pick("gelu", {"approximate": "none"}), norm_eps=0.03),
    "gpt2-inner": nano.config("gpt2", intermediate_size=48),
}
# What the peer cannot read: mlx_lm knows GPT-2 with tanh GELU and four times the width only, and YaRN with
# whole ends of the ramp.
NOT_IN_MLX_LM = {"gpt2-exact-gelu", "gpt2-inner", "llama-yarn-untruncated"}


def shaken(config: ModelConfig) -> LM:
    """Norm weights and biases are off ones and zeros, so that a dropped one shows."""
    changes = {name: getattr(config, name) for name in config.__dataclass_fields__}
    return nano.model(**changes)


def theirs(path: Path) -> np.ndarray:
    torch, transformers = nano.require("torch"), nano.require("transformers")
    model, facts = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not facts["missing_keys"] and not facts["unexpected_keys"] and not facts["mismatched_keys"], facts
    with torch.no_grad():
        return model.eval()(torch.tensor(IDS, dtype=torch.long)).logits.numpy()


@pytest.fixture(params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def saved(name: str, tmp_path: Path) -> tuple[LM, Path]:
    model = shaken(CONFIGS[name])
    path = checkpoint.save(tmp_path / "m.tinygpt", model, ids={"eos": 1, "bos": None, "pad": 0})
    return model, path


def test_ours_opens_in_transformers(saved: tuple[LM, Path]) -> None:
    model, path = saved
    nano.close(model(mx.array(IDS)), theirs(path), 1e-4)


def test_ours_opens_in_mlx_lm(saved: tuple[LM, Path], name: str) -> None:
    if name in NOT_IN_MLX_LM:
        return
    loader: Any = nano.require("mlx_lm.utils")
    model, path = saved
    peer, config = loader.load_model(path)
    cache = nano.require("mlx_lm.models.cache")
    window = model.config.attention.options.window
    # It has no windows for these kinds, but its caches do.
    bounds = [cache.RotatingKVCache(max_size=window) for _ in peer.layers] if window else None
    nano.close(peer(mx.array(IDS), bounds), np.array(model(mx.array(IDS))), 1e-4)
    if name == "llama-dynamic":
        return  # beyond the trained context its caches mix keys of several bases
    # Their caches drive our model, and ours theirs.
    one, two = cache.make_prompt_cache(peer), model.make_cache()
    if window:
        one = [cache.RotatingKVCache(max_size=window) for _ in peer.layers]
    for part in (IDS[:, :70], IDS[:, 70:71], IDS[:, 71:]):
        nano.close(model(mx.array(part), one), np.array(peer(mx.array(part), two)), 1e-4)


def peer_config(kind: str, **changes: Any) -> Any:
    transformers = nano.require("transformers")
    if kind == "gpt2":
        return transformers.GPT2Config(
            vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=96, bos_token_id=0, eos_token_id=1,
            initializer_range=0.25, **changes,
        )  # fmt: skip
    sizes = {
        "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 80, "max_position_embeddings": 96,
        "initializer_range": 0.25,
    }  # fmt: skip
    kinds = {"qwen3": transformers.Qwen3Config, "mistral": transformers.MistralConfig}
    return kinds.get(kind, transformers.LlamaConfig)(**{**sizes, **changes})


def rope(kind: str, **options: Any) -> dict[str, Any]:
    """A Llama with such positions; its pairs lie on both sides of every threshold."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 100.0, **options}}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "attention_bias": True, "rms_norm_eps": 1e-3}),
        ("llama", {"head_dim": 12}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 777.0}}),
        ("llama", rope("linear", factor=3.0)),
        ("llama", {**rope("dynamic", factor=2.0), "max_position_embeddings": 50}),
        ("llama", rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                       original_max_position_embeddings=24)),
        ("llama", rope("yarn", factor=4.0, original_max_position_embeddings=24)),
        ("llama", rope("yarn", factor=4.0, original_max_position_embeddings=24, truncate=False,
                       beta_fast=8.0, beta_slow=0.5, attention_factor=1.4)),
        ("llama", rope("yarn", factor=4.0, mscale=1.3, mscale_all_dim=0.4)),
        ("qwen3", {"head_dim": 8}),
        ("qwen3", {"head_dim": 12, **rope("linear", factor=3.0), "tie_word_embeddings": True}),
        ("qwen3", {"head_dim": 8, "use_sliding_window": True, "sliding_window": 11, "max_window_layers": 0}),
        ("mistral", {"sliding_window": 11}),
        ("mistral", {"sliding_window": None}),
        ("gpt2", {}),
        ("gpt2", {"activation_function": "gelu", "n_inner": 40}),
    ],
)  # fmt: skip
def test_theirs_opens_in_ours(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    torch, transformers = nano.require("torch"), nano.require("transformers")
    torch.manual_seed(0)
    config = peer_config(kind, **changes)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim < 2:
                p.add_(0.2 * torch.randn_like(p))
        expected = model(torch.tensor(IDS, dtype=torch.long)).logits.numpy()
    model.save_pretrained(tmp_path / "hf")
    opened = checkpoint.load(tmp_path / "hf")
    assert opened.manifest == {}
    nano.close(opened.model(mx.array(IDS)), expected, 1e-4)
    # And back: what we save of it, they read.
    again = checkpoint.save(tmp_path / "again", opened.model)
    nano.close(theirs(again), expected, 1e-4)


def test_half_precision_files_open_elsewhere(tmp_path: Path) -> None:
    model = shaken(CONFIGS["llama"])
    path = checkpoint.save(tmp_path / "m", model, dtype="bfloat16")
    nano.close(theirs(path), np.array(checkpoint.load(path).model(mx.array(IDS)).astype(mx.float32)), 1e-4)
