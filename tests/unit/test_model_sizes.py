"""Sizes: the published parameter counts, sizing by depth, FLOPs, bytes, and configs that cannot be."""

from __future__ import annotations

import pytest

import nano
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.model import count, layout, presets
from tinygpt.model.config import ModelConfig

# The original's table: parameters of the GPT-2-shaped presets with byte and SmolLM2 vocabularies.
PUBLISHED = {
    "tiny": (842_496, 7_101_184),
    "small": (2_767_872, 12_155_904),
    "huge": (9_608_704, 22_126_080),
    "mega": (76_313_600, 101_348_352),
    "behemoth": (404_391_936, 454_461_440),
    "titan": (1_361_882_112, 1_436_986_368),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(("vocab", "column"), [(256, 0), (49_152, 1)])
def test_gpt2_presets_have_the_published_sizes(name: str, vocab: int, column: int) -> None:
    assert count.parameters(presets.preset(f"gpt2-{name}", vocab_size=vocab)) == PUBLISHED[name][column]


@pytest.mark.parametrize("name", presets.SIZES)
def test_llama_presets(name: str) -> None:
    config = presets.preset(name, vocab_size=256)
    d, m, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    k = config.num_key_value_heads * config.head_dim
    expected = 256 * d + layers * (2 * d * d + 2 * d * k + 3 * d * m + 2 * d) + d
    assert count.parameters(config) == expected
    assert config.num_key_value_heads * 2 == config.num_attention_heads


def test_mini_llama_is_the_one_that_was_planned() -> None:
    config = presets.preset("mini-llama", vocab_size=32_768)
    kinds = (config.attention.name, config.mlp.name, config.position.name, config.norm.name)
    assert kinds == ("gqa", "swiglu", "rope", "rmsnorm") and not config.tie_word_embeddings
    assert (config.head_dim, config.max_position_embeddings) == (128, 2048)
    layer = 2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192 + 2 * 2048
    assert count.parameters(config) == 2 * 32_768 * 2048 + 24 * layer + 2048 == 1_593_935_872
    assert layout.model_type(config) == "llama"
    assert presets.preset("mini-llama", vocab_size=300, num_hidden_layers=1).num_hidden_layers == 1


def test_presets_take_changes_and_refuse_unknown_names() -> None:
    config = presets.preset("tiny", vocab_size=300, max_position_embeddings=64, tie_word_embeddings=False)
    assert (config.vocab_size, config.max_position_embeddings) == (300, 64)
    assert count.parameters(config) - count.parameters(presets.preset("tiny", vocab_size=300)) == 300 * 128
    with pytest.raises(ConfigError, match="unknown preset 'tinny'.*Did you mean 'tiny'"):
        presets.preset("tinny", vocab_size=256)


@pytest.mark.parametrize(
    ("depth", "core", "lr", "batch", "steps"),
    [
        (4, 3_145_728, 4.24e-3, 8, 7_680),
        (8, 25_165_824, 3e-3, 16, 30_720),
        (12, 84_934_656, 2.45e-3, 24, 69_120),
    ],
)
def test_depth_derives_the_worked_values(depth: int, core: int, lr: float, batch: int, steps: int) -> None:
    plan = presets.by_depth(depth, vocab_size=256, context=1024)
    assert plan.lr == pytest.approx(lr, rel=2e-3) and plan.batch == batch and plan.steps == steps
    assert plan.tokens == 20 * core
    assert (plan.model.num_hidden_layers, plan.model.hidden_size, plan.model.head_dim) == (
        depth,
        64 * depth,
        64,
    )
    # SwiGLU at 8/3 of the width has the 12 L d^2 of the rule, up to rounding.
    matrices = count.parameters(plan.model) - 256 * plan.model.hidden_size
    assert matrices == pytest.approx(core, rel=0.025)
    double = presets.by_depth(depth, vocab_size=256, context=1024, tokens_per_parameter=40)
    assert double.steps == 2 * steps


def test_depth_has_bounds() -> None:
    with pytest.raises(ConfigError, match="--depth must be at least 1"):
        presets.by_depth(0, vocab_size=256)
    assert presets.by_depth(1, vocab_size=256).lr == 6e-3
    assert presets.by_depth(1, vocab_size=256, context=4096).batch == 1


def test_flops_are_six_a_matrix_weight_and_the_attention_products() -> None:
    for shape in nano.SHAPES:
        config = nano.config(shape)
        weights = count.tensors(nano.model(shape))
        matrices = sum(s[0] * s[1] for n, s in weights.items() if len(s) == 2 and "embed_positions" not in n)
        assert count.flops_per_token(config, 0) == 6 * matrices
        assert count.flops_per_token(config, 64) - count.flops_per_token(config, 0) == 12 * 2 * 32 * 64
        # An untied output matrix costs what the tied product costs: look-ups are free.
        untied = nano.config(shape, tie_word_embeddings=False)
        assert count.flops_per_token(untied, 64) == count.flops_per_token(config, 64)


def test_cache_bytes() -> None:
    for head in ("linear", "pointer"):
        model = nano.model(head=Pick(head))
        cache = model.make_cache()
        model(nano.mx.array(nano.tokens(1, 64)), cache)
        held = sum(c.state[0].nbytes + c.state[1].nbytes for c in cache)
        assert count.cache_bytes(model.config, 64) == held


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"norm_eps": -1.0}, "'norm_eps' must be positive, got -1"),
        ({"num_key_value_heads": 3}, r"num_key_value_heads \(3\) must divide num_attention_heads \(4\)"),
        ({"hidden_size": 30}, "hidden_size \\(30\\) is not a multiple"),
        ({"vocab_size": 0}, "'vocab_size' must be at least 1"),
        ({"head_dim": -1}, "'head_dim' must not be negative"),
        ({"initializer_range": 0.0}, "'initializer_range' must be positive, got 0"),
        ({"attention": Pick("gqq")}, "unknown attention 'gqq'. Did you mean 'gqa'"),
        ({"position": Pick("rope", {"thta": 1})}, "unknown config key 'position.thta'. Did you mean 'theta'"),
    ],
)
def test_impossible_configs(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        nano.config(**changes)


def test_derived_sizes_and_a_free_head_width() -> None:
    config = ModelConfig(vocab_size=8, hidden_size=30, num_hidden_layers=1, num_attention_heads=4, head_dim=6)
    assert (config.num_key_value_heads, config.head_dim) == (4, 6)
    assert nano.config().intermediate_size == 96 and nano.config("gpt2").intermediate_size == 128
    tall = nano.model(head_dim=6, num_key_value_heads=1)
    assert tall(nano.mx.array(nano.tokens(1, 5))).shape == (1, 5, 64)
