"""Stop politely: a signal sets a flag that the loop reads between steps; a second one ends at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType


class Stop:
    """True in a boolean context once a signal arrived."""

    def __init__(self) -> None:
        self.signal = 0

    def __bool__(self) -> bool:
        return self.signal != 0


@contextlib.contextmanager
def on_signals() -> Generator[Stop]:
    """Catch SIGINT and SIGTERM while the block runs, and put the old handlers back afterwards.

    Outside the main thread Python allows no handlers; the flag then simply never rises.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.signal = number

    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
