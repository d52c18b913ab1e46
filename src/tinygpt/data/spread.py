"""Work spread over processes: the answers come in the order of the questions, whoever has worked on them."""

from __future__ import annotations

import collections
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tinygpt.core.errors import TinyGPTError

A = TypeVar("A")
B = TypeVar("B")
AHEAD = 3  # questions a process that are read before the first is answered

_work: list[Callable[[Any], Any]] = []


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[A], B], asked: Iterable[A], workers: int) -> Iterator[B]:
    """`work` on each of `asked`, in order; by one worker in this process. `work`, questions and answers must
    be what pickle takes. A process that dies is an error."""
    if workers == 1:
        yield from map(work, asked)
        return
    fresh = multiprocessing.get_context("spawn")  # a fork would copy threads of other libraries
    pool = ProcessPoolExecutor(workers, mp_context=fresh, initializer=_begin, initargs=(work,))
    waiting: collections.deque[Future[B]] = collections.deque()
    try:
        for one in asked:
            waiting.append(pool.submit(_do, one))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise TinyGPTError(
            "a process that worked on the data has died", hint="it may have run out of memory: --workers 1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(work: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that was asked
    _work[:] = [work]


def _do(one: Any) -> Any:
    return _work[0](one)
