"""The thread that owns the device: requests come from any thread, answers go back as they grow.

MLX's arrays belong to the thread that made them, so models are opened, stepped and freed here, and nowhere
else. Lanes take turns, one step each, so models and adapters share the device fairly.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from tinygpt.infer.lane import Lane
from tinygpt.infer.request import Answer, Piece, Request

T = TypeVar("T")


class Worker:
    """One thread and its lanes. `close` ends it; it may be used as a context.

    report: hears, on the thread, what a `failed` raised, which ends nothing. By default it is told as Python
    tells of what ends a thread."""

    def __init__(self, report: Callable[[Exception], None] | None = None) -> None:
        self._report = report or _report
        self._wake = threading.Condition()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._lanes: list[Lane] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="tinygpt-device", daemon=True)
        self._thread.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done on the thread, between two steps. What it raises is the future's."""
        future: Future[T] = Future()
        with self._wake:
            if self._closing:
                raise RuntimeError("the worker is closed")
            self._calls.append((future, work))
            self._wake.notify()
        return future

    def submit(
        self,
        lane: Lane,
        make: Callable[[], Request],
        deliver: Callable[[Piece], None],
        failed: Callable[[BaseException], None],
    ) -> Future[Answer]:
        """Queue the request that `make` gives (it may compute a constraint) in a lane. `deliver` and `failed`
        are called on the thread: `failed` once, where a step of the lane or `deliver` broke, and then nothing
        follows."""

        def tell(error: BaseException) -> None:
            try:
                failed(error)
            except Exception as broken:  # one who hears badly ends neither the thread nor other answers
                self._report(broken)

        def work() -> Answer:
            answer = lane.submit(make(), deliver, tell)
            if lane not in self._lanes:
                self._lanes.append(lane)
            return answer

        return self.call(work)

    def wake(self) -> None:
        """Look at the lanes again, as after a cancellation."""
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        """End the thread; answers that grow are cancelled."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        while not _gone(self._thread):
            time.sleep(0.001)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._calls or self._closing or any(lane.busy for lane in self._lanes)):
                    self._wake.wait()
                closing, calls = self._closing, list(self._calls)
                self._calls.clear()
            for future, work in calls:
                _settle(future, work)
            if closing:
                for lane in self._lanes:
                    lane.end_all()
                return
            self._lanes = [lane for lane in self._lanes if lane.busy]
            for lane in self._lanes:
                lane.step_safely()


def _report(error: Exception) -> None:
    told = type(error), error, error.__traceback__, threading.current_thread()
    threading.excepthook(threading.ExceptHookArgs(told))


def _gone(thread: threading.Thread) -> bool:
    """Whether the system has ended a thread that was joined.

    Up to Python 3.12 `join` returns before that, and what MLX keeps for each thread (compiled functions,
    which refer to Python's) is freed later still: an interpreter that ends meanwhile aborts the process."""
    if sys.version_info >= (3, 13):
        return True
    if sys.platform == "linux":
        return not os.path.exists(f"/proc/self/task/{thread.native_id}")
    try:
        signal.pthread_kill(thread.ident or 0, 0)
    except ProcessLookupError:
        return True
    return False


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    """Do it, and let the one who waits have what came of it."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # the caller's to handle, on its own thread
        future.set_exception(error)
