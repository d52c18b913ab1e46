"""SmolLM3: a Llama of which every so many layers turn no positions.

`no_rope_layers` has a 1 for a layer with RoPE and a 0 for one without; left out, every
`no_rope_layer_interval`-th has none.

Paper: Yang et al. 2025, arXiv:2501.18795 (RNoPE); the model is Hugging Face's SmolLM3 of 2025.
Differs: nothing.
"""

from __future__ import annotations

from typing import Any

from tinygpt.model.arch import _stack, _windows
from tinygpt.model.arch._source import Source
from tinygpt.model.config import ModelConfig

CLASS = "SmolLM3ForCausalLM"
USUAL = {
    "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "initializer_range": 0.02,
    "tie_word_embeddings": True, "num_key_value_heads": 4, "rope_theta": 2000000.0,
    "use_sliding_window": False, "no_rope_layer_interval": 4,
}  # fmt: skip


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one."""
    second = config.second_position
    differs = ("second_position", "attention_bias", "mlp_bias")
    named = ("window", "full_layers")
    return second is not None and second.name == "nope" and _stack.built(config, differs=differs, knobs=named)


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    layers, window = range(config.num_hidden_layers), config.attention.options.window
    return {
        **_stack.write_llama(config),
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "no_rope_layers": [int(i not in config.second_layers) for i in layers],
        "no_rope_layer_interval": config.second_layers[0] + 1,
        "use_sliding_window": bool(window),
        "sliding_window": window or None,
        "layer_types": _windows.types(_windows.sliding(config)),
    }


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    layers, every = source.depth(), source.whole("no_rope_layer_interval")
    source.get("max_window_layers")  # of the family it was made from; nothing reads it
    turned = source.layers("no_rope_layers", layers)
    if turned is None:
        turned = [(i + 1) % every for i in range(layers)]
    slides = _windows.listed(source, layers)
    if slides is None:
        slides = [not turns for turns in turned]
    values = _stack.read_llama(source, **_windows.knobs(_windows.switched(source), slides))
    values |= {name: bool(source.get(name)) for name in ("attention_bias", "mlp_bias")}
    bare = [i for i, turns in enumerate(turned) if not turns]
    return {**values, "second_position": "nope", "second_layers": bare} if bare else values
