"""DeepNorm as its paper has it: the rule, the constants, fresh weights; and a norm on embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.model.frame import Frame
from tinygpt.model.lm import LM, initialize
from tinygpt.model.residual import deepnorm

IDS = mx.array(nano.tokens(2, 12))


def normed(x: np.ndarray, norm: Any) -> np.ndarray:
    """RMSNorm or LayerNorm in float64."""
    weight = np.array(norm.weight, np.float64)
    if "bias" in norm:
        x = x - x.mean(axis=-1, keepdims=True)
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * weight + np.array(norm.bias)
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * weight


@pytest.mark.parametrize(
    ("layers", "alpha", "beta"), [(2, 2**0.5, 0.5), (6, 1.8612, 0.3799), (50, 3.1623, 0.2236)]
)
def test_constants_of_a_decoder(layers: int, alpha: float, beta: float) -> None:
    """alpha = (2M)^(1/4), beta = (8M)^(-1/4): the paper's figure 2."""
    rule = deepnorm.build(nano.config(num_hidden_layers=layers), 0, "attn")
    assert (rule.alpha, rule.beta) == (pytest.approx(alpha, abs=1e-4), pytest.approx(beta, abs=1e-4))


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
def test_a_stack_is_norm_of_alpha_x_plus_f_of_x(norm: str) -> None:
    """Every sublayer, from the embeddings to the output matrix, without a norm of its own at the end."""
    model = nano.model(residual=Pick("deepnorm"), norm=Pick(norm), num_hidden_layers=3)
    frame = Frame(length=12, position=model.model.embed_positions)
    x = np.array(model.model.embed_tokens(IDS), np.float64)
    alpha = 6**0.25

    def through(sublayer: Any, x: np.ndarray) -> np.ndarray:
        return np.array(sublayer(mx.array(x.astype(np.float32)), frame), np.float64)

    for layer in model.layers:
        x = normed(alpha * x + through(layer.self_attn, x), layer.input_layernorm)
        x = normed(alpha * x + through(layer.mlp, x), layer.post_attention_layernorm)
    nano.close(model.hidden(IDS), x, 1e-5)
    nano.close(model(IDS), x @ np.array(model.model.embed_tokens.weight).T, 1e-5)
    assert "model.norm.weight" not in nano.flat(model)
    assert "model.norm.weight" in nano.flat(nano.model())


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
def test_fresh_weights_are_xavier_with_gain_beta_where_values_pass(mlp: str) -> None:
    model = initialize(
        LM(
            nano.config(
                residual=Pick("deepnorm"), mlp=Pick(mlp), hidden_size=256, intermediate_size=512,
                vocab_size=512,
                num_hidden_layers=4, num_key_value_heads=2, attention_bias=True,
            )
        ),
        seed=1,
    )  # fmt: skip
    beta = 32**-0.25
    gains = {"q": 1.0, "k": 1.0, "v": beta, "o": beta, "gate": 1.0, "up": beta, "down": beta}
    seen = set()
    for name, value in nano.flat(model).items():
        if value.ndim < 2:
            assert value.std() == 0
        elif "embed" in name:
            assert value.std() == pytest.approx(0.25, rel=0.02)
        else:
            short = name.rsplit(".", 2)[1].removesuffix("_proj")
            seen.add(short)
            xavier = (2 / sum(value.shape)) ** 0.5
            assert value.std() == pytest.approx(gains[short] * xavier, rel=0.02), name
    assert seen == set(gains) - (set() if mlp == "swiglu" else {"gate"})


def test_stacked_experts_are_scaled_and_routers_are_not() -> None:
    rule = deepnorm.build(nano.config(), 0, "mlp")
    one = rule.initial_std("model.layers.0.mlp.up_proj.weight", (96, 32))
    assert rule.initial_std("model.layers.0.mlp.experts.up_proj", (4, 96, 32)) == one
    assert rule.initial_std("model.layers.0.mlp.router.weight", (4, 32)) is None


@pytest.mark.wide
def test_a_deep_stack_learns() -> None:
    """48 layers, three steps of plain gradient descent: each lowers the loss."""
    model = initialize(LM(nano.config(residual=Pick("deepnorm"), num_hidden_layers=48)), 0)
    step = nn.value_and_grad(model, lambda: model.losses(IDS[:, :-1], IDS[:, 1:]).mean())
    losses = []
    for _ in range(3):
        loss, gradients = step()
        losses.append(loss.item())
        new = [
            (n, p - 0.01 * g)
            for (n, p), (_, g) in zip(tree_flatten(model.parameters()), tree_flatten(gradients))
        ]
        model.load_weights(new)
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("shape", nano.SHAPES)
def test_embeddings_are_normed_before_positions_are_added(kind: str, shape: str) -> None:
    model = nano.model(shape, embedding_norm=Pick(kind))
    seen: dict[str, np.ndarray] = {}

    def look(name: str, x: mx.array) -> mx.array:
        seen[name] = np.array(x)
        return x

    model(IDS, tap=look)
    wanted = normed(np.array(model.model.embed_tokens(IDS), np.float64), model.model.embed_norm)
    if shape == "gpt2":
        wanted = wanted + np.array(model.model.embed_positions.weight[:12])
    nano.close(seen["hook_embed"], wanted, 1e-5)
    assert set(nano.flat(model)) - set(nano.flat(nano.model(shape))) == {
        f"model.embed_norm.{part}" for part in (("weight", "bias") if kind == "layernorm" else ("weight",))
    }
