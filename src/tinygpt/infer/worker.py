"""The thread that owns the device: requests come from any thread, answers go back as they grow.

MLX's arrays belong to the thread that made them, so models are opened, stepped and freed here, and nowhere
else. Lanes take turns, one step each, so models and adapters share the device fairly.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from tinygpt.infer.lane import Lane
from tinygpt.infer.request import Answer, Piece, Request

T = TypeVar("T")


class Worker:
    """One thread and its lanes. `close` ends it; it may be used as a context."""

    def __init__(self) -> None:
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
        are called on the thread: `failed` once, where a step of the lane broke, and then nothing follows."""

        def work() -> Answer:
            answer = lane.submit(make(), deliver, failed)
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


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    """Do it, and let the one who waits have what came of it."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # the caller's to handle, on its own thread
        future.set_exception(error)
