"""How likely a text of some corpus would go on so: minus bits a byte, under a model of the corpus alone.

The model is one that was trained on the corpus, or byte n-grams counted here, each order mixed with the one
below it by how often it was seen (Witten and Bell 1991): p_n = (c + t p_(n-1)) / (N + t), with t different
next bytes after a context that was seen N times. Bits a byte do not depend on a tokenizer.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.eval.verifier._candidate import Candidate, Case, Judging, Verify

LONGEST = 1 << 24  # bytes of a corpus that are counted


@dataclass(frozen=True, kw_only=True)
class Config:
    """What knows the corpus."""

    corpus: Annotated[Path | None, "Text file to count byte n-grams of."] = None
    model: Annotated[Path | None, "Or a model that was trained on it."] = None
    order: Annotated[int, "Longest n-gram in bytes."] = 6

    def __post_init__(self) -> None:
        if (self.corpus is None) == (self.model is None):
            raise ConfigError(
                "corpus-ppl needs a corpus, or a model that learned it", hint="give --corpus FILE"
            )
        if self.order < 1:
            raise ConfigError(f"order must be at least 1, got {self.order}")


def build(judging: Judging, config: Config) -> Verify:
    """Scores are minus bits a byte; an empty answer has the lowest."""
    nats = _counted(config) if config.model is None else _learned(judging, config.model)

    def verify(case: Case, candidates: Sequence[Candidate]) -> list[float]:
        sizes = [len(c.text.encode()) for c in candidates]
        found = iter(nats(case.text, [c.text for c, n in zip(candidates, sizes) if n]))
        return [next(found) / math.log(2) / n if n else float("-inf") for n in sizes]

    return verify


def _learned(judging: Judging, path: Path) -> Callable[[str, list[str]], list[float]]:
    """Log-probability of texts after a prompt, in nats, under the model at `path`."""
    endpoint = judging.open(path)
    tokenizer = endpoint.tokenizer
    if tokenizer is None:
        raise ConfigError(f"{path} gives no token log-probabilities")

    def nats(prompt: str, texts: list[str]) -> list[float]:
        first = [
            tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id,
            *tokenizer.encode(prompt),
        ]
        own = [tokenizer.encode(text)[: endpoint.context] for text in texts]
        rows = [[*first[-max(1, endpoint.context + 1 - len(ids)) :], *ids] for ids in own]
        return [
            sum(found[-len(ids) :]) for found, ids in zip(endpoint.token_logprobs(rows), own, strict=True)
        ]

    return nats


def _counted(config: Config) -> Callable[[str, list[str]], list[float]]:
    """The same from counts of byte n-grams."""
    assert config.corpus is not None
    try:
        with config.corpus.open("rb") as file:
            data = file.read(LONGEST)
    except OSError as error:
        raise DataError(
            f"cannot read {config.corpus}: {error.strerror or error}", hint="check --corpus"
        ) from error
    if not data:
        raise DataError(f"{config.corpus} is empty", hint="give text to --corpus")
    counts: dict[bytes, Counter[int]] = defaultdict(Counter)
    for i, byte in enumerate(data):
        for n in range(min(i, config.order - 1) + 1):
            counts[data[i - n : i]][byte] += 1

    def p(context: bytes, byte: int) -> float:
        found = 1 / 256
        for n in range(len(context) + 1):
            seen = counts.get(context[len(context) - n :])
            if seen is None:
                break
            total, kinds = seen.total(), len(seen)
            found = (seen[byte] + kinds * found) / (total + kinds)
        return found

    def nats(prompt: str, texts: list[str]) -> list[float]:
        found: list[float] = []
        for text in texts:
            start, both = len(prompt.encode()), (prompt + text).encode()
            found.append(
                sum(
                    math.log(p(both[max(0, i - config.order + 1) : i], both[i]))
                    for i in range(start, len(both))
                )
            )
        return found

    return nats
