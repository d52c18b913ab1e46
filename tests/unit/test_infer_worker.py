"""The worker: answers come while others are asked for, calls run in between, and nothing outlives its end."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from typing import Any

import pytest

import nano
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane
from tinygpt.infer.request import Piece
from tinygpt.infer.worker import Worker

CONFIG = SampleConfig(temperature=0, max_tokens=12)


def _lane() -> Lane:
    return Lane(Engine(nano.model(vocab_size=260, max_position_embeddings=64), ByteTokenizer()))


def _ask(worker: Worker, lane: Lane, prompt: list[int], config: SampleConfig = CONFIG) -> Any:
    heard: queue.Queue[Piece | BaseException] = queue.Queue()
    answer = worker.submit(
        lane, lambda: lane.engine.request(prompt, config, stop_ids=()), heard.put, heard.put
    ).result(10)
    return heard, answer


def _all(heard: queue.Queue[Any]) -> list[Piece]:
    pieces = [heard.get(timeout=20)]
    while pieces[-1].finish_reason is None:
        pieces.append(heard.get(timeout=20))
    return pieces


def test_answers_of_several_lanes_grow_together_and_calls_run_between_steps() -> None:
    with Worker() as worker:
        lanes = [worker.call(_lane).result(20) for _ in range(2)]
        asked = [_ask(worker, lanes[i % 2], [i, 5]) for i in range(6)]
        here = worker.call(threading.get_ident).result(10)
        found = [[p.token for p in _all(heard)] for heard, _ in asked]
        alone = worker.call(
            lambda: [
                [p.token for p in lanes[0].engine.generate([i, 5], CONFIG, stop_ids=())] for i in range(6)
            ]
        ).result(20)
        assert found == alone and here != threading.get_ident()


def test_a_bad_request_and_a_broken_step_reach_the_caller_and_the_worker_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Worker() as worker:
        lane = worker.call(_lane).result(20)
        with pytest.raises(Exception, match="the prompt holds the id 999"):
            _ask(worker, lane, [999])
        with monkeypatch.context() as patch:

            def broken(*_: Any) -> None:
                raise RuntimeError("out of memory")

            patch.setattr(Lane, "step", broken)
            heard, answer = _ask(worker, lane, [1])
            assert str(heard.get(timeout=10)) == "out of memory"
            assert answer.finish_reason == "error" and heard.empty()
        assert len(_all(_ask(worker, lane, [1])[0])) == 12


def _deaf(_: Any) -> None:
    raise OSError("nobody hears")


def test_a_listener_that_breaks_ends_its_own_answer_and_is_reported() -> None:
    told: queue.Queue[Exception] = queue.Queue()
    with Worker(told.put) as worker:
        lane = worker.call(_lane).result(20)
        make = lambda: lane.engine.request([2], CONFIG, stop_ids=())  # noqa: E731
        heard, answer = _ask(worker, lane, [1])
        deaf = [worker.submit(lane, make, _deaf, failed).result(10) for failed in (heard.put, _deaf)]
        whole = [heard.get(timeout=20) for _ in range(13)]
        assert answer.finish_reason == "length" and sum(isinstance(one, OSError) for one in whole) == 1
        worker.call(lambda: None).result(10)
        assert [(one.finish_reason, str(one.error), len(one.ids)) for one in deaf] == [
            ("error", "nobody hears", 1)
        ] * 2
        assert str(told.get(timeout=10)) == "nobody hears" and told.empty()
        assert len(_all(_ask(worker, lane, [1])[0])) == 12  # the thread lives


def test_where_a_step_breaks_all_are_told_whoever_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    with Worker() as worker:
        lane = worker.call(_lane).result(20)
        request = worker.call(lambda: lane.engine.request([2], CONFIG, stop_ids=())).result(10)
        heard: queue.Queue[Any] = queue.Queue()
        with monkeypatch.context() as patch:
            patch.setattr(Lane, "step", lambda _: _deaf(None) if len(lane.waiting) == 2 else None)
            worker.submit(lane, lambda: request, heard.put, _deaf).result(10)
            worker.submit(lane, lambda: request, heard.put, heard.put).result(10)
            assert isinstance(heard.get(timeout=10), OSError)
            assert not worker.call(lambda: lane.busy).result(10)
        assert [args.exc_type for args in seen] == [OSError]
        assert len(_all(_ask(worker, lane, [1])[0])) == 12


def test_closing_cancels_what_grows() -> None:
    worker = Worker()
    lane = worker.call(_lane).result(20)
    heard, answer = _ask(worker, lane, [1], SampleConfig(temperature=0, max_tokens=60))
    heard.get(timeout=10)
    worker.close()
    assert answer.finish_reason in ("cancelled", "length") and not lane.busy
    with pytest.raises(RuntimeError, match="closed"):
        worker.call(lambda: None)


KEEPS_COMPILED = """
import mlx.core as mx
from tinygpt.infer.worker import Worker

@mx.custom_function
def twice(x):
    return x * 2

COMPILED = [mx.compile(lambda x: twice(x)) for _ in range(200)]
with Worker() as worker:
    worker.call(lambda: mx.eval([one(mx.ones(1)) for one in COMPILED])).result()
"""


def test_a_process_ends_well_after_its_worker() -> None:
    """MLX frees what a thread compiled when the thread is gone, which must not be later than Python."""
    subprocess.run([sys.executable, "-c", KEEPS_COMPILED], check=True)
