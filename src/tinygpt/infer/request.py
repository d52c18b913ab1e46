"""A request, and the answer to it while it grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tinygpt.core.errors import TinyGPTError
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.writer import Writer

if TYPE_CHECKING:
    import numpy as np

Alternatives = tuple[tuple[int, float], ...]  # (id, log p), the likeliest first


@dataclass(frozen=True)
class Piece:
    """One step of a stream. `text` may be empty, or several characters when a held-back part is let go."""

    text: str
    token: int
    logprob: float | None = None
    finish_reason: str | None = None
    top: Alternatives = ()


class Constraint(Protocol):
    """What an answer may consist of (see infer/constrain). One object serves one answer."""

    def mask(self) -> np.ndarray:
        """(ceil(V / 32),) int32: bit i % 32 of word i // 32 says whether id i may come next. At least one
        may: a stop id where the answer is complete."""
        ...

    def take(self, token: int) -> None:
        """This id came."""
        ...

    def rollback(self, n: int) -> None:
        """Forget the last n ids."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What to continue and how.

    room:      tokens that the answer may have.
    stop_ids:  ids that end it; they are not part of it.
    logprobs:  how many alternatives are reported beside each token's log-probability; None: neither. They are
               the model's own, before any rule.
    echo:      report the log-probabilities of the prompt's tokens too.
    boundaries: lengths of the prompt's beginnings that other prompts are likely to share.
    """

    prompt: list[int]
    config: SampleConfig
    room: int
    stop_ids: frozenset[int]
    logprobs: int | None = None
    echo: bool = False
    constraint: Constraint | None = None
    boundaries: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Places that prompt and answer may fill."""
        return len(self.prompt) + self.room

    @property
    def seed(self) -> int:
        assert self.config.seed is not None, "requests are made of seeded configs"
        return self.config.seed


@dataclass
class Times:
    """When what happened, in seconds of time.perf_counter; 0: not yet."""

    queued: float = field(default_factory=time.perf_counter)
    started: float = 0.0  # the prompt began to be read
    first: float = 0.0  # the first token was there
    ended: float = 0.0


class Answer:
    """The answer to one request. `finish_reason` is None while it grows, then "stop", "length", "cancelled"
    or "error".

    deliver: called with each piece as it comes, by whoever steps the lane; without it text is made at the
             end. The last piece has the finish_reason; after a cancellation its token is -1. Where it
             raises, the answer fails with that, and no other does.
    failed:  called in the place of a last piece where the lane or the answer broke.
    """

    def __init__(
        self,
        request: Request,
        writer: Writer,
        deliver: Callable[[Piece], None] | None = None,
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.request, self._writer, self._deliver, self._failed = request, writer, deliver, failed
        self.ids: list[int] = []
        self.text = ""
        self.finish_reason: str | None = None
        self.logprob_sum = 0.0
        self.prompt_logprobs: list[tuple[float, Alternatives]] = []  # of prompt[1:], with `echo`
        self.n_cached = 0  # tokens of the prompt that were not read again
        self.stop_id: int | None = None  # that ended it
        self.n_drafted = 0  # tokens that were guessed for it (see infer/speculate)
        self.n_accepted = 0  # those of them that were right
        self.cancelled = False
        self.error: BaseException | None = None  # what broke it, where finish_reason is "error"
        self.times = Times()

    def cancel(self) -> None:
        """Ask for the end; the lane sees to it at its next step. May be called from any thread."""
        self.cancelled = True

    @property
    def stop_text(self) -> str | None:
        """The stop text that ended the answer, if one did."""
        return self._writer.matched

    @property
    def last(self) -> bool:
        """Whether the next token is the last that there is room for."""
        return len(self.ids) + 1 >= self.request.room

    def take(self, token: int, logprob: float | None = None, top: Alternatives = ()) -> None:
        """One more token."""
        if self.finish_reason is not None:
            return
        if not self.times.first:
            self.times.first = time.perf_counter()
        if logprob is not None:
            self.logprob_sum += logprob
        if token in self.request.stop_ids:
            self.stop_id = token
            self._end("stop", token, logprob, top)
            return
        if self.request.constraint is not None:
            try:
                self.request.constraint.take(token)
            except TinyGPTError as error:  # as where a bias of -inf left nothing of what it allows
                self.fail(error)
                return
        last = self.last
        self.ids.append(token)
        text = self._writer.add(token) if self._deliver or self._writer.watches else ""
        if self._writer.stopped or last:
            self._end("stop" if self._writer.stopped else "length", token, logprob, top, text)
            return
        self.text += text
        self._hand(Piece(text, token, logprob, None, top))

    def end_cancelled(self) -> None:
        """End without another token."""
        if self.finish_reason is None:
            self._end("cancelled", -1, None, ())

    def fail(self, error: BaseException) -> None:
        """End because something broke."""
        if self.finish_reason is None:
            self.finish_reason, self.error, self.times.ended = "error", error, time.perf_counter()
            if self._failed is not None:
                self._failed(error)

    def _end(self, reason: str, token: int, logprob: float | None, top: Alternatives, text: str = "") -> None:
        if not self._deliver and not self._writer.watches:
            text = "".join(map(self._writer.add, self.ids))
        text += self._writer.flush()
        if self._writer.stopped and reason == "length":
            reason = "stop"
        self.text += text
        self.times.ended = time.perf_counter()
        self.finish_reason = reason
        self._hand(Piece(text, token, logprob, reason, top))

    def _hand(self, piece: Piece) -> None:
        if self._deliver is None:
            return
        try:
            self._deliver(piece)
        except Exception as error:
            self._deliver = self.finish_reason = None
            self.fail(error)
