"""Guessed tokens change nothing: the text is that of plain decoding, or drawn from exactly the same law."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from mlx.utils import tree_flatten, tree_unflatten

from drafters import Oracle
from equal.test_lane import CONFIGS, SHAPES
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.constrained import constraint
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.infer.request import Answer, Request
from tinygpt.infer.speculate import draft, eagle, medusa, mtp, ngram
from tinygpt.infer.speculate._tree import likeliest_products
from tinygpt.model.config import ModelConfig
from tinygpt.model.drafting import heads as stored
from tinygpt.model.drafting.features import Features
from tinygpt.model.lm import LM, initialize

MORE: dict[str, dict[str, Any]] = {
    **SHAPES,
    "learned": {"position": Pick("learned"), "norm": Pick("layernorm")},
    "alibi": {"position": Pick("alibi")},
    "mtp": {"head": Pick("mtp", {"horizons": 4})},
    "mtp_parallel": {"head": Pick("mtp_parallel", {"horizons": 3})},
}
TREES = ("llama", "learned", "mtp", "mtp_parallel")
KINDS = ("ngram", "draft", "medusa", "eagle")


def _engine(shape: str = "llama", seed: int = 1, reach: int = 96) -> Engine:
    config = ModelConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=reach, initializer_range=0.3, **MORE[shape],
    )  # fmt: skip
    return Engine(initialize(LM(config), seed), ByteTokenizer())


def _near(engine: Engine) -> Engine:
    """The same model, its weights a little off: a draft that is often right."""
    other = LM(engine.model.config)
    moved = [
        (name, w + 0.02 * mx.random.normal(w.shape, key=mx.random.key(i)))
        for i, (name, w) in enumerate(tree_flatten(engine.model.parameters()))
    ]
    other.update(tree_unflatten(moved))
    return Engine(other, ByteTokenizer())


def _drafter(kind: str, engine: Engine) -> Any:
    if kind == "ngram":
        return ngram.build(engine, ngram.Config(tokens=5))
    if kind == "draft":
        return draft.build(engine, draft.Config(tokens=3), draft=_near(_engine()))
    if kind == "mtp":
        return mtp.build(engine)
    features = Features(engine.model)
    facts = stored.Facts(kind=kind, width=features.width, hidden=32, vocab_size=260, horizons=3)  # type: ignore[arg-type]
    way: Any = {"medusa": medusa, "eagle": eagle}[kind]
    return way.build(engine, way.Config(tokens=9), heads=stored.build(facts, 2))


def _run(engine: Engine, requests: Sequence[Request], drafter: Any = None, **limits: int) -> list[Answer]:
    """Answers to requests that come now and then, while others are written."""
    rng, lane = random.Random(5), Lane(engine, Limits(**{"rows": 5, "chunk": 16, **limits}), drafter=drafter)
    answers = []
    for request in requests:
        answers.append(lane.submit(request))
        for _ in range(rng.randint(0, 3)):
            lane.step()
    lane.drain()
    if drafter is not None:
        assert (lane.n_drafted, lane.n_accepted) == (
            sum(a.n_drafted for a in answers), sum(a.n_accepted for a in answers)
        )  # fmt: skip
    return answers


def _requests(engine: Engine, shape: str, n: int = 6) -> list[Request]:
    rng = random.Random(1)
    configs = [c for c in CONFIGS if shape == "llama" or not c.window]
    found = [
        engine.request([rng.randrange(5) for _ in range(rng.randint(1, 40))], configs[i % len(configs)],
                       stop_ids=range(0, 250, 31), logprobs=i % 3 or None)
        for i in range(n)
    ]  # fmt: skip
    return [*found, found[0]]


def _same(one: Answer, other: Answer) -> None:
    assert (one.ids, one.text, one.finish_reason) == (other.ids, other.text, other.finish_reason)
    assert one.logprob_sum == pytest.approx(other.logprob_sum, abs=2e-3)


CASES = [(kind, shape) for kind in KINDS for shape in (*SHAPES, "learned", "alibi")] + [
    ("mtp", "mtp"), ("mtp", "mtp_parallel"), ("medusa", "mtp")
]  # fmt: skip


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_texts_are_those_of_plain_decoding(kind: str, shape: str) -> None:
    engine = _engine(shape)
    drafter, requests = _drafter(kind, engine), _requests(engine, shape)
    plain, guessed = _run(engine, requests), _run(engine, requests, drafter)
    for request, a, b in zip(requests, plain, guessed, strict=True):
        if kind != "draft" or request.config.greedy:
            _same(b, a)
    assert drafter.told.drafted and str(drafter.told).endswith("tokens a pass")
    if kind in ("medusa", "eagle"):
        assert drafter.trees == (shape in TREES) == (not drafter.note)
    if kind == "draft":  # drawn texts are others, but the same whatever runs beside them
        for request, b in zip(requests, guessed, strict=True):
            if not request.config.greedy:
                _same(_run(engine, [request], drafter)[0], b)


@pytest.mark.parametrize("branched", [False, True])
@pytest.mark.parametrize("shape", ["llama", "learned", "window", "mod"])
def test_guesses_that_are_right_all_stay(shape: str, branched: bool) -> None:
    engine = _engine(shape)
    config = SampleConfig(temperature=1.0, seed=3, max_tokens=21, repetition_penalty=1.3, top_k=30)
    requests = [engine.request([i, 7, i], config, stop_ids=(), logprobs=2) for i in range(6)]
    plain = _run(engine, requests)
    known = {tuple(r.prompt): a.ids for r, a in zip(requests, plain)}
    oracle = Oracle(lambda request: known[tuple(request.prompt)], branched=branched)
    for a, b in zip(plain, _run(engine, requests, oracle), strict=True):
        _same(b, a)
        if shape in TREES or not branched:
            # The first token comes with the prompt; then 3 guesses and one more a pass.
            assert b.n_accepted == 15 and b.n_drafted == (30 if branched else 15)


@pytest.mark.parametrize("ruled", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_drafts_for_itself_is_always_right(temperature: float, ruled: bool) -> None:
    """Under a constraint too, which the draft heeds as the model does."""
    engine = _engine()
    drafter = draft.build(engine, draft=_engine())
    config = SampleConfig(temperature=temperature, seed=2, max_tokens=24, frequency_penalty=0.3)
    requests = [
        engine.request([i, 3], config, stop_ids=(), constraint=Alternating() if ruled and i % 2 else None)
        for i in range(4)
    ]
    for answer in _run(engine, requests, drafter):
        assert len(answer.ids) == 24 and answer.n_drafted == answer.n_accepted > 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draft_writes_what_a_schema_allows(temperature: float) -> None:
    """The model itself as its draft is right, but for its last guesses, beyond the answer's end."""
    engine = _engine()
    schema = {"type": "object", "properties": {"a": {"enum": list(range(100, 200))}}, "required": ["a"]}
    drafter = draft.build(engine, draft=engine)
    for seed in range(6):
        config = SampleConfig(temperature=temperature, seed=seed, max_tokens=60)
        ruled = constraint("schema", schema, engine.tokenizer)
        answer = _run(engine, [engine.request([seed, 3], config, constraint=ruled)], drafter)[0]
        if answer.finish_reason == "stop":
            assert 100 <= json.loads(answer.text)["a"] < 200
        assert answer.n_drafted > 8 and answer.n_drafted - answer.n_accepted <= drafter.most


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draft_may_lack_all_that_a_constraint_allows(temperature: float) -> None:
    engine = Engine(initialize(LM(replace(_engine().model.config, vocab_size=288)), 1), ByteTokenizer())
    drafter = draft.build(engine, draft=_engine())
    config = SampleConfig(temperature=temperature, seed=1, max_tokens=12)

    class Beyond(Alternating):
        def mask(self) -> Any:
            import numpy as np

            return np.array([0] * 8 + [-256], np.int32)  # 264 to 287

        def take(self, token: int) -> None:
            if token < 264:
                raise ConfigError("not allowed")
            self.taken.append(token)

    answer = _run(engine, [engine.request([3], config, stop_ids=(), constraint=Beyond())], drafter)[0]
    assert answer.finish_reason == "length" and min(answer.ids) > 263 and answer.n_drafted


