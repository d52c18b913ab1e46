"""What heads that predict several tokens share: the loss of each horizon, and drafts for decoding.

Horizon k + 1 of place i is the token t_(i+1+k). Its loss counts as much as that target does where it stands,
and only inside the document of place i; it is divided as the main loss is, by what all targets count."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.model.block import Block
from tinygpt.model.config import ATTENTION, ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.head.linear import LinearHead
from tinygpt.model.output import Output, token_losses


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What the heads' settings have in common; each has its own defaults."""

    horizons: int
    weight: float

    def __post_init__(self) -> None:
        if self.horizons < 2:
            raise ConfigError(
                f"head.horizons must be at least 2, got {self.horizons}",
                hint="the head 'linear' predicts one",
            )
        if self.weight <= 0:
            raise ConfigError(f"head.weight must be positive, got {self.weight:g}")


@dataclass
class Drafts:
    """What drafting remembers between calls. caches: of each module, places whose inputs are known for sure;
    waiting: inputs of the module at the places after these; seen: tokens of the text so far."""

    caches: list[Any]
    waiting: list[mx.array | None]
    seen: int = 0


def block_of(config: ModelConfig, place: int) -> Block:
    """The block of the module at this place of the head, numbered on from the stack's. It computes every
    token, and attends on its own where the layers of the stack share keys and values."""
    alone = getattr(ATTENTION.load(config.attention.name), "alone", None)
    attention = config.attention if alone is None else alone(config)
    config = replace(config, attention=attention, depth=Pick("all"))
    block = Block(config, config.num_hidden_layers + place)
    if hasattr(block.mlp, "name"):  # where what it measures finds its parameter
        block.mlp.name = f"head.ahead.{place}.block.mlp"
    return block


class Ahead(LinearHead):
    """The linear head, which alone decodes, and modules `ahead[k - 1](h_BLD, ids_BL, frame, cache)` that
    predict the k-th token after the next. Shapes: B batch, L tokens, D width, V vocabulary.

    chained: a module reads what the one before it made, and the token k places on; else all read the
    trunk. share: of each horizon's loss in the whole."""

    def __init__(
        self, config: ModelConfig, ahead: Sequence[nn.Module], *, chained: bool, share: float
    ) -> None:
        super().__init__(config)
        self.ahead: list[Any] = list(ahead)
        self.chained, self.share = chained, share

    def losses(
        self, x_BLD: mx.array, output: Output, tokens_BL: mx.array, targets_BL: mx.array, frame: Frame
    ) -> mx.array:
        """-log p of each target (B, L); in training the other horizons go to the terms: mtp_2, mtp_3, ..."""
        losses_BL = super().losses(x_BLD, output, tokens_BL, targets_BL, frame)
        terms = frame.terms
        if terms is None:
            return losses_BL
        counts_BL, length = terms.counts(targets_BL.shape), targets_BL.shape[1]
        h_BLD = self._begin(x_BLD, frame)
        for k, module in enumerate(self.ahead[: length - 1], start=1):
            inner = _before(frame, length - k)
            made_BLD = module(h_BLD[:, : length - k], tokens_BL[:, k:], inner)
            found_BL, log_z_BL = token_losses(
                output, module.finish(made_BLD, inner), targets_BL[:, k:], self.n_vocab
            )
            counted_BL = counts_BL[:, k:] * _same_document(frame, k)
            terms.add(f"mtp_{k + 1}", self.share, terms.mean(found_BL, counted_BL))
            terms.add_z(log_z_BL, counted_BL, self.share)
            h_BLD = made_BLD if self.chained else h_BLD
        return losses_BL

    def make_drafts(self) -> Drafts:
        """Nothing read yet."""
        return Drafts([module.block.make_cache() for module in self.ahead], [None] * len(self.ahead))

    def draft(
        self,
        x_BLD: mx.array,
        output: Output,
        tokens_BL: mx.array,
        frame: Frame,
        drafts: Drafts | None = None,
        first_B1: mx.array | None = None,
    ) -> mx.array:
        """Greedy guesses (B, horizons) of what follows, the linear head's first.

        x: the stack's output for tokens that are certain, (B, L, D), all rows equally long. `drafts`: what
        earlier calls on the text before them have left; it is changed. first: the next token, where it is
        known."""
        drafts = drafts or self.make_drafts()
        length = tokens_BL.shape[1]
        before, drafts.seen = drafts.seen, drafts.seen + length
        guesses = [_best(output(x_BLD[:, -1:])) if first_B1 is None else first_B1]
        fresh_BLD = self._begin(x_BLD, frame)
        late_BLD = fresh_BLD[:, :0]  # what the module before made out of guesses
        for i, (module, cache) in enumerate(zip(self.ahead, drafts.caches)):
            if not self.chained:
                made_BLD = module(fresh_BLD, tokens_BL, _beginning(frame, length, cache), cache)
                guesses.append(_best(output(module.finish(made_BLD[:, -1:], frame))))
                continue
            k = i + 1
            held = drafts.waiting[i]
            waiting_BLD = fresh_BLD if held is None else mx.concatenate([held, fresh_BLD], axis=1)
            # Place j is certain once the token j + k is.
            n = max(0, drafts.seen - k) - max(0, before - k)
            drafts.waiting[i] = waiting_BLD[:, n:]
            fresh_BLD = waiting_BLD[:, :n]
            if n:
                ids_BL = tokens_BL[:, length - n :]
                fresh_BLD = module(fresh_BLD, ids_BL, _beginning(frame, n, cache), cache)
            # The places after these go by guesses, so the cache must not remember them.
            inputs_BLD = mx.concatenate([waiting_BLD[:, n:], late_BLD], axis=1)
            n, trial = inputs_BLD.shape[1], _copied(cache)
            ids_BL = mx.concatenate(guesses, axis=1)[:, -n:]
            late_BLD = module(inputs_BLD, ids_BL, _beginning(frame, n, trial), trial)
            guesses.append(_best(output(module.finish(late_BLD[:, -1:], frame))))
        return mx.concatenate(guesses, axis=1)

    def _begin(self, x_BLD: mx.array, frame: Frame) -> mx.array:
        """What the first module reads."""
        if self.chained:
            return x_BLD
        assert frame.trunk is not None
        return frame.trunk


def _before(frame: Frame, n: int) -> Frame:
    """The frame of the first n tokens of a pass without a cache."""
    cut = {
        name: None if (x := getattr(frame, name)) is None else x[:, :n] for name in ("positions", "segments")
    }
    return replace(frame, length=n, shared={}, tap=None, **cut)


def _beginning(frame: Frame, n: int, cache: Any) -> Frame:
    """The frame of n tokens after those in a module's cache."""
    made = Frame(length=n, position=frame.position, stack=frame.stack)
    made.begin(cache)
    return made


def _same_document(frame: Frame, k: int) -> mx.array | float:
    """(B, L - k): 1 where the token k places on is of the same document."""
    if frame.segments is None:
        return 1.0
    here, there = frame.segments[:, :-k], frame.segments[:, k:]
    return ((here == there) & (here > 0)).astype(mx.float32)


def _best(logits_B1V: mx.array) -> mx.array:
    """(B, 1): the likeliest token."""
    return mx.argmax(logits_B1V, axis=-1)


def _copied(cache: Any) -> Any:
    """A cache of its own with the same content: arrays are written in place."""
    other = copy.copy(cache)
    for name, value in vars(cache).items():
        if isinstance(value, mx.array):
            setattr(other, name, value[...])
        elif isinstance(value, dict | list):
            setattr(other, name, copy.copy(value))
    return other
