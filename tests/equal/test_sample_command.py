"""What `sample` shows is what the engine writes: several answers, the best of them, log-probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest

import serving
from tinygpt.core.errors import ConfigError
from tinygpt.infer import best
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane
from tinygpt.runs.generate import ChatConfig, Config, Conversation, open_engine, sample


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving.tiny_chat_model(tmp_path_factory.mktemp("sample"), context=256)


@pytest.fixture(scope="module")
def engine(model: Path) -> Engine:
    return open_engine(model)


COMMON = {"temperature": 1.0, "max_tokens": 12, "stop": ("a", "\n"), "typical_p": 0.9}


def _shown(model: Path, **more: object) -> list[list[object]]:
    """The pieces of each answer."""
    found: list[list[object]] = []
    for piece in sample(Config(model=model, **COMMON, **more), "The "):  # type: ignore[arg-type]
        if piece.index == len(found):
            found.append([])
        found[piece.index].append(piece)
    return found


def test_several_answers_are_those_of_their_seeds(model: Path, engine: Engine) -> None:
    found = _shown(model, seed=5, n=4)
    assert len(found) == 4
    for i, pieces in enumerate(found):
        alone = list(engine.generate(engine.encode("The "), SampleConfig(**COMMON, seed=5 + i)))
        assert [p.text for p in pieces] == [p.text for p in alone]
        assert (pieces[-1].seed, pieces[-1].finish_reason) == (5 + i, alone[-1].finish_reason)


def test_the_best_of_several_has_the_largest_mean(model: Path, engine: Engine) -> None:
    found = _shown(model, seed=5, n=2, best_of=6)
    means = []
    for i in range(6):
        alone = list(
            engine.generate(engine.encode("The "), SampleConfig(**COMMON, seed=5 + i), logprobs=True)
        )
        means.append((sum(p.logprob for p in alone) / len(alone), "".join(p.text for p in alone), 5 + i))
    assert [len(pieces) for pieces in found] == [1, 1]
    for (piece,), (mean, text, seed) in zip(found, sorted(means, reverse=True)):
        assert piece.mean_logprob == pytest.approx(mean, abs=1e-4)
        assert (piece.text, piece.seed) == (text, seed)


def test_reported_log_probabilities_are_those_of_a_plain_pass(model: Path, engine: Engine) -> None:
    (pieces,) = _shown(model, seed=3, logprobs=2, echo=True)
    tokens = pieces[-1].tokens
    expected = engine.logprobs([[token.id for token in tokens]])[0]
    assert tokens[0].logprob is None and [t.token for t in tokens[:4]] == list("The ")
    assert [t.logprob for t in tokens[1:]] == pytest.approx(expected, abs=1e-4)
    assert all(len(t.top) == 2 and t.top[0][2] >= t.top[1][2] for t in tokens[1:])
    (without,) = _shown(model, seed=3, logprobs=0)
    assert [t.id for t in without[-1].tokens] == [t.id for t in tokens[4:]] and not without[-1].tokens[0].top


def test_stop_ids_are_the_models_own_and_those_given(model: Path, engine: Engine) -> None:
    kept = {"temperature": 1.0, "max_tokens": 60, "seed": 1}
    plain = engine.generate_batch([engine.encode("x")], SampleConfig(**kept), stop_ids=())[0]
    assert len(plain.ids) == 60
    last = plain.ids[20]
    config = Config(model=model, prompt="x", stop_id=(last,), ignore_eos=True, **kept)
    found = list(sample(config, "x"))
    assert found[-1].finish_reason == "stop" and len(found) == plain.ids.index(last) + 1
    assert Config(model=model, ignore_eos=True).stop_ids(engine) == frozenset()
    assert Config(model=model, stop_id=(7,)).stop_ids(engine) == engine.stop_ids | {7}
    with pytest.raises(ConfigError, match="--stop-id 260: the model has the ids 0 to 259"):
        Config(model=model, stop_id=(260,)).stop_ids(engine)


def test_settings_that_make_no_sense_are_refused(model: Path) -> None:
    for bad, what in (
        ({"n": 0}, "'n' must be"), ({"n": 3, "best_of": 2}, "fewer than the 3"), ({"echo": True}, "--echo"),
        ({"best_of": 2, "temperature": 0}, "the same one"), ({"logprobs": 101}, "from 0 to 100"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=what):
            Config(model=model, **bad)


def test_a_stop_id_counts_for_the_mean_and_a_stop_text_does_not(engine: Engine) -> None:
    lane, seen = Lane(engine), set()
    config = SampleConfig(temperature=1.0, max_tokens=30, seed=1, stop=tuple("abcdefghij"))
    request = engine.request(engine.encode("x"), config, stop_ids=range(0, 260, 9), logprobs=0)
    for answer in [lane.submit(one) for one in best.several(request, 12)]:
        lane.drain()
        ended_by_id = answer.finish_reason == "stop" and answer.stop_text is None
        seen.add((answer.finish_reason, ended_by_id))
        steps = len(answer.ids) + ended_by_id
        assert best.mean_logprob(answer) == pytest.approx(answer.logprob_sum / steps)
    assert {("stop", True), ("stop", False)} <= seen


def test_a_conversation_goes_on_after_an_answer_that_was_cut_off(model: Path) -> None:
    config = ChatConfig(model=model, temperature=0.0, max_tokens=8, seed=0)
    talk, other = Conversation(config), Conversation(config)
    reply = talk.say("hello")
    first = next(reply)
    reply.close()
    assert not talk.lane.busy and talk.messages[-1]["content"] == first
    other.messages = list(talk.messages)
    assert list(talk.say("go on")) == list(other.say("go on"))
