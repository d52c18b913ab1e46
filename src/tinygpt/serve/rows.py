"""One answer on its way to a client: from pieces of a lane to events of a job."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tinygpt.infer.best import mean_logprob
from tinygpt.infer.request import Answer, Piece
from tinygpt.serve import calls, report
from tinygpt.serve.job import CallPart, Delta, Done, Event, Job, Token, Usage
from tinygpt.serve.stream import Parser, Part

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer


@dataclass
class Heard:
    """One turn of an answer as the model wrote it. ids and logprobs: where log-probabilities were asked for,
    those of all its tokens, the stop id among them; text: without reasoning and calls."""

    answer: Answer
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    text: str = ""


@dataclass(kw_only=True)
class Row:
    """Answer `index` of a job, in one turn or in several.

    parser:   takes its text apart; None: all is text.
    report:   whether tokens are told. stops: the token that ends the answer is told, too.
    own:      name of the tool whose calls the server answers itself, or "".
    hops:     such calls that were answered, in all turns.
    """

    index: int
    tokenizer: Tokenizer
    answer: Answer | None = None
    parser: Parser | None = None
    report: bool = False
    stops: bool = False
    own: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)  # of turns that are over
    hops: int = 0
    n_calls: int = 0  # of the client's tools
    asking: bool = False  # the last call is for the own tool
    heard: list[Heard] = field(default_factory=list[Heard])  # all turns, the present one last
    called: list[list[str]] = field(default_factory=list[list[str]])  # id, name, arguments of the client's
    thought: int = 0  # tokens of reasoning
    before: Usage = field(default_factory=Usage)  # what earlier turns took
    load: float = 0.0
    _asked: list[list[str]] = field(default_factory=list)

    @property
    def written(self) -> str:
        """The text of this turn."""
        return self.heard[-1].text

    @property
    def asked(self) -> list[dict[str, Any]]:
        """Calls of the own tool in this turn."""
        return [{"name": name, "arguments": calls.arguments(text)} for name, text in self._asked]

    def take(self, piece: Piece) -> list[Delta]:
        """What a piece adds."""
        assert self.answer is not None
        ended, stop = piece.finish_reason is not None, piece.token in self.answer.request.stop_ids
        if piece.token >= 0 and piece.logprob is not None:
            self.heard[-1].ids.append(piece.token)
            self.heard[-1].logprobs.append(piece.logprob)
        if self.parser is None:
            parts = [Part("text", piece.text)] if piece.text else []
        else:
            self.thought += self.parser.reasoning and not stop
            parts = self.parser.feed(piece.text)
            parts += self.parser.finish() if ended else []
        deltas = [delta for part in parts if (delta := self._delta(part)) is not None]
        if self.report and piece.token >= 0 and (self.stops or not stop):
            tokens = (report.token(self.tokenizer, piece.token, piece.logprob, piece.top),)
            if deltas:
                deltas[0] = replace(deltas[0], tokens=tokens)
            else:
                deltas.append(Delta(index=self.index, tokens=tokens))
        return deltas

    def begin(self, answer: Answer, parser: Parser | None) -> None:
        """A turn begins; the one before is over."""
        if self.answer is not None:
            self.before = self.usage()
        self.answer, self.parser = answer, parser
        self._asked = []
        self.heard.append(Heard(answer))

    def prompt(self) -> tuple[Token, ...]:
        """The report of the prompt's tokens."""
        assert self.answer is not None
        return report.of_prompt(self.tokenizer, self.answer.request.prompt, self.answer.prompt_logprobs)

    def usage(self) -> Usage:
        """Of all turns so far: what was read and written, and the time of it."""
        answer, before = self.answer, self.before
        assert answer is not None
        times = answer.times
        ended = times.ended or time.perf_counter()  # one that was dropped may still be on its way out
        started, first = times.started or ended, times.first or ended
        return Usage(
            prompt_tokens=before.prompt_tokens + len(answer.request.prompt),
            cached_tokens=before.cached_tokens + answer.n_cached,
            completion_tokens=before.completion_tokens + len(answer.ids),
            reasoning_tokens=self.thought,
            drafted_tokens=before.drafted_tokens + answer.n_drafted,
            accepted_tokens=before.accepted_tokens + answer.n_accepted,
            tool_info_hops=self.hops,
            load_seconds=self.load,
            wait_seconds=before.wait_seconds + max(0.0, started - times.queued),
            prompt_seconds=before.prompt_seconds + max(0.0, first - started),
            write_seconds=before.write_seconds + max(0.0, ended - first),
        )

    def done(self) -> Done:
        """The end of this answer."""
        answer = self.answer
        assert answer is not None
        reason = "length" if answer.finish_reason == "length" else "stop"
        if self.n_calls and reason == "stop":
            reason = "tool_calls"
        return Done(
            index=self.index, finish_reason=reason, usage=self.usage(), stop_text=answer.stop_text,
            seed=answer.request.seed,
        )  # fmt: skip

    def _delta(self, part: Part) -> Delta | None:
        if part.kind == "reasoning":
            return Delta(index=self.index, reasoning=part.text)
        if part.kind == "text":
            self.heard[-1].text += part.text
            return Delta(index=self.index, text=part.text)
        if part.kind == "call":
            self.asking = bool(self.own) and part.text == self.own
            if self.asking:
                self._asked.append([part.text, ""])
                return None
            call = CallPart(index=self.n_calls, id=f"call_{secrets.token_hex(12)}", name=part.text)
            self.n_calls += 1
            self.called.append([call.id, call.name, ""])
        elif self.asking:
            self._asked[-1][1] += part.text
            return None
        else:
            call = CallPart(index=self.n_calls - 1, arguments=part.text)
            self.called[-1][2] += part.text
        return Delta(index=self.index, calls=(call,))


class Best:
    """Which events are passed on: all at once, or those of the likeliest once all answers are there."""

    def __init__(self, job: Job) -> None:
        self.n, self.all = job.n, max(job.n, job.best_of or 0)
        self.ended: set[int] = set()
        self.given: list[Row] = []  # whose answers the client gets
        self._held: dict[int, list[Delta]] = {}
        self._rows: list[Row] = []

    @property
    def waits(self) -> bool:
        """Whether an answer grows."""
        return len(self.ended) < self.all

    def passes(self, delta: Delta) -> bool:
        if self.all == self.n:
            return True
        self._held.setdefault(delta.index, []).append(delta)
        return False

    def end(self, row: Row) -> list[Event]:
        """The events that the end of an answer lets through."""
        self.ended.add(row.index)
        self._rows.append(row)
        if self.all == self.n:
            self.given.append(row)
            return [row.done()]
        if self.waits:
            return []
        ranked = self.given = sorted(self._rows, key=_rank)[: self.n]
        return [
            replace(event, index=place)
            for place, row in enumerate(ranked)
            for event in (*self._held.get(row.index, ()), row.done())
        ]


def _rank(row: Row) -> tuple[float, int]:
    """The likeliest first; of equals the earlier."""
    assert row.answer is not None
    return -mean_logprob(row.answer), row.index