@pytest.mark.parametrize("shape", [*SHAPES, "learned", "alibi"])
@pytest.mark.parametrize("tokens", [1, 4])
def test_a_draft_may_have_any_caches(shape: str, tokens: int) -> None:
    """Drafts with windows and tails take back as full ones do: of themselves they are always right."""
    engine = _engine(shape)
    drafter = draft.build(engine, draft.Config(tokens=tokens), draft=_engine(shape))
    requests = [r for r in _requests(engine, shape, 12) if r.config.greedy and not r.config.window]
    plain, guessed = _run(engine, requests), _run(engine, requests, drafter)
    for a, b in zip(plain, guessed, strict=True):
        _same(b, a)
    told = drafter.told
    assert told.accepted >= 0.8 * told.drafted > 0 and not drafter.note, str(told)  # ends cut guesses off


def test_a_text_may_be_longer_than_the_context_of_a_draft() -> None:
    """Whose positions end there: it guesses worse, for this text alone."""
    engine, small = _engine(), _engine("learned", reach=24)
    drafter = draft.build(engine, draft=small)
    long = engine.request(list(range(40)), SampleConfig(temperature=0, max_tokens=20), stop_ids=())
    drawn = engine.request([1, 2], SampleConfig(temperature=1.0, seed=5, max_tokens=40), stop_ids=())
    both = _run(engine, [long, drawn], drafter)
    assert both[0].ids == _run(engine, [long])[0].ids and all(a.n_drafted for a in both)
    _same(_run(engine, [drawn], drafter)[0], both[1])


