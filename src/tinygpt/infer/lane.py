"""A lane: requests wait, their prompts are read in pieces, and their answers are written together.

Each step reads one piece of a prompt, if one waits, and writes one token of every answer: a long prompt holds
up nobody for longer than a piece takes. Requests are served in the order in which they came. One lane
serves one model with its adapters; whoever owns the device steps it, from one thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import limit_products, mx
from tinygpt.core.errors import BusyError, ConfigError
from tinygpt.infer.admission import Admission, Limits
from tinygpt.infer.batch import Batch, choose, likeliest, sampler_of
from tinygpt.infer.decode import Decoder
from tinygpt.infer.kind import Kind
from tinygpt.infer.prefix import Hit, Known, Prefixes
from tinygpt.infer.request import Answer, Piece, Request
from tinygpt.infer.speculate._batch import SpeculativeBatch, recorder
from tinygpt.infer.speculate._protocol import Drafter, Drafting, Seen
from tinygpt.infer.writer import Writer

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine

PAUSES = 4  # times that reading a group pauses to keep what was read so far


class Lane:
    """Requests of one engine."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits | None = None,
        prefixes: Prefixes | None = None,
        identity: str = "",
        drafter: Drafter | None = None,
    ) -> None:
        """prefixes: where beginnings of texts are kept that need not be read again. identity: names weights,
        adapter and packing there (see Prefixes.of). drafter: guesses tokens, which the model then checks
        several at a time (see infer/speculate); not given: the engine's, if it has one."""
        self.engine, self.limits = engine, limits or Limits()
        self.drafter = drafter or engine.drafter
        if self.drafter is not None and self.drafter.points:
            prefixes = None  # what it sees of the prompt is not kept
        self.prefixes = prefixes
        self._admission = Admission(engine, self.limits, prefixes, identity)
        self.waiting: deque[Answer] = deque()
        self._reading: _Reading | None = None
        self._batches: dict[Kind, Batch | SpeculativeBatch] = {}  # by the kind of their caches

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
        self._drop_cancelled()
        if self.limits.waiting is not None and len(self.waiting) >= self.limits.waiting:
            raise BusyError(f"{len(self.waiting)} requests wait already", hint="try again later")
        if self.drafter is not None and request.config.kv_bits:
            raise ConfigError(
                "'kv_bits' does not go with speculation: tokens that are checked together pack otherwise",
                hint="use one of them",
            )
        self._admission.refuse_too_large(request)
        writer = Writer(self.engine.tokenizer.stream(), request.config.stop)
        answer = Answer(request, writer, deliver, failed)
        self.waiting.append(answer)
        return answer

    def step(self) -> None:
        """Read a piece of a prompt, and write one token of every answer."""
        limit_products(self.engine.product_threads)  # until all is answered: passes run on between steps
        self._admit()
        if self._reading is not None and all(answer.cancelled for answer in self._reading.answers):
            for answer in self._reading.answers:
                answer.end_cancelled()
            self._reading = None
        if self._reading is not None and self._reading.advance(self.limits.chunk):
            batch: Any = self._batch(self._reading.kind)  # speculation hands its session over, too
            batch.extend(*self._reading.result())
            self._reading = None  # only now: were they nowhere, what breaks here would leave them unanswered
        for batch in self._batches.values():
            if batch.rows:
                batch.step()
        if not self.busy:
            limit_products(0)

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
        limit_products(0)
        self.waiting.clear()
        self._reading = None
        self._batches.clear()

    def drain(self) -> None:
        """Step until all is answered."""
        while self.busy:
            self.step()

    def _admit(self) -> None:
        """Take the next requests from the queue, as many as fit and can be read together."""
        self._drop_cancelled()
        if self._reading is not None or not self.waiting:
            return
        kind, group, hits = Kind.of(self.waiting[0].request), list[Answer](), list["Hit | None"]()
        running = {kind: [row.request for row in batch.rows] for kind, batch in self._batches.items()}
        places, admission = sum(batch.places for batch in self._batches.values()), self._admission
        for answer in self.waiting:
            request = answer.request
            alone = not group and not self.n_running  # what exceeds a limit by itself is served by itself
            if not alone and not admission.fits(running, places, [*(a.request for a in group), request]):
                break
            hit = admission.find(request)
            if group and not (Kind.of(request) == kind and admission.together(group, hits, request, hit)):
                break
            group.append(answer)
            hits.append(hit)
        if not group:
            return
        decoder, cached = admission.restored(group, hits, kind)
        self._reading = _Reading(self.engine, group, kind, decoder, cached, admission.known, self.drafter)
        for _ in group:
            self.waiting.popleft()

    def _drop_cancelled(self) -> None:
        """Let those leave the queue that nobody waits for."""
        if any(answer.cancelled for answer in self.waiting):
            for answer in self.waiting:
                if answer.cancelled:
                    answer.end_cancelled()
            self.waiting = deque(answer for answer in self.waiting if answer.finish_reason is None)

    def _ended(self, kind: Kind) -> Callable[[Decoder, int, Answer], None] | None:
        """What keeps an answer that has ended, for the prompt that goes on from it."""
        known = self._admission.known
        if known is None or kind.kv_bits:  # quantised, it would not be what reading it again gives
            return None

        def keep(decoder: Decoder, row: int, answer: Answer) -> None:
            n, stop = decoder.held(row), [] if answer.stop_id is None else [answer.stop_id]
            text = [*answer.request.prompt, *answer.ids, *stop]
            if len(answer.request.prompt) < n <= len(text) and not answer.request.echo:
                decoder.thaw()
                known.keep(kind, text[:n], decoder.cache, row, decoder.pads[row])

        return keep

    def _batch(self, kind: Kind) -> Batch | SpeculativeBatch:
        if kind not in self._batches:
            model, ended = self.engine.model, self._ended(kind)
            self._batches[kind] = (
                SpeculativeBatch(model, self.drafter, ended) if self.drafter else Batch(model, ended)
            )
        return self._batches[kind]


