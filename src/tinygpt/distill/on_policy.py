"""On-policy batches: the student answers, and the teacher says what it would have said at each place.

With a chance of `share` all answers of a step's batch are thrown away and written anew by the student as it
stands; the teacher then judges the very prefixes that the student meets when it decodes, which the data need
not contain. Text that is no conversation is continued from its first half. Such rows have no labels: their
loss is the divergence alone.

Paper: Agarwal et al. 2024 (GKD), arXiv:2306.13649, algorithm 1 (`share` is its lambda).
Differs: an answer may be as long as the data's, and use what its row has left; gradients do not go through
the sampling, as there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from tinygpt.core.errors import ConfigError
from tinygpt.data.batch import Batch
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine

if TYPE_CHECKING:
    from tinygpt.data.batch import Floats


@dataclass(frozen=True, kw_only=True)
class Config:
    """How often the student writes, and how."""

    share: Annotated[float, "Share of the steps whose answers the student writes."] = 0.5
    temperature: Annotated[float, "How freely it writes."] = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"the share of on-policy steps must be from 0 to 1, got {self.share:g}")
        if self.temperature < 0:
            raise ConfigError(f"on-policy answers have no temperature below 0: got {self.temperature:g}")


@dataclass(frozen=True)
class Labelled(Batch):
    """Rows that say whether their targets are labels."""

    labelled: Floats  # (B,): 1 for the data's own, 0 where the student wrote them


class Span(NamedTuple):
    """A prompt in a row, and how many tokens may follow it."""

    row: int
    ids: list[int]
    room: int


class OnPolicy:
    """Rewrites batches of `engine`'s model: `on_policy(batch, step)`. The draw is of (seed, step), so a run
    that goes on writes what the straight one wrote."""

    def __init__(self, engine: Engine, config: Config, *, seed: int) -> None:
        self.engine, self.config, self.seed = engine, config, seed
        self.n_written = 0

    def __call__(self, batch: Batch, step: int) -> Labelled:
        import numpy as np

        draw = np.random.default_rng([self.seed, step, 0x0607])
        given = {f.name: getattr(batch, f.name) for f in fields(Batch)}
        if draw.random() >= self.config.share:
            return Labelled(**given, labelled=np.ones(len(batch.tokens), np.float32))
        spans = [span for row in range(len(batch.tokens)) for span in prompts(batch, row)]
        sampling = SampleConfig(
            temperature=self.config.temperature, seed=int(draw.integers(1 << 30)),
            max_tokens=max((span.room for span in spans), default=1),
        )  # fmt: skip
        written = self.engine.generate_batch([span.ids for span in spans], sampling)
        pad = int(batch.tokens[batch.segments == 0][0]) if (batch.segments == 0).any() else 0
        made = _blank(batch, pad)
        at = [0] * len(batch.tokens)
        for span, answer in zip(spans, written, strict=True):
            end = [answer.stop_id] if answer.stop_id is not None else []
            ids = [*answer.ids, *end][: span.room]
            if ids:
                at[span.row] += _put(made, span.row, at[span.row], span.ids, ids)
                self.n_written += len(ids)
        return made


def prompts(batch: Batch, row: int) -> list[Span]:
    """The prompts of a row, and the room of each: up to the first learned token of its last answer, or half
    of a document that is learned from its beginning. What the row has left is shared out."""
    segments, weights = batch.segments[row], batch.weights[row]
    found: list[tuple[list[int], int]] = []
    for segment in range(1, int(segments.max(initial=0)) + 1):
        places = (segments == segment).nonzero()[0]
        learned = [int(t) for t in places if weights[t] > 0]
        if not learned:
            continue
        first = len(learned) - 1
        while first and learned[first - 1] == learned[first] - 1:
            first -= 1
        begin = learned[first]  # its target is the first token of the answer
        if begin == places[0] and len(places) > 1:
            begin = int(places[(len(places) - 1) // 2])
        prompt = batch.tokens[row, places[0] : begin + 1].tolist()
        found.append((prompt, int(places[-1]) + 1 - begin))
    left = len(segments) - sum(len(prompt) - 1 + room for prompt, room in found)
    more = max(0, left) // max(1, len(found))
    return [Span(row, prompt, room + more) for prompt, room in found]


def _blank(batch: Batch, pad: int) -> Labelled:
    import numpy as np

    names = [f.name for f in fields(Batch)]
    made: dict[str, Any] = {name: np.zeros_like(getattr(batch, name)) for name in names}
    for name in ("tokens", "targets"):
        made[name] += pad
    return Labelled(**made, labelled=np.zeros(len(batch.tokens), np.float32))


def _put(made: Labelled, row: int, at: int, prompt: list[int], answer: list[int]) -> int:
    """Write an example into a row from place `at` on; returns how many places it took."""
    ids = [*prompt, *answer]
    n = len(ids) - 1
    here = slice(at, at + n)
    made.tokens[row, here], made.targets[row, here] = ids[:-1], ids[1:]
    made.weights[row, at + len(prompt) - 1 : at + n] = 1
    made.positions[row, here] = range(n)
    made.segments[row, here] = made.segments[row].max(initial=0) + 1
    return n
