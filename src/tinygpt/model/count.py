"""Counting before building: parameters, FLOPs and bytes of a config."""

from __future__ import annotations

import math
import re

from mlx.utils import tree_flatten

from tinygpt.core.backend import has_cpu_forms, nn
from tinygpt.model.config import ATTENTION, DEPTH, ModelConfig
from tinygpt.model.lm import LM


def tensors(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter. Fresh MLX arrays are lazy, so this allocates nothing."""
    return {name: tuple(value.shape) for name, value in tree_flatten(module.parameters())}


def parameters(config: ModelConfig) -> int:
    """Number of parameters; a tied output matrix counts once."""
    return sum(map(math.prod, tensors(LM(config)).values()))


def flops_per_token(config: ModelConfig, context: int) -> int:
    """Floating-point operations of one training token, forward and backward.

    6 N for the matrices a token passes (embedding look-ups are free, the tied output product is not) plus
    12 H K T a layer for the attention products, where T is the window if there is one; 18 H K T for the two
    maps of differential attention. Causal blocks that are skipped halve it (not assumed here). Of a block
    that computes a share c of the tokens, c of its matrices and c^2 of its attention.
    Source: Kaplan et al. 2020, arXiv:2001.08361, table 1; Chowdhery et al. 2022, arXiv:2204.02311, appendix
    B."""
    matrices, model, share = 0.0, LM(config), shares(config)
    ahead = getattr(model.head, "ahead", ())  # modules of the head, each with a prediction of its own
    matrices += len(ahead) * config.vocab_size * config.hidden_size
    for name, shape in tensors(model).items():
        block = re.match(r"model\.layers\.(\d+)\.(self_attn|mlp)\.", name)
        part = share[int(block.group(1))] if block else 1.0  # of the tokens go through it
        if "embed_positions" in name or ("embed_tokens" in name and not config.tie_word_embeddings):
            continue
        if ".experts." in name:  # a stack, of which a token passes some
            matrices += part * math.prod(shape) * getattr(config.mlp.options, "top_k", shape[0]) / shape[0]
        elif len(shape) > 1:
            matrices += part * math.prod(shape)
    layers = [*zip(share, model.layers, strict=True), *((1.0, module.block) for module in ahead)]
    reads = sum(c * _reads(layer.self_attn, c * context) * layer.self_attn.read_width for c, layer in layers)
    # A head that points makes scores too, but mixes no values.
    return int(6 * (matrices + reads + model.head.key_width * context))


def _reads(attention: nn.Module, context: float) -> float:
    """Tokens of `context` that a layer's attention reads, and the most that its cache keeps."""
    return min(context, getattr(attention, "window", 0) or context)


def state_bytes(config: ModelConfig) -> int:
    """Least bytes that learning all weights takes: weights, gradients and one moment in float32.

    From the sizes alone, so it can be asked of a model that could never be built. Two matrices in the MLP are
    counted; norms and biases are not."""
    d, width = config.hidden_size, config.num_attention_heads + config.num_key_value_heads
    layer = 2 * d * width * config.head_dim + 2 * d * config.intermediate_size
    return 12 * (config.vocab_size * d + config.num_hidden_layers * layer)


def activation_bytes(
    config: ModelConfig, rows: int, context: int, *, dtype: str = "float32", recompute: bool = False
) -> int:
    """Least bytes that the forward pass keeps for the backward one: what both norms read, queries, keys,
    values, the width of the MLP; on a CPU in float32 also the unmasked scores (`_blocked.py`), as if every
    layer had the window that the first one has.
    With `recompute`, the input of every block, and one block's."""
    width = config.num_attention_heads + 2 * config.num_key_value_heads
    token = 2 * config.hidden_size + width * config.head_dim + config.intermediate_size
    each = rows * context * token * (4 if dtype == "float32" else 2)
    if dtype == "float32" and has_cpu_forms():
        chosen = getattr(ATTENTION.load(config.attention.name), "window", None)
        window = getattr(config.attention.options, "window", 0) if chosen is None else chosen(config)
        reach = min(context, window or context)
        each += 4 * rows * config.num_attention_heads * (reach * (2 * context - reach) // 2)
    first = shares(config, most=64)  # a config may name more layers than a list can hold
    if recompute:
        value = rows * context * config.hidden_size * (4 if dtype == "float32" else 2)
        return config.num_hidden_layers * value + int(min(first) * each)
    if min(first) == 1:
        return config.num_hidden_layers * each  # whole numbers of any size
    return int(config.num_hidden_layers * sum(first) / len(first) * each)


def shares(config: ModelConfig, most: int = 0) -> list[float]:
    """The share of a row's tokens that every block computes; of the first `most` blocks."""
    share = getattr(DEPTH.load(config.depth.name), "share", None)
    layers = min(config.num_hidden_layers, most) if most else config.num_hidden_layers
    return [1.0 if share is None else share(config, i) for i in range(layers)]


def cache_bytes(config: ModelConfig, context: int, *, value_bytes: int = 4) -> int:
    """Bytes of the key-value caches of one sequence of `context` tokens; a block that chooses its tokens is
    taken to choose as many as in training."""
    model = LM(config)
    layers = zip(shares(config), model.layers, strict=True)
    kept = sum(_reads(layer.self_attn, c * context) * layer.self_attn.cache_width for c, layer in layers)
    pointed = model.head.key_width  # keys, and ids of 4 bytes
    return int(kept * value_bytes) + context * (pointed * value_bytes + (4 if pointed else 0))
