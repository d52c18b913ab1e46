"""How the next token is chosen and when an answer ends."""

from __future__ import annotations

import dataclasses
import math
import secrets
from dataclasses import dataclass
from typing import Annotated, Self

from tinygpt.core.errors import ConfigError

SINKS = 4  # four restore what a window alone loses (Xiao et al. 2024, table 2)
XTC_THRESHOLD = 0.1
COLD = 1e-5  # below this temperature nothing is drawn (as in vLLM): logits over it would leave float32
INTEGER = 2**31 - 1
LARGE = 1e9  # numbers beyond this, or a factor below 1 / LARGE, would leave float32 too, where rules meet


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Knobs of generation. A field that is named like a file of infer/sample, or whose name begins so, is a
    knob of that rule; the first of them switches it. The order of these fields is the order in which the
    rules act (transformers' order). A rule at its neutral value costs nothing."""

    repetition_penalty: Annotated[float, "Divide the odds of tokens already in prompt or answer; 1: off."] = (
        1.0
    )
    presence_penalty: Annotated[
        float, "Subtract this from the logit of every token of the answer; 0: off."
    ] = 0.0
    frequency_penalty: Annotated[
        float, "Subtract this once for every time a token is in the answer; 0: off."
    ] = 0.0
    temperature: Annotated[float, "Below 1 sharper, above 1 flatter; 0: always the likeliest token."] = 0.8
    top_n_sigma: Annotated[
        float, "Keep tokens whose logit is at most n standard deviations below the largest; 0: all."
    ] = 0.0
    top_k: Annotated[int, "Keep only the k likeliest tokens; 0: all."] = 0
    top_p: Annotated[float, "Keep the fewest likeliest tokens whose probability reaches p; 1: all."] = 1.0
    min_p: Annotated[float, "Drop tokens less likely than this share of the likeliest one; 0: none."] = 0.0
    typical_p: Annotated[
        float, "Keep the tokens nearest to the expected surprise until their probability reaches p; 1: all."
    ] = 1.0
    xtc_probability: Annotated[float, "How often the top choices are excluded (XTC); 0: never."] = 0.0
    xtc_threshold: Annotated[float, "Probability from which a token is a top choice of XTC."] = XTC_THRESHOLD
    logit_bias: Annotated[
        tuple[str, ...], "ID=NUMBER: add this to the logit of a token's id, e.g. 42=-100; may be repeated."
    ] = ()
    seed: Annotated[int | None, "Same seed, same text; unset: a fresh one each time."] = None
    max_tokens: Annotated[int, "Longest answer in tokens."] = 200
    stop: Annotated[tuple[str, ...], "Texts that end the answer; they are not part of it."] = ()
    window: Annotated[
        int, "Remember the last so many tokens and the --sinks, so that text has no end; 0: everything."
    ] = 0
    sinks: Annotated[int, "First tokens that are remembered beside the --window."] = SINKS
    kv_bits: Annotated[
        int, "Keep keys and values of all but the last tokens in 8, 4 or 2 bits; 0: as they come."
    ] = 0

    def __post_init__(self) -> None:
        positive = ("repetition_penalty",)
        ranges = {
            "temperature": math.inf, "top_n_sigma": math.inf, "top_p": 1.0, "min_p": 1.0, "typical_p": 1.0,
            "xtc_probability": 1.0, "xtc_threshold": 0.5,
        }  # fmt: skip
        for name in (*positive, *ranges, "presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            least = 1 / LARGE if name in positive else -LARGE
            if not least <= value <= LARGE:
                raise ConfigError(f"'{name}' must be a number from {least:g} to {LARGE:g}, got {value}")
        for name, top in ranges.items():
            value = getattr(self, name)
            if not 0 <= value <= top:
                bounds = "at least 0" if top == math.inf else f"from 0 to {top:g}"
                raise ConfigError(f"'{name}' must be {bounds}, got {value}")
        if not 0 <= self.top_k <= INTEGER:
            raise ConfigError(f"'top_k' must be from 0 to {INTEGER}")
        if self.xtc_threshold != XTC_THRESHOLD and not self.xtc_probability:
            raise ConfigError(
                "'xtc_threshold' means nothing without 'xtc_probability'", hint="add one, or leave it out"
            )
        _ = self.biases
        if self.max_tokens < 1:
            raise ConfigError(f"'max_tokens' must be at least 1, got {self.max_tokens}")
        if self.window < 0:
            raise ConfigError(f"'window' must not be negative, got {self.window}")
        if self.sinks < 1:
            raise ConfigError(
                f"'sinks' must be at least 1, got {self.sinks}",
                hint="without the first tokens a window makes most models talk nonsense",
            )
        if self.sinks != SINKS and not self.window:
            raise ConfigError("'sinks' means nothing without 'window'", hint="add a window, or leave it out")
        if self.kv_bits not in (0, 2, 4, 8):
            raise ConfigError(f"'kv_bits' must be 0, 2, 4 or 8, got {self.kv_bits}")
        if self.kv_bits and self.window:
            raise ConfigError(
                "'kv_bits' and 'window' do not go together: a window of sinks is bounded as it is",
                hint="leave one of them out",
            )
        if any(not text for text in self.stop):
            raise ConfigError(
                "an empty 'stop' text would end every answer before it starts", hint="leave it out"
            )

    @property
    def biases(self) -> list[tuple[int, float]]:
        """`logit_bias` as (id, number)."""
        found = []
        for text in self.logit_bias:
            id, _, number = text.partition("=")
            try:
                found.append((int(id), float(number)))
            except ValueError:
                raise ConfigError(
                    f"'logit_bias' must be ID=NUMBER, got {text!r}", hint="e.g. 42=-100"
                ) from None
            if not found[-1][1] <= LARGE:
                raise ConfigError(f"'logit_bias' must be a number up to {LARGE:g}, or -inf, got {text!r}")
        return found

    @property
    def greedy(self) -> bool:
        """Always the likeliest token: nothing is drawn."""
        return self.temperature < COLD or self.top_k == 1

    def seeded(self) -> Self:
        """The same with a seed: a fresh one where none was given, so that it can be shown and used again."""
        return self if self.seed is not None else dataclasses.replace(self, seed=secrets.randbits(32))
