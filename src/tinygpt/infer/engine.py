"""The engine: prompts in, text out, as a stream or many at once; and log-probabilities for scoring.

Decoding is pipelined: the next step is handed to the device before the last token is looked at, so Python's
work and the model's overlap; at worst one step is computed for nothing. Shapes: B rows, L tokens, V
vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, Progress
from tinygpt.data.template._spans import encode
from tinygpt.infer import score
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.decode import Decoder, fixed_step
from tinygpt.infer.sampler import Sampler
from tinygpt.infer.writer import Writer
from tinygpt.model import ops
from tinygpt.model.cache import sinks

if TYPE_CHECKING:
    from tinygpt.data.template._choice import Template
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.model.lm import LM

Message = dict[str, Any]

BATCH_ROWS = 128  # rows decoded together; more gains nothing on CPU
BATCH_TOKENS = 1 << 16  # rows x (prompt + answer): bounds the caches' memory


@dataclass(frozen=True)
class Piece:
    """One step of a stream. `text` may be empty, or several characters when a held-back part is let go."""

    text: str
    token: int
    logprob: float | None = None
    finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A whole answer. `ids` leave out the stop id; `finish_reason` is "stop" or "length"; `seed` gives it
    again."""

    text: str
    ids: list[int]
    finish_reason: str
    seed: int
    logprob_sum: float | None = None


class Engine:
    """A model, its tokenizer and its chat template (see data/template, or None)."""

    def __init__(self, model: LM, tokenizer: Tokenizer, template: Template | None = None) -> None:
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self._step = fixed_step(model)
        self.stop_ids = frozenset(tokenizer.stop_ids)
        self.context = model.config.reach
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {tokenizer.vocab_size} ids, the model only {model.config.vocab_size}",
                hint="use the tokenizer that the model was trained with",
            )

    # Prompts

    def start_id(self) -> int:
        """The id that opens a document: bos, or eos where there is none."""
        return self.tokenizer.eos_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id

    def encode(self, text: str) -> list[int]:
        """Ids of a text to continue. It begins with bos where the tokenizer has one; an empty text with
        `start_id`."""
        bos = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        return bos + self.tokenizer.encode(text) or [self.start_id()]

    def encode_chat(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None = None
    ) -> list[int]:
        """Ids of a conversation up to where the assistant begins to write."""
        if self.template is None:
            raise ConfigError("this model has no chat template", hint="use `tinygpt sample` for plain text")
        return encode(self.template.render(messages, tools, True), self.tokenizer)[0]

    def room(self, prompt: Sequence[int], max_tokens: int) -> int:
        """Tokens that an answer may have: max_tokens or what is left of the context. ConfigError when nothing
        is."""
        if not prompt:
            raise ConfigError(
                "the prompt holds no token", hint="Engine.encode gives even an empty text a start"
            )
        if len(prompt) >= self.context:
            raise ConfigError(
                f"the prompt has {len(prompt)} tokens and leaves no room in a context of {self.context}",
                hint="shorten it, or use a model with a longer context",
            )
        return min(max_tokens, self.context - len(prompt))

    def limit(self, config: SampleConfig) -> float:
        """Tokens that prompt and answer may have together: the context, or no bound where a window of sinks
        moves on. ConfigError where the model cannot have one."""
        if not config.window:
            return self.context
        sinks.check(self.model, config.sinks, config.window)
        return math.inf

    def _room(self, prompt: Sequence[int], config: SampleConfig) -> int:
        """`room` under this config."""
        endless = prompt and self.limit(config) == math.inf
        return config.max_tokens if endless else self.room(prompt, config.max_tokens)

    # One answer

    def generate(
        self,
        prompt: Sequence[int],
        config: SampleConfig | None = None,
        *,
        stop_ids: Sequence[int] | frozenset[int] | None = None,
        logprobs: bool = False,
    ) -> Iterator[Piece]:
        """Stream one answer; the last piece has a finish_reason. The seed is `config.seed`: call
        `config.seeded()` before to know a fresh one.

        stop_ids: ids that end the answer, by default the tokenizer's; () turns them off.
        logprobs: also give log p of each token under the model itself, before any rule.
        """
        config = (config or SampleConfig()).seeded()
        room = self._room(prompt, config)
        stops = self.stop_ids if stop_ids is None else frozenset(stop_ids)
        return self._stream(list(prompt), config, room, stops, logprobs)

    def _stream(
        self, prompt: list[int], config: SampleConfig, room: int, stops: frozenset[int], logprobs: bool
    ) -> Iterator[Piece]:
        assert config.seed is not None
        sampler = Sampler(config, [config.seed], [prompt], self.model.config.vocab_size)
        writer = Writer(self.tokenizer.stream(), config.stop)
        decoder = Decoder(self.model, [0], self._step, sinks=config.sinks, window=config.window)
        step = _choose(decoder.prefill(mx.array([prompt])), sampler, 0, logprobs)
        for t in range(room):
            token_B, logprob_B = step
            if t + 1 < room:
                step = _choose(decoder.step(token_B), sampler, t + 1, logprobs)
            token = int(token_B.item())
            logprob = None if logprob_B is None else float(logprob_B.item())
            if token in stops:
                yield Piece(writer.flush(), token, logprob, "stop")
                return
            text = writer.add(token)
            if not writer.stopped and t + 1 == room:
                text += writer.flush()
                yield Piece(text, token, logprob, "stop" if writer.stopped else "length")
                return
            yield Piece(text, token, logprob, "stop" if writer.stopped else None)
            if writer.stopped:
                return

    # Many answers

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        config: SampleConfig | None = None,
        *,
        seeds: Sequence[int] | None = None,
        stop_ids: Sequence[int] | frozenset[int] | None = None,
        logprobs: bool = False,
        events: Events | None = None,
    ) -> list[Completion]:
        """Answers to many prompts, in their order. Prompt i has the seed `seeds[i]`, by default `config.seed
        + i`."""
        config = (config or SampleConfig()).seeded()
        assert config.seed is not None
        seeds = [config.seed + i for i in range(len(prompts))] if seeds is None else seeds
        stops = self.stop_ids if stop_ids is None else frozenset(stop_ids)
        rows = [
            _Row(
                list(ids),
                seed,
                self._room(ids, config),
                Writer(self.tokenizer.stream(), config.stop),
            )
            for ids, seed in zip(prompts, seeds, strict=True)
        ]
        done = 0
        for group in _groups(sorted(rows, key=lambda row: len(row.prompt))):
            self._decode(group, config, stops, logprobs)
            done += len(group)
            if events is not None:
                events.emit(Progress(task="generate", done=done, total=len(rows), unit="prompts"))
        return [row.completion(logprobs) for row in rows]

    def _decode(self, rows: list[_Row], config: SampleConfig, stops: frozenset[int], logprobs: bool) -> None:
        """Decode the rows together until all are finished; finished ones leave the batch."""
        limit = self.limit(config)
        length = max(len(row.prompt) for row in rows)
        pads = [length - len(row.prompt) for row in rows]
        decoder = Decoder(self.model, pads, self._step, sinks=config.sinks, window=config.window)
        tokens_BL = mx.array([[self.tokenizer.pad_id] * pad + row.prompt for pad, row in zip(pads, rows)])
        sampler = Sampler(
            config, [r.seed for r in rows], [r.prompt for r in rows], self.model.config.vocab_size
        )
        step = _choose(decoder.prefill(tokens_BL), sampler, 0, logprobs)
        t = 0
        while True:
            token_B, logprob_B = step
            if t + 1 < max(row.room for row in rows if not row.finish):
                step = _choose(decoder.step(token_B), sampler, t + 1, logprobs)
            tokens = token_B.tolist()
            logs = [0.0] * len(tokens) if logprob_B is None else logprob_B.tolist()
            for row, token, logprob in zip(rows, tokens, logs):
                if not row.finish:
                    row.take(token, logprob, stops)
            t += 1
            kept = [i for i, row in enumerate(rows) if not row.finish]
            if not kept:
                return
            # Leaving copies the caches, so a few finished rows are carried along, but not beyond the context.
            outgrown = any(row.finish and len(row.prompt) + t >= limit for row in rows)
            if outgrown or len(kept) <= 0.75 * len(rows):
                rows = [rows[i] for i in kept]
                sampler.select(kept)
                index = mx.array(kept)
                decoder.select(kept)
                token_B, logprob_B = step
                step = token_B[index], None if logprob_B is None else logprob_B[index]

    # Scores

    def logprobs(self, rows: Sequence[Sequence[int]], *, events: Events | None = None) -> list[list[float]]:
        """log p(ids[j+1] | ids[..j]) in nats for every j of every row: one fewer than the row has ids."""
        return score.logprobs(self.model, rows, events)


