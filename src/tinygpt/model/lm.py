"""The decoder: embeddings, a table of blocks, a final norm and the output matrix.

`model(tokens, cache=None) -> logits`, `.layers` and `make_cache()` are mlx-lm's model protocol. Tensor names
are those of Llama's files (`model.layers.0.self_attn.q_proj.weight`), so a model whose slots are Llama's
opens elsewhere as it lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.block import Block, passed
from tinygpt.model.config import HEAD, NORM, POSITION, ModelConfig
from tinygpt.model.frame import Frame, Tap
from tinygpt.model.noise import Noise
from tinygpt.model.output import Output
from tinygpt.model.seeds import key_of
from tinygpt.model.terms import Terms


class Stack(nn.Module):
    """Everything below the output matrix: tokens (B, L) -> hidden states (B, L, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = POSITION.load(config.position.name).build(config)
        self._positions = _positions(config, self.embed_positions)  # of every layer
        self._scale = config.embedding_scale
        self.layers = [Block(config, i) for i in range(config.num_hidden_layers)]
        d = config.hidden_size
        if config.embedding_norm is not None:
            self.embed_norm = NORM.load(config.embedding_norm.name).build(config, d)
        if not getattr(self.layers[-1].mlp_residual, "leaves_normed", False):
            self.norm = NORM.load(config.norm.name).build(config, d)
        if getattr(self.embed_positions, "inside_attention", False) and not all(
            getattr(layer.self_attn, "heeds_position", False) for layer in self.layers
        ):
            raise ConfigError(
                f"position '{config.position.name}' works inside attention, and attention "
                f"'{config.attention.name}' has no place for it",
                hint="position=rope goes with every attention",
            )
        for layer in self.layers:
            layer.depth.check(layer, self.embed_positions)

    def __call__(self, tokens_BL: mx.array, cache: Sequence[Any], frame: Frame) -> mx.array:
        frame.position, frame.stack = self.embed_positions, self
        frame.begin(cache[0])
        noise = frame.noise
        x_BLD = self.embed(tokens_BL)
        x_BLD = x_BLD if noise is None else noise.disturb(x_BLD, frame.segments)
        if "embed_norm" in self:
            x_BLD = self.embed_norm(x_BLD)
        x_BLD = self.embed_positions.embed(x_BLD, frame.offset, frame)
        x_BLD = frame.point("hook_embed", x_BLD if noise is None else noise.drop(x_BLD, "embed"))
        for layer, position, layer_cache in zip(self.layers, self._positions, cache):
            frame.trunk = x_BLD
            # A frame of its own: when blocks compute again, the common one stands at the last layer.
            own = frame if position is frame.position else replace(frame, position=position)
            layer.share(x_BLD, own, layer_cache)
            x_BLD = passed(layer, x_BLD, own, layer_cache)
        return frame.point("ln_final.hook_normalized", self.finish(x_BLD))

    def embed(self, tokens_BL: mx.array) -> mx.array:
        """The vectors (B, L, D) of tokens, without positions."""
        x_BLD = self.embed_tokens(tokens_BL)
        return x_BLD if self._scale == 1.0 else x_BLD * self._scale

    def finish(self, x_BLD: mx.array) -> mx.array:
        """The final norm, where the stack has one."""
        return self.norm(x_BLD) if "norm" in self else x_BLD


def _positions(config: ModelConfig, first: nn.Module) -> tuple[nn.Module, ...]:
    """The position module of every layer: the first one, or the second."""
    if config.second_position is None:
        return (first,) * config.num_hidden_layers
    second = POSITION.load(config.second_position.name).build(config.with_second())
    if getattr(second, "inside_attention", False) or second.parameters():
        raise ConfigError(
            f"position '{config.second_position.name}' cannot be the second one: all layers share it",
            hint="second_position=rope, another rope with fixed angles, or nope",
        )
    return tuple(second if i in config.second_layers else first for i in range(config.num_hidden_layers))


class LM(nn.Module):
    """A decoder-only language model: tokens (B, L) -> logits (B, L, V).

    Two things a training run may set, neither part of the model: `noise`, the rates of dropout and its like,
    and `recompute`, whether blocks keep no activations for the backward pass."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._config = config
        self.noise: Noise = Noise()
        self.recompute = False
        self.model = Stack(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.head = HEAD.load(config.head.name).build(config)

    @property
    def config(self) -> ModelConfig:
        return self._config

    def trained_for(self, bits: int, group_size: int) -> None:
        """Have the config name the grid that the weights are trained for; 0, 0: none."""
        self._config = replace(self._config, qat_bits=bits, qat_group_size=group_size)

    @property
    def layers(self) -> list[Block]:
        return self.model.layers

    def make_cache(self, left_padding: Sequence[int] | None = None) -> list[Any]:
        """One empty cache per layer, one more where the head keeps something; `left_padding` gives the
        padding of each row of a batch."""
        caches = [layer.make_cache() for layer in self.layers]
        if self.head.key_width:
            caches.append(self.head.make_cache())
        for cache in caches if left_padding is not None else ():
            cache.left_padding = mx.array(list(left_padding or ()))
        return caches

    def hidden(
        self,
        tokens_BL: mx.array,
        cache: Sequence[Any] | None = None,
        *,
        positions: mx.array | None = None,
        segments: mx.array | None = None,
        tap: Tap | None = None,
    ) -> mx.array:
        """Hidden states (B, L, D) after the final norm. See Frame for positions, segments and tap."""
        return self._states(tokens_BL, cache, Frame.of(tokens_BL, positions, segments, tap))

    def _states(self, tokens_BL: mx.array, cache: Sequence[Any] | None, frame: Frame) -> mx.array:
        return self.model(tokens_BL, cache if cache is not None else [None] * len(self.layers), frame)

    @property
    def output(self) -> Output:
        """The output matrix."""
        module = self.model.embed_tokens if self._config.tie_word_embeddings else self.lm_head
        return Output(module, divisor=self._config.logit_divisor, cap=self._config.logit_cap)

    def __call__(
        self,
        tokens_BL: mx.array,
        cache: Sequence[Any] | None = None,
        *,
        positions: mx.array | None = None,
        segments: mx.array | None = None,
        tap: Tap | None = None,
        last: int = 0,
        terms: Terms | None = None,
        keys: mx.array | None = None,
        places: mx.array | None = None,
    ) -> mx.array:
        """Logits (B, L, V); `last`: only those after the last so many tokens. With `terms` layers compute as
        in training, with noise drawn from `keys` (B, 2) where there is any. places: (B, L) where in their
        texts the tokens stand, when not one after the other."""
        frame = Frame.of(tokens_BL, positions, segments, tap)
        frame.places = places
        self._trains(frame, terms, keys)
        x_BLD = self._states(tokens_BL, cache, frame)
        of_head = None
        if cache is not None and self.head.key_width:
            if len(cache) == len(self.layers):
                raise ConfigError("this model's head has a cache of its own", hint="use model.make_cache()")
            of_head = cache[-1]
        return self.head.logits(x_BLD, self.output, tokens_BL, frame, of_head, last or tokens_BL.shape[1])

    def losses(
        self,
        tokens_BL: mx.array,
        targets_BL: mx.array,
        *,
        positions: mx.array | None = None,
        segments: mx.array | None = None,
        terms: Terms | None = None,
        keys: mx.array | None = None,
    ) -> mx.array:
        """-log p(target) of every place (B, L), in nats. In training `terms` takes what layers add to the
        loss, and `keys` (B, 2) are what the rows' noise is drawn from, where there is any."""
        frame = Frame.of(tokens_BL, positions, segments)
        self._trains(frame, terms, keys)
        x_BLD = self._states(tokens_BL, None, frame)
        return self.head.losses(x_BLD, self.output, tokens_BL, targets_BL, frame)

    def _trains(self, frame: Frame, terms: Terms | None, keys: mx.array | None) -> None:
        """Have a pass compute as in training, where there are terms."""
        frame.terms, frame.recompute = terms, self.recompute and terms is not None
        frame.noise = self.noise.of(keys) if self.noise and keys is not None else None

    def draft(
        self, tokens_BL: mx.array, cache: Sequence[Any] | None = None, drafts: Any | None = None
    ) -> mx.array:
        """Greedy guesses (B, horizons) of the tokens after the last one, by the head's own modules: the next
        one first. With `cache` and `drafts = head.make_drafts()` only new tokens are given."""
        if not hasattr(self.head, "draft"):
            raise ConfigError(
                f"head '{self._config.head.name}' predicts one token, so it drafts none",
                hint="models with the head mtp or mtp_parallel do",
            )
        frame = Frame.of(tokens_BL)
        x_BLD = self._states(tokens_BL, cache, frame)
        return self.head.draft(x_BLD, self.output, tokens_BL, frame, drafts)


def initialize(model: LM, seed: int) -> LM:
    """Draw fresh weights: normal(0, initializer_range), residual outputs / sqrt(2 layers), biases 0, norms 1.

    Attention, residual and norm techniques that have a rule of their own, `initial_std(name, shape)`, are
    asked first. Each tensor's key derives from (seed, its name), so adding a tensor leaves the others as they
    were.
    Source: Radford et al. 2019, section 2.3 (scaled residual outputs).
    """
    config = model.config
    usual, depth = config.initializer_range, math.sqrt(2 * config.num_hidden_layers)
    layer = model.layers[0]
    parts = (layer.self_attn, layer.mlp_residual, layer.input_layernorm)
    rules = [part.initial_std for part in parts if hasattr(part, "initial_std")]
    fresh = []
    for name, value in tree_flatten(model.parameters()):
        std = next((s for rule in rules if (s := rule(name, value.shape)) is not None), None)
        if std is None and value.ndim < 2:
            fresh.append((name, mx.zeros(value.shape) if name.endswith("bias") else mx.ones(value.shape)))
            continue
        if std is None:
            last = name.removesuffix(".weight").endswith(("o_proj", "down_proj"))
            std = usual / depth if last else usual
        key = key_of(seed, name)
        fresh.append((name, std * mx.random.normal(value.shape, key=key)))
    model.update(tree_unflatten(fresh))
    mx.eval(model.parameters())
    return model
