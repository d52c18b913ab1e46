"""A config.json that is being read: it remembers what was asked of it, and refuses the rest by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.core.errors import CheckpointError, nearest
from tinygpt.model.config import ModelConfig

# What every architecture calls the same as we do.
SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "max_position_embeddings",
    "tie_word_embeddings",
    "initializer_range",
)
GRID = ("qat_bits", "qat_group_size")  # written where the weights were trained for quantization
# Written for other readers, about training or about generation: nothing here changes what a model computes.
IDLE = {
    "_attn_implementation", "_attn_implementation_autoset", "_name_or_path", "_num_labels", "architectures",
    "attention_dropout", "attn_implementation", "auto_map", "bos_token_id", "cache_implementation",
    "chunk_size_feed_forward", "do_sample", "dtype", "embd_pdrop", "eos_token_id", "finetuning_task",
    "gradient_checkpointing", "id2label", "is_decoder", "is_llama_config", "label2id", "max_length",
    "max_new_tokens", "min_length", "model_type", "output_attentions", "output_hidden_states",
    "pad_token_id", "prefix", "pretraining_tp", "problem_type", "repetition_penalty", "resid_pdrop",
    "return_dict", "router_jitter_noise", "sep_token_id", "task_specific_params", "temperature",
    "tf_legacy_loss", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript",
    "transformers.js_config", "transformers_version", "typical_p", "unk_token_id", "unsloth_fixed",
    "unsloth_version", "use_bfloat16", "use_cache",
}  # fmt: skip


# Every config may say that it has none of these; no stack here has any.
NEVER = ("add_cross_attention", "is_encoder_decoder", "pruned_heads")


class Source:
    """config.json of one architecture. `usual` says what a key means that is left out."""

    def __init__(
        self, data: Mapping[str, Any], kind: str, usual: Mapping[str, Any], where: str = "config.json"
    ) -> None:
        self.data, self.kind, self.usual, self.where = data, kind, usual, where
        self.asked = set(IDLE) | {*GRID}

    def get(self, key: str, otherwise: Any = None) -> Any:
        """The value of a key, as the architecture means it where it is left out."""
        self.asked.add(key)
        return self.data[key] if key in self.data else self.usual.get(key, otherwise)

    def number(self, key: str, otherwise: float = 0.0) -> float:
        """A number, or `otherwise` for null."""
        value = self.get(key)
        if value is None:
            return otherwise
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(f"{key} must be a number, got {value!r}")
        return value

    def whole(self, key: str, most: int = 2**31) -> int:
        """A whole number of at least 1."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong(f"{key} must be a whole number of at least 1, got {value!r}")
        if value > most:
            raise self.wrong(f"{key} is {value}, at most {most} can be")
        return value

    def depth(self) -> int:
        """The number of layers, each of which may be listed."""
        return self.whole("num_hidden_layers", most=10_000)

    def only(self, key: str, *allowed: Any) -> None:
        """Refuse a key whose value is none of these, the only ones that the stack can compute."""
        value = self.get(key, allowed[0])
        if value not in allowed:
            raise self.wrong(f"a {self.kind} with {key} = {value} is not supported")

    def none_of(self, *keys: str) -> None:
        """Refuse keys that are anything but false, null or left out."""
        for key in keys:
            if self.get(key):
                raise self.wrong(f"a {self.kind} with {key} is not supported")

    def activation(self, known: Mapping[str, Any], key: str = "hidden_act") -> Any:
        """What the name of an activation stands for."""
        name = self.get(key)
        if not isinstance(name, str) or name not in known:
            raise self.wrong(f"activation '{name}' is not supported")
        return known[name]

    def layers(self, key: str, count: int) -> list[Any] | None:
        """A list with one entry a layer, or None."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) < count:
            raise self.wrong(f"{key} must have an entry for each of {count} layers")
        return value[:count]

    def wrong(self, sentence: str, hint: str = "") -> CheckpointError:
        """An error about this file."""
        return CheckpointError(f"{self.where}: {sentence}", hint=hint)

    def close(self) -> None:
        """Refuse every key that was not asked for."""
        self.none_of(*NEVER)
        for key in self.data:
            if key not in self.asked:
                close = nearest(key, self.asked - IDLE)
                raise CheckpointError(
                    f"{self.where} has the key '{key}', which this build does not know.{close}",
                    hint="it could change what the model computes, so it is not ignored",
                )


def read_sizes(source: Source) -> dict[str, Any]:
    """The sizes, the epsilon of norms and the grid of the weights; null stands for the usual rule."""
    values = {name: source.get(name) for name in SIZES} | {"norm_eps": source.get("rms_norm_eps")}
    values |= {name: source.data.get(name) for name in GRID}
    return {name: value for name, value in values.items() if value is not None}


def write_sizes(config: ModelConfig) -> dict[str, Any]:
    """The inverse of read_sizes, but for the grid."""
    return {**{name: getattr(config, name) for name in SIZES}, "rms_norm_eps": config.norm_eps}