def _choose(
    logits_BV: mx.array, sampler: Sampler, step: int, logprobs: bool
) -> tuple[mx.array, mx.array | None]:
    """Token `step` of each row and, on request, its log-probability; the device starts on them at once."""
    token_B = sampler(logits_BV, step)
    logprob_B = -ops.cross_entropy(logits_BV, token_B) if logprobs else None
    mx.async_eval(token_B if logprob_B is None else (token_B, logprob_B))
    return token_B, logprob_B


class _Row:
    """One answer of a batch while it grows."""

    def __init__(self, prompt: list[int], seed: int, room: int, writer: Writer) -> None:
        self.prompt, self.seed, self.room, self.writer = prompt, seed, room, writer
        self.ids: list[int] = []
        self.text = ""
        self.logprob = 0.0
        self.finish = ""

    def take(self, token: int, logprob: float, stops: frozenset[int]) -> None:
        """One more token. Text is made on the way only where a stop text could end it."""
        self.logprob += logprob
        if token in stops:
            self.finish = "stop"
            return
        self.ids.append(token)
        if self.writer.watches:
            self.text += self.writer.add(token)
            if self.writer.stopped:
                self.finish = "stop"
                return
        if len(self.ids) == self.room:
            self.finish = "length"

    def completion(self, logprobs: bool) -> Completion:
        text = self.text if self.writer.watches else "".join(map(self.writer.add, self.ids))
        text += self.writer.flush()
        return Completion(
            text=text, ids=self.ids, seed=self.seed,
            finish_reason="stop" if self.writer.stopped else self.finish,
            logprob_sum=self.logprob if logprobs else None,
        )  # fmt: skip


def _groups(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Rows of similar length, cut where rows or tokens would exceed their budget."""
    group: list[_Row] = []
    widest = 0
    for row in rows:
        width = len(row.prompt) + row.room
        widest = max(widest, width)
        if group and (len(group) == BATCH_ROWS or (len(group) + 1) * widest > BATCH_TOKENS):
            yield group
            group, widest = [], width
        group.append(row)
    if group:
        yield group
