"""Draft model: a smaller model with the same tokenizer writes a few tokens ahead.

The draft writes k tokens one after the other, each a draw from its own probabilities q under the row's rules
and constraint; one pass of the large model gives p after each of them. A drafted d stays with probability
`min(1, p(d) / q(d))`; at the first that does not, the token comes from `max(p - q, 0)` normalised, and the
text has exactly the law of the large model. A greedy row keeps what is the large model's likeliest token.
With an acceptance rate a, a pass gives `(1 - a^(k+1)) / (1 - a)` tokens.

Paper: Leviathan et al., ICML 2023, arXiv:2211.17192, algorithm 1; Chen et al. 2023, arXiv:2302.01318.
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.infer.decode import Decoder
from tinygpt.infer.request import Answer
from tinygpt.infer.sampler import draw
from tinygpt.infer.speculate._ahead import Ahead
from tinygpt.infer.speculate._back import copied, forgets, read_again
from tinygpt.infer.speculate._batch import check
from tinygpt.infer.speculate._protocol import Proposal, Seen, Told
from tinygpt.model import ops

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine
    from tinygpt.infer.speculate._verify import Rules

COPIES = "the draft's caches cannot forget, so they are copied before each guess"


@dataclass(frozen=True, kw_only=True)
class Config:
    """How far ahead the draft writes."""

    tokens: Annotated[int, "Tokens drafted at once."] = 4

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ConfigError(f"a draft writes at least 1 token, got {self.tokens}")


class Drafts:
    """The session: the draft's own caches, a row for each of the batch's. They hold each text but for its
    newest tokens, which are read when something is asked."""

    def __init__(self, drafter: Draft, pads: Sequence[int]) -> None:
        self._drafter = drafter
        self._decoder = Decoder(
            drafter.engine.model, pads, drafter.engine.fixed_step, spare=0 if drafter.copies else drafter.most
        )
        if drafter.learned:  # a guess that stands at the wrong place does no harm
            self._decoder.places = drafter.engine.context
        self._pads, self._read = list(pads), 0
        self._held: list[int] = [0] * len(self._pads)  # tokens of each text in the caches
        self._ahead: list[int] | None = None  # tokens of each text and of its guess that were read for one
        self._before: Decoder | None = None  # a copy that has read the texts alone

    def read(self, tokens_BL: mx.array, seen: Seen) -> None:
        """Read the same of the prompts."""
        known_BL = mx.where(tokens_BL < self._drafter.n_ids, tokens_BL, 0)
        self._decoder.read(known_BL, last=1)
        self._read += tokens_BL.shape[1]
        self._held = [max(0, self._read - pad) for pad in self._pads]

    def extend(self, other: Drafts) -> None:
        """Take in the rows of another session."""
        self._decoder.extend(other._decoder)
        self._held += other._held

    def filter(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        self._decoder.filter(rows)
        self._held = [self._held[row] for row in rows]

    def propose(self, rows: Sequence[Answer], rules: Rules, most: Sequence[int]) -> Proposal | None:
        """What the draft writes after each text."""
        texts = [row.request.prompt + row.ids for row in rows]
        K = self._drafter.most
        n = self._drafter.n_ids
        late = [text[held:] for text, held in zip(texts, self._held, strict=True)]
        logits_BV = self._caught_up([[id if id < n else 0 for id in own] for own in late])
        tokens: list[mx.array] = []
        q: list[mx.array] = []
        more_BV = mx.zeros((len(rows), rules.vocab_size))
        ahead = Ahead(rows, rules.vocab_size)
        for j in range(K):
            steps = [[len(row.ids) + j] for row in rows]
            fitted_BV = self._drafter.fitted(logits_BV)
            allowed_BV = ahead.allowed(fitted_BV)
            ruled_B1V = rules.ruled(fitted_BV[:, None], steps, more_BV[:, None], allowed_BV)
            token_B = ruled_B1V[:, 0].argmax(axis=-1)
            if rules.sampled:
                drawn_B = draw(ruled_B1V[:, 0], rules.draws(steps, "draft")[:, 0])
                token_B = mx.where(rules.greedy_B1[:, 0], token_B, drawn_B)
                q.append(ops.softmax(ruled_B1V[:, 0].astype(mx.float32)))
            tokens.append(token_B)
            if rules.remembers:
                more_BV = more_BV + (token_B[:, None] == mx.arange(rules.vocab_size))
            if j + 1 < K:
                logits_BV = self._decoder.step(token_B)
                ahead.take(token_B)
        ahead.back()
        self._ahead = [len(text) for text in texts]
        return Proposal(
            tokens=mx.stack(tokens, axis=1), counts=list(most), q=mx.stack(q, axis=1) if q else None
        )

    def _caught_up(self, late: list[list[int]]) -> mx.array:
        """Read what each text has got since; the logits (B, V) after its newest token."""
        width = max(map(len, late))
        missing = [width - len(own) for own in late]
        if self._drafter.copies or max(missing) > self._drafter.most:
            self._decoder = read_again(self._decoder, [own[:-1] for own in late])
            logits_BLV = self._decoder.read(mx.array([own[-1:] for own in late]))
            self._before = copied(self._decoder) if self._drafter.copies else None
            return logits_BLV[:, -1]
        filled = mx.array([own + [0] * n for own, n in zip(late, missing)])
        logits_BLV = self._decoder.read(filled)
        if any(missing):
            self._decoder.rewind(missing)
        ends = mx.array([len(own) - 1 for own in late])
        return mx.take_along_axis(logits_BLV, ends[:, None, None], axis=1)[:, 0]

    def settle(self, seen: Seen, paths: Sequence[Sequence[int]]) -> None:
        """Forget the guesses that were wrong."""
        if self._ahead is None:
            return
        read = self._drafter.most - 1  # the last guess was not
        right = [min(len(path) - 1, read) for path in paths]
        if self._before is not None:
            self._decoder, self._before, right = self._before, None, [0] * len(paths)
        elif any(n < read for n in right):
            self._decoder.rewind([read - n for n in right])
        self._held = [n + more for n, more in zip(self._ahead, right, strict=True)]
        self._ahead = None


class Draft:
    """The drafter. `engine` is the draft's own."""

    points = frozenset[str]()

    def __init__(self, engine: Engine, vocab_size: int, config: Config) -> None:
        self.told = Told()
        self.engine, self._vocab_size, self.most = engine, vocab_size, config.tokens
        # Ids beyond these, of a large model with a wider table, are read as 0.
        self.n_ids = int(engine.model.config.vocab_size)
        self.learned = getattr(getattr(engine.model.config, "position", None), "name", "") == "learned"
        cache = Decoder(engine.model, [0], engine.fixed_step, spare=self.most)
        self.copies = not forgets(cache, self.most)
        self.note = COPIES if self.copies else ""

    def begin(self, pads: Sequence[int]) -> Drafts:
        """A session."""
        return Drafts(self, pads)

    def fitted(self, logits_BV: mx.array) -> mx.array:
        """The draft's logits for the ids of the large model; what the draft lacks never comes."""
        lacking = self._vocab_size - logits_BV.shape[1]
        if lacking <= 0:
            return logits_BV[:, : self._vocab_size]
        return mx.pad(logits_BV, [(0, 0), (0, lacking)], constant_values=-float("inf"))


def build(engine: Engine, config: Config | None = None, *, draft: Engine) -> Draft:
    """A drafter for an engine out of a smaller one; ConfigError where they do not go together."""
    check(engine.model)
    check(draft.model)
    ours, theirs = engine.tokenizer, draft.tokenizer
    if ours.hash != theirs.hash:
        raise ConfigError(
            "the draft has another tokenizer than the model", hint="draft with a model of the same family"
        )
    return Draft(draft, engine.model.config.vocab_size, config or Config())