def test_a_draft_that_cannot_forget_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine()
    requests = [r for r in _requests(engine, "llama", 12) if not r.config.window]
    usual = _run(engine, requests, draft.build(engine, draft=_near(engine)))
    monkeypatch.setattr(draft, "forgets", lambda *_: False)
    drafter = draft.build(engine, draft=_near(engine))
    assert drafter.copies and drafter.note == draft.COPIES
    for a, b in zip(usual, _run(engine, requests, drafter), strict=True):
        _same(b, a)
        assert (a.n_drafted, a.n_accepted) == (b.n_drafted, b.n_accepted)


@pytest.mark.parametrize(("large", "small"), [(288, 260), (260, 288)])
def test_a_draft_may_have_other_padding(large: int, small: int) -> None:
    """Tables of one tokenizer are wider in one model than in the other; all ids may come."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "initializer_range": 0.3}
    engine, other = (
        Engine(initialize(LM(ModelConfig(vocab_size=n, **sizes)), 1), ByteTokenizer()) for n in (large, small)
    )
    beyond = min(large, large - 20)
    config = SampleConfig(
        temperature=0, max_tokens=20, logit_bias=tuple(f"{i}=1" for i in range(beyond, large))
    )
    drawn = SampleConfig(temperature=1.0, seed=4, max_tokens=20)
    requests = [engine.request([beyond, i], c, stop_ids=()) for i in range(3) for c in (config, drawn)]
    drafter = draft.build(engine, draft=other)
    for a, b in zip(_run(engine, requests), _run(engine, requests, drafter), strict=True):
        if a.request.config.greedy:
            _same(b, a)
    assert drafter.told.drafted


@pytest.mark.parametrize("kind", ["draft", "medusa"])
def test_the_law_of_drawn_texts_is_the_models(kind: str) -> None:
    """Texts of three tokens, three choices each: chi-square of 700 of them against the exact law."""
    engine, n = _engine(), 700
    drafter = _drafter(kind, engine) if kind == "medusa" else draft.build(engine, draft=_near(engine))
    config = SampleConfig(temperature=2.0, top_k=3, max_tokens=3, frequency_penalty=1.0)
    requests = [
        engine.request([1, 2], SampleConfig(**{**config.__dict__, "seed": i}), stop_ids=()) for i in range(n)
    ]
    answers = _run(engine, requests, drafter, rows=700, chunk=1 << 20)
    counts = Counter(tuple(a.ids) for a in answers)
    law = _law(engine, [1, 2], config, 3)
    assert set(counts) <= set(law) and sum(law.values()) == pytest.approx(1.0, abs=1e-5)
    chi = sum((counts[ids] - n * p) ** 2 / (n * p) for ids, p in law.items())
    assert chi < 27 + 5 * (2 * 27) ** 0.5, chi  # five standard deviations above its mean
    drafted, accepted = (sum(getattr(a, name) for a in answers) for name in ("n_drafted", "n_accepted"))
    assert accepted < drafted and (kind == "medusa" or accepted > n / 4)


def _law(engine: Engine, prompt: list[int], config: SampleConfig, n: int) -> dict[tuple[int, ...], float]:
    """The exact probability of each text of n tokens."""
    from tinygpt.infer.sampler import Sampler

    law: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(n):
        longer: dict[tuple[int, ...], float] = {}
        for ids, p in law.items():
            logits_1V = engine.model(mx.array([[*prompt, *ids]]))[:, -1]
            sampler = Sampler([config], [0], [prompt], 260, [list(ids)])
            table = mx.softmax(sampler.ruled(logits_1V), axis=-1)[0].tolist()
            longer |= {(*ids, i): p * q for i, q in enumerate(table) if q > 0}
        law = longer
    return law


class Alternating:
    """Lets even and odd ids come in turn; remembers what it took."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def mask(self) -> Any:
        import numpy as np

        return np.full(9, 0x55555555 if len(self.taken) % 2 else -0x55555556, np.int32)

    def take(self, token: int) -> None:
        assert token % 2 != len(self.taken) % 2
        self.taken.append(token)

    def rollback(self, n: int) -> None:
        assert 0 < n <= len(self.taken)
        del self.taken[-n:]


