"""From logits to a token: the rules in their order, then one keyed draw a row.

The draw of token t under seed s is a hash of (s, t), not the state of a generator. So a request gives the
same text alone, in a batch of 64, on another back end, or when neighbours leave early; only a tie of rounding
errors can change it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.family import Family
from tinygpt.infer.config import SampleConfig
from tinygpt.model import ops

RULES = Family("tinygpt.infer.sample", verb="apply")


def _knobs() -> dict[str, tuple[str, ...]]:
    """The settings of each rule, in the order of the config: those named like it, or whose names begin so."""
    found: dict[str, tuple[str, ...]] = {}
    for setting in (f.name for f in dataclasses.fields(SampleConfig)):
        for rule in RULES.names():
            if setting == rule or setting.startswith(f"{rule}_"):
                found[rule] = (*found.get(rule, ()), setting)
    return found


KNOBS = _knobs()  # the first knob of a rule switches it
ORDER = tuple(KNOBS)
PICKING = ORDER[ORDER.index("temperature") :]
BLOCK = 256  # tokens that are summed at once


def uniform(seed: int, step: int, purpose: str = "") -> float:
    """The draw of token `step` under `seed`: a number in [0, 1) with 23 bits, the same on every machine. What
    else is drawn for a token has a purpose, and a number of its own."""
    key = f"{seed}:{step}:{purpose}" if purpose else f"{seed}:{step}"
    digest = hashlib.blake2b(key.encode(), digest_size=4).digest()
    return (int.from_bytes(digest, "little") >> 9) / (1 << 23)


class History:
    """What rules may know of the text so far, and the numbers that they draw. B rows, V vocabulary.

    seeds: one a row, for rules that draw. counts: whether tokens are counted, which costs (B, V) a step."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        vocab_size: int,
        answers: Sequence[Sequence[int]] = (),
        seeds: Sequence[int] = (),
        *,
        counts: bool = True,
    ) -> None:
        self._seeds = list(seeds)
        self._steps = [len(ids) for ids in answers] if answers else [0] * len(prompts)
        self._counts = counts
        if not counts:
            return
        rows = [row for row, ids in enumerate(prompts) for _ in ids]
        self.prompt_BV = mx.zeros((len(prompts), vocab_size), mx.bool_)
        self.prompt_BV[mx.array(rows), mx.array(list(itertools.chain(*prompts)))] = True
        self.counts_BV = mx.zeros((len(prompts), vocab_size))
        rows = [row for row, ids in enumerate(answers) for _ in ids]
        if rows:
            at = (mx.array(rows), mx.array(list(itertools.chain(*answers))))
            self.counts_BV = self.counts_BV.at[at].add(1)

    def seen(self) -> mx.array:
        """(B, V) whether a token is in the prompt or the answer."""
        return self.prompt_BV | (self.counts_BV > 0)

    def uniform(self, purpose: str) -> mx.array:
        """(B, 1): a number in [0, 1) for each row, keyed by its seed, its step and the purpose."""
        pairs = zip(self._seeds, self._steps, strict=True)
        return mx.array([uniform(seed, step, purpose) for seed, step in pairs])[:, None]

    def add(self, tokens_B: mx.array) -> None:
        """One more token of each answer."""
        self._steps = [step + 1 for step in self._steps]
        if self._counts:
            self.counts_BV = self.counts_BV.at[mx.arange(tokens_B.shape[0]), tokens_B].add(1)

    def stand(self, steps: Sequence[int], prompt_BV: mx.array | None, counts_BV: mx.array | None) -> None:
        """Be as at these steps of the answers, with these tokens in prompts and answers; None: as it is."""
        self._steps = list(steps)
        if prompt_BV is not None and counts_BV is not None:
            self.prompt_BV, self.counts_BV = prompt_BV, counts_BV


