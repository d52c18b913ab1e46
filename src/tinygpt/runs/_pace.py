"""When a request may be made: at most so many a second, and none while a server asks to be left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class Pace:
    """Requests of all threads come one after another, 1 / rate seconds apart; rate 0: as they please."""

    def __init__(
        self,
        rate: float,
        *,
        pause: Callable[[float], Any] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._pause, self._clock = pause, clock
        self._free, self._guard = 0.0, threading.Lock()  # when the next request may be made

    def take(self) -> None:
        """Wait until it is this caller's turn."""
        while True:
            with self._guard:
                wait = self._free - self._clock()
                if wait <= 0:
                    self._free = max(self._free, self._clock()) + self._gap
                    return
            self._pause(wait)

    def hold(self, seconds: float) -> None:
        """Nobody asks for so long: a server said so to one of them."""
        with self._guard:
            self._free = max(self._free, self._clock() + seconds)
