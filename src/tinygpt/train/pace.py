"""A training that leaves room for others: it waits between steps, and changes nothing in them.

- duty cycle F: after work of t seconds it rests t (1 / F - 1), so that work takes F of the time;
- at most N steps a second;
- a file with a number, read between steps, is the duty cycle while it is there;
- while a reason to pause is given (battery, heat), it waits until the reason is gone.

A wait ends when the run is asked to stop or its time is over. Clock and sleep are handed in by tests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinygpt.core.events import Events
from tinygpt.train.stop import Stop

LEAST = 0.01  # the smallest duty cycle
SLICE = 0.2  # seconds after which a wait looks whether it should end
POLL = 30.0  # seconds between questions about battery and heat: a question starts a program


@dataclass(frozen=True, kw_only=True)
class Manners:
    """How much a run holds back. `reason()` says why to pause now, "" when there is no reason."""

    throttle: float = 1.0
    max_step_rate: float = 0.0
    file: Path | None = None
    reason: Callable[[], str] | None = None


class Pace:
    """Waits between the steps of one run."""

    def __init__(
        self,
        manners: Manners,
        events: Events,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.manners, self.events, self.clock, self.sleep = manners, events, clock, sleep
        self.began = clock()
        self.ask_at = -math.inf
        self.duty, self.told = manners.throttle, False  # told: that the file says nothing of use

    def start(self) -> None:
        """Work begins now."""
        self.began = self.clock()

    def wait(
        self, stop: Stop, *, seconds: float = math.inf, pausing: Callable[[], None] | None = None
    ) -> None:
        """Rest after the work since the last wait, for so many seconds at most. pausing() is called before a
        pause, which may be long."""
        until = self.clock() + seconds
        worked = self.clock() - self.began
        self._read()
        rest = worked * (1 / self.duty - 1)
        if self.manners.max_step_rate:
            rest = max(rest, 1 / self.manners.max_step_rate - worked)
        self._rest(self.clock() + rest, stop, until)
        self._pause(stop, until, pausing)
        self.began = self.clock()

    def _rest(self, end: float, stop: Stop, until: float) -> None:
        end = min(end, until)
        while not stop and (left := end - self.clock()) > 0:
            self.sleep(min(left, SLICE))

    def _pause(self, stop: Stop, until: float, pausing: Callable[[], None] | None) -> None:
        reason = self._reason()
        if not reason:
            return
        if pausing is not None:
            pausing()
        self.events.note(f"paused: {reason}", "warning")
        while reason and not stop and self.clock() < until:
            self._rest(self.ask_at, stop, until)
            if self.clock() >= self.ask_at:
                reason = self._reason()
        if not reason:
            self.events.note("going on")

    def _reason(self) -> str:
        if self.manners.reason is None or self.clock() < self.ask_at:
            return ""
        self.ask_at = self.clock() + POLL
        return self.manners.reason()

    def _read(self) -> None:
        """The duty cycle of the file, or the one that was set."""
        if self.manners.file is None:
            return
        try:
            text = self.manners.file.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            self._use(self.manners.throttle)
            return
        except OSError as error:
            text = f"({error.strerror})"
        try:
            duty = float(text)
        except ValueError:
            duty = math.nan
        if LEAST <= duty <= 1:
            self._use(duty)
        elif not self.told:
            self.told = True
            self.events.note(
                f"{self.manners.file} says {text[:40]!r}, not a number from {LEAST} to 1: throttle stays "
                f"{self.duty:g}",
                "warning",
            )

    def _use(self, duty: float) -> None:
        if duty != self.duty:
            self.events.note(f"throttle is now {duty:g} ({self.manners.file})")
        self.duty, self.told = duty, False