class Sampler:
    """Chooses the next token of each row, every row under its own config and seed.

    configs, seeds, prompts: one a row; answers: what the rows have written so far."""

    def __init__(
        self,
        configs: Sequence[SampleConfig],
        seeds: Sequence[int],
        prompts: Sequence[Sequence[int]],
        vocab_size: int,
        answers: Sequence[Sequence[int]] = (),
    ) -> None:
        self.seeds = list(seeds)
        self._greedy = [config.greedy for config in configs]
        self._greedy_B = mx.array(self._greedy)
        self._bias_BV = _biases(configs, vocab_size)
        self.rules = [rule for name in ORDER if (rule := _Rule.of(name, configs)) is not None]
        if all(self._greedy):  # from temperature on no rule changes which token is likeliest
            self.rules = [rule for rule in self.rules if rule.name not in PICKING]
        counts = any(rule.name not in PICKING for rule in self.rules)
        reads = counts or any(rule.draws for rule in self.rules)
        self.history = History(prompts, vocab_size, answers, seeds, counts=counts) if reads else None

    def __call__(
        self, logits_BV: mx.array, steps: Sequence[int], allowed_BV: mx.array | None = None
    ) -> mx.array:
        """The next token of each row, (B,), not yet computed. steps: which token of its answer it is, 0 the
        first; allowed: what may come at all."""
        tokens_B = self.pick(self.ruled(logits_BV, allowed_BV), steps)
        if self.history is not None:
            self.history.add(tokens_B)
        return tokens_B

    def ruled(self, logits_BV: mx.array, allowed_BV: mx.array | None = None) -> mx.array:
        """Logits after all rules: what is drawn from, or whose largest is taken where a row is greedy."""
        if self.rules or not all(self._greedy):  # in 16 bits a rule would round otherwise beside neighbours
            logits_BV = logits_BV.astype(mx.float32)
        if self._bias_BV is not None:
            logits_BV = logits_BV + self._bias_BV
        if allowed_BV is not None:
            logits_BV = mx.where(allowed_BV, logits_BV, -mx.inf)
        for rule in self.rules:
            logits_BV = rule(logits_BV, self.history)
        return logits_BV

    def pick(self, ruled_BV: mx.array, steps: Sequence[int]) -> mx.array:
        """The token of each row, (B,): the likeliest, or one drawn with the row's number for this step."""
        if all(self._greedy):
            return ruled_BV.argmax(axis=-1)
        u_B = mx.array([uniform(seed, step) for seed, step in zip(self.seeds, steps, strict=True)])
        drawn_B = draw(ruled_BV, u_B)
        return mx.where(self._greedy_B, ruled_BV.argmax(axis=-1), drawn_B) if any(self._greedy) else drawn_B


class _Rule:
    """One rule with its values for each row: numbers where all rows have the same."""

    def __init__(
        self, name: str, module: Any, knobs: Sequence[Sequence[float]], active: Sequence[bool]
    ) -> None:
        self.name, self._apply = name, module.apply
        self.draws: bool = getattr(module, "DRAWS", False)
        self.values: list[Any] = [
            values[0] if all(active) and len(set(values)) == 1 else mx.array(values)[:, None]
            for values in knobs
        ]
        self._active_B1 = None if all(active) else mx.array(active)[:, None]

    @classmethod
    def of(cls, name: str, configs: Sequence[SampleConfig]) -> _Rule | None:
        """None where no row asks for the rule."""
        rule = RULES.load(name)
        rows = [[getattr(config, knob) for knob in KNOBS[name]] for config in configs]
        # At temperature 0 all of the probability is on the likeliest token, where no picking rule does
        # anything.
        active = [
            values[0] != rule.NEUTRAL and not (config.greedy and name in PICKING)
            for values, config in zip(rows, configs, strict=True)
        ]
        if not any(active):
            return None
        stand_in = next(values for values, on in zip(rows, active) if on)
        filled = [values if on else stand_in for values, on in zip(rows, active)]
        return cls(name, rule, list(zip(*filled)), active)

    def __call__(self, logits_BV: mx.array, history: History | None) -> mx.array:
        changed_BV = self._apply(logits_BV, history, *self.values)
        return changed_BV if self._active_B1 is None else mx.where(self._active_B1, changed_BV, logits_BV)


def _biases(configs: Sequence[SampleConfig], vocab_size: int) -> mx.array | None:
    """(B, V): what the rows add to logits, None where none does."""
    given = [(row, i, b) for row, config in enumerate(configs) for i, b in config.biases]
    if not given:
        return None
    rows, ids, biases = zip(*given)
    return mx.zeros((len(configs), vocab_size)).at[mx.array(rows), mx.array(ids)].add(mx.array(biases))


def draw(logits_BV: mx.array, uniform_B: mx.array) -> mx.array:
    """The token at which the running sum of probabilities passes a uniform number: (B,).

    One number a row instead of one a token (Gumbel): 20x less work on CPU. A token at -inf adds nothing to
    the sum and is never chosen; 23 bits of u keep u * total below total. Blocks of tokens are summed first:
    added one by one to a sum near 1, tokens below 3e-8 would be lost, and with a large vocabulary all of its
    tail. N blocks of K tokens.
    """
    p_BV = ops.softmax(logits_BV)
    p_BNK = mx.pad(p_BV, [(0, 0), (0, -p_BV.shape[1] % BLOCK)]).reshape(p_BV.shape[0], -1, BLOCK)
    sums_BN = mx.cumsum(p_BNK.sum(axis=-1), axis=-1)
    at_B1 = uniform_B[:, None] * sums_BN[:, -1:]
    block_B1 = (sums_BN > at_B1).argmax(axis=-1, keepdims=True)
    before_B1 = mx.take_along_axis(mx.pad(sums_BN, [(0, 0), (1, 0)]), block_B1, axis=-1)
    sums_BK = mx.cumsum(mx.take_along_axis(p_BNK, block_B1[..., None], axis=1)[:, 0], axis=-1)
    # Rounding must not carry the rest of the number beyond its block.
    rest_B1 = mx.minimum(at_B1 - before_B1, sums_BK[:, -1:] * (1 - 1e-6))
    return block_B1[:, 0] * BLOCK + (sums_BK > rest_B1).argmax(axis=-1)