class _Reading:
    """Prompts that are being read together, equal ones once. Aligned at the right; where caches bring some of
    the tokens, the rest is aligned at the left, and what was read beyond a row's end is taken back."""

    def __init__(
        self,
        engine: Engine,
        answers: list[Answer],
        kind: Kind,
        decoder: Decoder | None = None,
        cached: Sequence[int] = (),
        known: Known | None = None,
        drafter: Drafter | None = None,
    ) -> None:
        self.engine, self.answers, self.kind, self._known = engine, answers, kind, known
        now, cached = time.perf_counter(), cached or [0] * len(answers)
        for answer, n in zip(answers, cached, strict=True):
            answer.times.started, answer.n_cached = now, n
        found: dict[tuple[int, ...], int] = {}
        self._row_of = [found.setdefault(tuple(a.request.prompt), len(found)) for a in answers]
        self._prompts = [list(prompt) for prompt in found]
        self._before = [cached[self._row_of.index(row)] for row in range(len(found))]
        rests = [prompt[n:] for prompt, n in zip(self._prompts, self._before, strict=True)]
        self._length = max(map(len, rests))
        self._pads = [0 if decoder else self._length - len(rest) for rest in rests]
        self._beyond = [self._length - len(rest) if decoder else 0 for rest in rests]
        id = engine.tokenizer.pad_id
        rows = zip(self._pads, rests, self._beyond, strict=True)
        self._tokens_BL = mx.array([[id] * pad + ids + [id] * n for pad, ids, n in rows])
        self._decoder = decoder or kind.decoder(engine, self._pads)
        self._spare = drafter.most if drafter else 0
        self._decoder.keep_spare(max(self._spare, *self._beyond))
        self._drafter, self._drafting = drafter, drafter.begin(self._aligned) if drafter else None
        self._at, self._stops = 0, self._places()
        self._logits_BV: mx.array | None = None

    @property
    def _aligned(self) -> list[int]:
        """Padding of the whole prompts, aligned at the right."""
        longest = max(map(len, self._prompts))
        return [longest - len(prompt) for prompt in self._prompts]

    def _places(self) -> list[int]:
        """Where reading pauses, so that caches can be kept that stand for what was read so far only."""
        if piece := self.kind.piece:
            return list(range(piece, self._length, piece))  # of a row alone, whose known part ends so too
        if self._known is None or not self._known.needs_end(self.kind) or any(self._beyond):
            return []
        places = {self._length - 1}
        for answer, row in zip(self.answers, self._row_of, strict=True):
            for n in answer.request.boundaries:
                if 0 < n < len(self._prompts[row]) and not self._known.knows(
                    self.kind, self._prompts[row], n
                ):
                    places.add(n - self._before[row] + self._pads[row])
        return sorted(n for n in places if 0 < n < self._length)[-PAUSES:]

    def advance(self, chunk: int) -> bool:
        """Read the next tokens, at most so many over all rows; whether all were read."""
        end = min(self._length, self._at + max(1, chunk // len(self._pads)))
        end = next((n for n in self._stops if self._at < n < end), end)
        echo, last = any(answer.request.echo for answer in self.answers), 1 + max(self._beyond)
        tokens_BL, seen = self._tokens_BL[:, self._at : end], Seen()
        points = self._drafter.points if self._drafter else frozenset[str]()
        how = {"tap": recorder(points, seen)} if points else {}
        logits_BLV = self._decoder.read(tokens_BL, last=0 if echo else last, **how)
        if self._drafting is not None:
            self._tell(self._drafting, tokens_BL, seen, end)
        if echo:
            self._report(logits_BLV, end)
        self._at, self._logits_BV = end, logits_BLV[:, -1]
        if end == self._length and any(self._beyond):
            at_B = mx.array([[logits_BLV.shape[1] - 1 - n] for n in self._beyond])
            self._logits_BV = mx.take_along_axis(logits_BLV, at_B[..., None], axis=1)[:, 0]
            self._decoder.rewind(self._beyond)
            self._decoder.keep_spare(self._spare)
        if self._known is not None and not echo:
            self._keep(self._known, end)
        return end == self._length

    def _tell(self, drafting: Drafting, tokens_BL: mx.array, seen: Seen, end: int) -> None:
        """Let who guesses have the prompts: as they are read, or whole where the model read only their
        rest."""
        if not any(self._before):
            mx.eval(list(seen.values()))  # nothing else asks for them
            drafting.read(tokens_BL, seen)
        elif end == self._length:
            id, rows = self.engine.tokenizer.pad_id, zip(self._aligned, self._prompts)
            drafting.read(mx.array([[id] * pad + prompt for pad, prompt in rows]), seen)

    def _keep(self, known: Known, end: int) -> None:
        """Keep what was read, where it may be useful again."""
        stands = known.needs_end(self.kind)
        if stands and end == self._length and not self.kind.piece:
            return  # the same prompt again needs one token to read: it was kept before that
        if not stands and end < self._length:
            return  # of the whole, every part is kept
        for row, prompt in enumerate(self._prompts):
            n = min(len(prompt), self._before[row] + end - self._pads[row])
            if n > self._before[row]:
                known.keep(self.kind, prompt[:n], self._decoder.cache, row, self._decoder.pads[row])

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