@pytest.mark.parametrize("kind", ["ngram", "draft", "medusa", "eagle", "oracle"])
def test_constraints_hold_for_guesses_too(kind: str) -> None:
    engine = _engine()
    config = SampleConfig(
        temperature=0 if kind == "draft" else 1.0, seed=1, max_tokens=18, top_k=40,
        logit_bias=("1=9", "2=9", "5=8", "6=8"),
    )  # fmt: skip

    def requests() -> list[Request]:
        return [
            engine.request([i, 2, 1, 2], config, stop_ids=(), constraint=Alternating() if i % 2 else None)
            for i in range(4)
        ]

    plain, asked = _run(engine, first := requests()), requests()
    known = {tuple(r.prompt): a.ids for r, a in zip(first, plain)}
    oracle = Oracle(lambda request: known[tuple(request.prompt)], branched=True)
    drafter = oracle if kind == "oracle" else _drafter(kind, engine)
    for request, a, b in zip(asked, plain, _run(engine, asked, drafter), strict=True):
        _same(b, a)
        if isinstance(request.constraint, Alternating):
            assert request.constraint.taken == b.ids and b.n_drafted
            assert all(x % 2 != y % 2 for x, y in itertools.pairwise(b.ids))


def test_cancelled_answers_end_and_the_others_go_on() -> None:
    engine = _engine()
    config = SampleConfig(temperature=0, max_tokens=40)
    lane = Lane(engine, drafter=draft.build(engine, draft=_near(engine)))
    gone, stays = (lane.submit(engine.request([i], config, stop_ids=())) for i in (1, 2))
    lane.step()
    lane.step()
    gone.cancel()
    before = len(gone.ids)
    lane.drain()
    alone = Lane(engine).submit
    assert gone.finish_reason == "cancelled" and len(gone.ids) == before and not lane.busy
    assert stays.finish_reason == "length" and alone is not None
    _same(stays, _run(engine, [engine.request([2], config, stop_ids=())])[0])


@pytest.mark.parametrize("shape", ["mtp", "mtp_parallel"])
def test_own_heads_guess_what_the_model_drafts(shape: str) -> None:
    engine = _engine(shape)
    drafter = mtp.build(engine)
    session = drafter.begin([0])
    prompt = [5, 6, 7, 8, 9]
    seen: dict[str, mx.array] = {}
    logits = engine.model(mx.array([prompt]), tap=lambda name, x: seen.setdefault(name, x))
    session.read(mx.array([prompt]), seen)
    first = int(logits[0, -1].argmax().item())
    answer = Lane(engine).submit(engine.request(prompt, SampleConfig(temperature=0), stop_ids=()))
    answer.ids = [first]
    proposal = session.propose([answer], None, [9])  # type: ignore[arg-type]
    assert proposal is not None
    assert [first, *proposal.tokens[0].tolist()] == engine.model.draft(mx.array([prompt]))[0].tolist()


def test_the_best_products_make_the_tree() -> None:
    choices = [[(1, -0.1), (2, -1.0)], [(3, -0.5), (4, -0.6)]]
    tree = likeliest_products(choices, 5)
    sums = {(1,): -0.1, (1, 3): -0.6, (1, 4): -0.7, (2,): -1.0, (2, 3): -1.5, (2, 4): -1.6}
    paths: list[tuple[int, ...]] = [()]
    for token, parent in tree:
        paths.append((*paths[parent], token))
    assert paths[1:] == sorted(sums, key=lambda path: -sums[path])[:5]


def test_what_repeats_is_looked_up() -> None:
    engine = _engine()
    request = engine.request([1, 2, 3, 9, 1, 2], SampleConfig(max_tokens=20), stop_ids=())
    answer = Lane(engine).submit(request)
    answer.ids = [3]
    session = ngram.build(engine, ngram.Config(tokens=6)).begin([0])
    proposal = session.propose([answer], None, [6])  # type: ignore[arg-type]
    assert proposal is not None and proposal.tokens.tolist() == [[9, 1, 2, 3, 9, 1]]


def test_what_cannot_guess_says_so() -> None:
    engine = _engine()
    with pytest.raises(ConfigError, match="predicts one token"):
        mtp.build(engine)
    late = Engine(
        LM(ModelConfig(vocab_size=260, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
                       position=Pick("rope_dynamic"))),
        ByteTokenizer(),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="turns all keys anew"):
        ngram.build(late)
