"""Requests that meet in a lane are answered as if each were alone, whenever it comes and whoever leaves."""

from __future__ import annotations

import random

import pytest

from tinygpt.core.backend import nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import BusyError, ConfigError
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.infer.request import Answer, Piece
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize

SHAPES = {
    "llama": {"num_key_value_heads": 2},
    "window": {"attention": Pick("gqa", {"window": 6})},
    "yoco": {"attention": Pick("yoco", {"window": 5})},
    "canon": {"residual": Pick("canon"), "head": Pick("pointer")},
    "mod": {"depth": Pick("mod", {"capacity": 0.5})},
}


def _engine(shape: str = "llama") -> Engine:
    config = ModelConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=96, initializer_range=0.3, **SHAPES[shape],
    )  # fmt: skip
    return Engine(initialize(LM(config), 1), ByteTokenizer())


CONFIGS = [
    SampleConfig(temperature=0, max_tokens=20),
    SampleConfig(temperature=1.0, seed=4, max_tokens=9, top_k=20),
    SampleConfig(temperature=0.8, seed=5, max_tokens=25, top_p=0.9, repetition_penalty=1.2),
    SampleConfig(temperature=1.0, seed=6, max_tokens=14, stop=("a", "\x00")),
    SampleConfig(temperature=0, max_tokens=30, frequency_penalty=0.5, window=20, sinks=2),
    SampleConfig(
        temperature=1.0, seed=8, max_tokens=16, xtc_probability=0.5, xtc_threshold=0.02, typical_p=0.95
    ),
    SampleConfig(temperature=0, max_tokens=17, logit_bias=("65=3", "66=3.0"), presence_penalty=0.4),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_requests_that_come_and_go_are_as_if_alone(shape: str) -> None:
    engine, rng = _engine(shape), random.Random(1)
    configs = [c for c in CONFIGS if shape == "llama" or not c.window]
    requests = [
        engine.request([rng.randrange(256) for _ in range(rng.randint(1, 40))], configs[i % len(configs)],
                       stop_ids=range(0, 250, 31), logprobs=i % 3 or None)
        for i in range(14)
    ]  # fmt: skip
    requests.append(requests[0])  # the same again
    lane = Lane(engine, Limits(rows=5, chunk=16))
    heard: list[list[Piece]] = [[] for _ in requests]
    answers: list[Answer] = []
    for i, request in enumerate(requests):
        answers.append(lane.submit(request, heard[i].append))
        for _ in range(rng.randint(0, 6)):
            lane.step()
    lane.drain()
    for request, answer, pieces in zip(requests, answers, heard):
        alone = Lane(engine)
        expected = alone.submit(request)
        alone.drain()
        assert (answer.ids, answer.text, answer.finish_reason) == (
            expected.ids, expected.text, expected.finish_reason
        )  # fmt: skip
        assert "".join(p.text for p in pieces) == answer.text
        assert [p.finish_reason for p in pieces] == [None] * (len(pieces) - 1) + [answer.finish_reason]
        assert answer.logprob_sum == pytest.approx(expected.logprob_sum, abs=1e-3)
        times = answer.times
        assert times.queued <= times.started <= times.first <= times.ended


def test_reports_equal_a_plain_pass() -> None:
    engine = _engine()
    prompt = [5, 6, 7, 5, 6]
    config = SampleConfig(temperature=1.0, seed=3, max_tokens=6, top_k=3, logit_bias=("9=2",))
    request = engine.request(prompt, config, logprobs=4, echo=True, stop_ids=())
    pieces: list[Piece] = []
    lane = Lane(engine, Limits(chunk=2))
    other = lane.submit(engine.request([1, 2], CONFIGS[0], logprobs=1, stop_ids=()))
    answer = lane.submit(request, pieces.append)
    lane.drain()
    import mlx.core as mx

    table_LV = nn.log_softmax(engine.model(mx.array([prompt + answer.ids]))[0])
    rows = [*answer.prompt_logprobs, *((p.logprob, p.top) for p in pieces)]
    assert len(rows) == 10
    for at, (logprob, top) in enumerate(rows):
        id = [*prompt, *answer.ids][at + 1]
        assert logprob == pytest.approx(table_LV[at, id].item(), abs=1e-4)
        best = sorted(table_LV[at].tolist(), reverse=True)[:4]
        assert [v for _, v in top] == pytest.approx(best, abs=1e-4)
        assert [v for _, v in top] == pytest.approx([table_LV[at, i].item() for i, _ in top], abs=1e-4)
    assert not other.prompt_logprobs


def test_a_long_prompt_holds_nobody_up_and_a_full_queue_says_so() -> None:
    engine = _engine()
    lane = Lane(engine, Limits(rows=4, chunk=8, waiting=2))
    first = lane.submit(engine.request([1], SampleConfig(temperature=0, max_tokens=60), stop_ids=()))
    lane.step()
    long = lane.submit(engine.request(list(range(80)), SampleConfig(temperature=0, max_tokens=2)))
    for step in range(10):  # ten pieces of eight tokens
        before = len(first.ids)
        lane.step()
        assert len(first.ids) == before + 1
        assert bool(long.ids) == (step == 9)
    lane.submit(engine.request([1], CONFIGS[0]))
    lane.submit(engine.request([1], CONFIGS[0]))
    with pytest.raises(BusyError, match="2 requests wait already"):
        lane.submit(engine.request([1], CONFIGS[0]))


def test_cancelled_answers_end_at_the_next_step_wherever_they_are() -> None:
    engine = _engine()
    lane = Lane(engine, Limits(rows=3, chunk=4))
    config = SampleConfig(temperature=0, max_tokens=50)
    writing, stays = (lane.submit(engine.request([i], config, stop_ids=())) for i in (1, 2))
    for _ in range(3):
        lane.step()
    reading = lane.submit(engine.request(list(range(40)), config))
    lane.step()
    waiting = lane.submit(engine.request([3], config))
    for answer in (writing, reading, waiting):
        answer.cancel()
    lane.step()
    assert [a.finish_reason for a in (writing, reading, waiting, stays)] == ["cancelled"] * 3 + [None]
    n = len(writing.ids)
    lane.drain()
    assert len(writing.ids) == n and len(stays.ids) == 50 and not reading.ids and not lane.busy


def test_who_leaves_the_queue_makes_room_at_once() -> None:
    engine, config = _engine(), SampleConfig(temperature=0, max_tokens=50)
    lane = Lane(engine, Limits(rows=1, waiting=2))
    lane.submit(engine.request([1], config, stop_ids=()))
    lane.step()
    head, gone = (lane.submit(engine.request([i], config)) for i in (2, 3))
    gone.cancel()
    after = lane.submit(engine.request([4], config))
    assert (head.finish_reason, gone.finish_reason) == (None, "cancelled")
    lane.drain()
    assert head.ids and after.ids and not gone.ids


def test_requests_that_cannot_be_served_are_refused() -> None:
    engine = _engine()
    with pytest.raises(ConfigError, match="the prompt holds the id 260"):
        engine.request([1, 260])
    with pytest.raises(ConfigError, match="'logit_bias' names the id 300"):
        engine.request([1], SampleConfig(logit_bias=("300=1",)))
    with pytest.raises(ConfigError, match="leaves no room in a context of 96"):
        engine.request([1] * 96)


def test_a_finished_row_that_is_carried_along_stays_within_the_context() -> None:
    """Learned positions end with the context: what lies beyond would break the neighbours' step."""
    config = ModelConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=48, initializer_range=0.3, position=Pick("learned"),
    )  # fmt: skip
    engine = Engine(initialize(LM(config), 1), ByteTokenizer())
    lane = Lane(engine)
    first = lane.submit(
        engine.request(list(range(40)), SampleConfig(temperature=0, max_tokens=2), stop_ids=())
    )
    long = SampleConfig(temperature=0, max_tokens=30)
    others = [lane.submit(engine.request([i], long, stop_ids=())) for i in range(6)]
    lane.drain()
    assert [len(a.ids) for a in (first, *others)] == [2] + [30] * 6


@pytest.mark.parametrize("where", ["restored", "result"])
def test_whoever_was_being_taken_in_when_a_step_broke_is_told(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    engine = _engine()
    lane, told = Lane(engine), list[BaseException]()
    monkeypatch.setattr(f"tinygpt.infer.{WHERE[where]}.{where}", broken)
    answers = [lane.submit(engine.request([i], CONFIGS[0]), None, told.append) for i in (1, 2)]
    lane.step_safely()
    assert len(told) == 2 and [a.finish_reason for a in answers] == ["error"] * 2
    monkeypatch.undo()
    after = lane.submit(engine.request([1], CONFIGS[0], stop_ids=()))
    lane.drain()
    assert after.finish_reason == "length"


WHERE = {"restored": "admission.Admission", "result": "lane._Reading"}
