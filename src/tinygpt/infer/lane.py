"""A lane: requests wait, their prompts are read in pieces, and their answers are written together.

Each step reads one piece of a prompt, if one waits, and writes one token of every answer: a long prompt holds
up nobody for longer than a piece takes. Requests are served in the order in which they came. One lane
serves one model with its adapters; whoever owns the device steps it, from one thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import BusyError
from tinygpt.infer.batch import Batch, choose, likeliest, sampler_of
from tinygpt.infer.decode import Decoder
from tinygpt.infer.request import Answer, Piece, Request
from tinygpt.infer.speculate._batch import SpeculativeBatch, recorder
from tinygpt.infer.speculate._protocol import Drafter, Seen
from tinygpt.infer.writer import Writer

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Limits:
    """rows: answers written together. places: of their caches, prompt and answer of all rows, which bounds
    memory. chunk: tokens of prompts read in one step. waiting: requests that may wait; None: no bound."""

    rows: int = 128
    places: int = 1 << 16
    chunk: int = 2048
    waiting: int | None = None


class Lane:
    """Requests of one engine."""

    def __init__(
        self, engine: Engine, limits: Limits | None = None, drafter: Drafter | None = None
    ) -> None:
        """drafter: guesses tokens, which the model then checks several at a time; see infer/speculate."""
        self.engine, self.limits, self.drafter = engine, limits or Limits(), drafter
        self.waiting: deque[Answer] = deque()
        self._reading: _Reading | None = None
        self._batches: dict[tuple[int, int], Batch | SpeculativeBatch] = {}  # by the kind of their caches

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting or self._reading or any(batch.rows for batch in self._batches.values()))

    @property
    def n_running(self) -> int:
        """Answers that have left the queue."""
        reading = len(self._reading.answers) if self._reading else 0
        return reading + sum(len(batch.rows) for batch in self._batches.values())

    @property
    def n_drafted(self) -> int:
        """Tokens that were guessed for all answers so far."""
        return sum(getattr(batch, "n_drafted", 0) for batch in self._batches.values())

    @property
    def n_accepted(self) -> int:
        """Those of them that were right."""
        return sum(getattr(batch, "n_accepted", 0) for batch in self._batches.values())

    def submit(
        self,
        request: Request,
        deliver: Callable[[Piece], None] | None = None,
        failed: Callable[[BaseException], None] | None = None,
    ) -> Answer:
        """Queue a request; BusyError where too many wait. See Answer for deliver and failed."""
        if self.limits.waiting is not None and len(self.waiting) >= self.limits.waiting:
            raise BusyError(f"{len(self.waiting)} requests wait already", hint="try again later")
        writer = Writer(self.engine.tokenizer.stream(), request.config.stop)
        answer = Answer(request, writer, deliver, failed)
        self.waiting.append(answer)
        return answer

    def step(self) -> None:
        """Read a piece of a prompt, and write one token of every answer."""
        self._admit()
        if self._reading is not None and all(answer.cancelled for answer in self._reading.answers):
            for answer in self._reading.answers:
                answer.end_cancelled()
            self._reading = None
        if self._reading is not None and self._reading.advance(self.limits.chunk):
            done, self._reading = self._reading, None
            batch: Any = self._batch(done.kind)  # speculation hands its session over, too
            batch.extend(*done.result())
        for batch in self._batches.values():
            if batch.rows:
                batch.step()

    def step_safely(self) -> None:
        """A step that nothing comes out of: what breaks it ends all answers of the lane, and each is told."""
        try:
            self.step()
        except Exception as error:
            for answer in self._all():
                answer.fail(error)
            self._forget()

    def end_all(self) -> None:
        """Cancel whatever is not answered."""
        for answer in self._all():
            answer.end_cancelled()
        self._forget()

    def _all(self) -> list[Answer]:
        reading = self._reading.answers if self._reading else []
        written = [row for batch in self._batches.values() for row in batch.rows]
        return [*written, *reading, *self.waiting]

    def _forget(self) -> None:
        self.waiting.clear()
        self._reading = None
        self._batches.clear()

    def drain(self) -> None:
        """Step until all is answered."""
        while self.busy:
            self.step()

    def _admit(self) -> None:
        """Take the next requests from the queue, as many as fit and can be read together."""
        while self.waiting and self.waiting[0].cancelled:
            self.waiting.popleft().end_cancelled()
        if self._reading is not None or not self.waiting:
            return
        kind, group = _kind(self.waiting[0].request), []
        held = sum(batch.places for batch in self._batches.values())
        rows, width, length = self.n_running, 0, 0
        while self.waiting:
            request = self.waiting[0].request
            width, length = max(width, request.width), max(length, len(request.prompt))
            n = len(group) + 1
            fits = rows + n <= self.limits.rows and held + n * width <= self.limits.places
            alone = not group and not rows  # what exceeds a limit by itself is served by itself
            together = n == 1 or (_kind(request) == kind and n * length <= self.limits.chunk)
            if not (alone or (fits and together)):
                break
            group.append(self.waiting.popleft())
        if group:
            self._reading = _Reading(self.engine, group, kind, self.drafter)

    def _batch(self, kind: tuple[int, int]) -> Batch | SpeculativeBatch:
        if kind not in self._batches:
            model = self.engine.model
            self._batches[kind] = SpeculativeBatch(model, self.drafter) if self.drafter else Batch(model)
        return self._batches[kind]


def _kind(request: Request) -> tuple[int, int]:
    """What caches must have in common to be one batch: sinks and window."""
    return request.config.sinks, request.config.window


class _Reading:
    """Prompts that are being read together, aligned at the right. Equal ones are read once."""

    def __init__(
        self, engine: Engine, answers: list[Answer], kind: tuple[int, int], drafter: Drafter | None = None
    ) -> None:
        self.engine, self.answers, self.kind, self._drafter = engine, answers, kind, drafter
        now = time.perf_counter()
        for answer in answers:
            answer.times.started = now
        found: dict[tuple[int, ...], int] = {}
        self._row_of = [found.setdefault(tuple(a.request.prompt), len(found)) for a in answers]
        prompts = [list(prompt) for prompt in found]
        self._length = max(map(len, prompts))
        self._pads = [self._length - len(prompt) for prompt in prompts]
        pad_id = engine.tokenizer.pad_id
        self._tokens_BL = mx.array([[pad_id] * n + ids for n, ids in zip(self._pads, prompts, strict=True)])
        self._decoder = Decoder(engine.model, self._pads, engine.fixed_step, sinks=kind[0], window=kind[1])
        self._drafting = drafter.begin(self._pads) if drafter else None
        self._at = 0
        self._logits_BV: mx.array | None = None

    def advance(self, chunk: int) -> bool:
        """Read the next tokens, at most so many over all rows; whether all were read."""
        end = min(self._length, self._at + max(1, chunk // len(self._pads)))
        echo = any(answer.request.echo for answer in self.answers)
        tokens_BL, seen = self._tokens_BL[:, self._at : end], Seen()
        points = self._drafter.points if self._drafter else ()
        how = {"tap": recorder(frozenset(points), seen)} if points else {}
        logits_BLV = self._decoder.read(tokens_BL, last=0 if echo else 1, **how)
        if self._drafting is not None:
            self._drafting.read(tokens_BL, seen)
        if echo:
            self._report(logits_BLV, end)
        self._at, self._logits_BV = end, logits_BLV[:, -1]
        return end == self._length

    def _report(self, logits_BLV: mx.array, end: int) -> None:
        """log p of the prompts' tokens that follow those just read."""
        last = min(end, self._length - 1)
        n = last - self._at
        if n <= 0:
            return
        logs_BLV = logits_BLV[:, :n].astype(mx.float32)
        logs_BLV = logs_BLV - mx.logsumexp(logs_BLV, axis=-1, keepdims=True)
        next_BL = self._tokens_BL[:, self._at + 1 : last + 1]
        values = mx.take_along_axis(logs_BLV, next_BL[..., None], axis=-1)[..., 0].tolist()
        most = max(answer.request.logprobs or 0 for answer in self.answers)
        tops: Any = [x.tolist() for x in likeliest(logs_BLV, most)] if most else None
        for answer, row in zip(self.answers, self._row_of, strict=True):
            if not answer.request.echo:
                continue
            for j in range(max(0, self._pads[row] - self._at), n):
                pairs = zip(tops[0][row][j], tops[1][row][j]) if tops else ()
                top = tuple(pairs)[: answer.request.logprobs or 0]
                answer.prompt_logprobs.append((values[row][j], top))

    def result(self) -> tuple[Any, ...]:
        """The caches, one row an answer, the first tokens, and the session of a drafter, if there is one."""
        logits_BV = self._logits_BV
        assert logits_BV is not None
        if self._row_of != list(range(len(self._pads))):
            self._decoder.filter(self._row_of)
            logits_BV = logits_BV[mx.array(self._row_of)]
            if self._drafting is not None:
                self._drafting.filter(self._row_of)
        sampler = sampler_of(self.answers, self.engine.model.config.vocab_size)
        first = choose(self.answers, sampler, logits_BV)
        return (self._decoder, first) if self._drafting is None else (self._decoder, first, self._drafting)
