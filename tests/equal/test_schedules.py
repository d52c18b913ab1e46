"""Each answer of a random schedule is what it is alone, without guesses and without memory.

Requests of every kind come, write and are cancelled at any step, in lanes that guess, remember and batch.

The models are tiny with weights drawn wide, so that the likeliest tokens lie far apart beside the rounding of
a batch (1e-6): what differs is a fault."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drafters import Ragged
from equal.test_lane import CONFIGS
from equal.test_prefix import MORE, PEERS, SHAPES, foreign
from equal.test_speculate import Alternating, _drafter
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.constrain import _matcher
from tinygpt.infer.constrained import constraint
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.infer.prefix import Prefixes
from tinygpt.infer.request import Answer, Request
from tinygpt.infer.speculate._batch import takes_trees
from tinygpt.infer.speculate._verify import masks
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize

OURS: dict[str, dict[str, Any]] = {
    **{name: slots for name, slots in SHAPES.items() if name not in MORE},
    "canon-window": {"residual": Pick("canon"), "attention": Pick("gqa", {"window": 3})},
    "canon-full": {"residual": Pick("canon")},
    "canon-yoco": {"residual": Pick("canon"), "attention": Pick("yoco", {"window": 4})},
    "moe": {"mlp": Pick("moe", {"experts": 4, "top_k": 2})},
    "learned": {"position": Pick("learned"), "norm": Pick("layernorm")},
    "alibi": {"position": Pick("alibi")},
}
GEMMA = {
    "model_type": "gemma3_text", "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "num_hidden_layers": 3,
    "sliding_window": 5, "sliding_window_pattern": 3, "max_position_embeddings": 400, "rms_norm_eps": 1e-6,
    "rope_theta": 1e6, "rope_local_base_freq": 1e4, "query_pre_attn_scalar": 8, "tie_word_embeddings": False,
}  # fmt: skip
THEIRS = {**PEERS, "gemma3": GEMMA}


def engine_of(shape: str, tmp_path: Path) -> Engine:
    if shape in THEIRS:
        return foreign(tmp_path, THEIRS[shape])
    config = ModelConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=160, initializer_range=0.3, **OURS[shape],
    )  # fmt: skip
    return Engine(initialize(LM(config), 1), ByteTokenizer())


class Plan:
    """Random requests to one engine, and the answer to each of them alone."""

    def __init__(self, engine: Engine, seed: int, kinds: Sequence[dict[str, int]]) -> None:
        self.engine, rng = engine, random.Random(seed)
        beginnings = [[rng.randrange(256) for _ in range(n)] for n in (0, 20, 33)]
        self.recipes: list[dict[str, Any]] = []
        for i in range(6):
            config = replace(CONFIGS[(seed + i) % len(CONFIGS)], window=0, sinks=4)
            config = replace(
                config, seed=rng.randrange(1000), max_tokens=rng.randint(1, 20), **rng.choice(kinds)
            )
            self.recipes.append({
                "prompt": rng.choice(beginnings) + [rng.randrange(9) for _ in range(rng.randint(1, 30))],
                "config": config, "stop_ids": range(0, 250, rng.choice([17, 40, 300])),
                "logprobs": rng.choice([None, 0, 3]), "echo": rng.random() < 0.15, "boundaries": [20, 33],
            })  # fmt: skip
        self.recipes.append(self.recipes[0])
        self.ruled = [rng.random() < 0.3 for _ in self.recipes]
        self.ruled[-1] = self.ruled[0]
        self.expected = [self.alone(i) for i in range(len(self.recipes))]

    def request(self, i: int) -> Request:
        return self.engine.request(**self.recipes[i], constraint=Alternating() if self.ruled[i] else None)

    def alone(self, i: int, drafter: Any = None) -> Answer:
        lane = Lane(self.engine, drafter=drafter)
        answer = lane.submit(self.request(i))
        lane.drain()
        return answer

    def drafter(self, kind: str, seed: int) -> Any:
        if kind in ("ragged", "branched"):
            known = {_key(a.request): a.ids for a in self.expected}
            branched = kind == "branched" and takes_trees(self.engine.model)
            return Ragged(lambda request: known[_key(request)], seed, branched=branched)
        return _drafter(kind, self.engine) if kind else None

    def schedule(self, lane: Lane, rng: random.Random) -> list[Answer]:
        """Requests that come, are cancelled, and are written, at random."""
        left, answers = list(range(len(self.recipes))), list[Answer]()
        while left:
            if rng.random() < 0.5:
                answers.append(lane.submit(self.request(left.pop(0))))
            else:
                lane.step()
            if answers and rng.random() < 0.03:
                rng.choice(answers).cancel()
        for _ in range(rng.randint(0, 10)):
            lane.step()
        if rng.random() < 0.5:
            rng.choice(answers).cancel()
        lane.drain()
        return answers

    def check(self, kind: str, seed: int, *, remembers: bool) -> None:
        rng, drafter = random.Random(seed), self.drafter(kind, seed)
        limits = Limits(rows=rng.randint(2, 8), chunk=rng.choice([5, 16, 64]))
        store = Prefixes(1 << 30, least=8) if remembers else None
        for turn in range(1 + remembers):  # what is remembered is used the second time
            lane = Lane(self.engine, limits, store, "a model", drafter=drafter)
            for i, answer in enumerate(self.schedule(lane, rng)):
                drawn = kind == "draft" and not answer.request.config.greedy  # another text of the same law
                expected = self.alone(i, drafter) if drawn else self.expected[i]
                same(answer, expected, (kind, seed, turn, i, limits, self.recipes[i]))


def _key(request: Request) -> Any:
    return tuple(request.prompt), request.config, bool(request.constraint)


def same(answer: Answer, alone: Answer, what: object) -> None:
    if answer.finish_reason == "cancelled":
        assert answer.ids == alone.ids[: len(answer.ids)], what
        return
    found, expected = ((a.ids, a.text, a.finish_reason) for a in (answer, alone))
    assert found == expected, what
    assert answer.logprob_sum == pytest.approx(alone.logprob_sum, abs=2e-3), what
    values, others = ([value for value, _ in a.prompt_logprobs] for a in (answer, alone))
    assert values == pytest.approx(others, abs=1e-4), what


def kinds_of(shape: str) -> list[str]:
    """Who guesses."""
    if shape == "dynamic":
        return ["", ""]  # positions that follow the text's length take no guesses
    more = {
        "llama": ["ngram", "branched", "draft", "medusa", "eagle"], "learned": ["branched", "medusa"],
        "window": ["eagle"], "moe": ["branched"], "canon": ["ngram"], "windows": ["ngram"],
    }  # fmt: skip
    return ["", "ragged", *more.get(shape, ())]


@pytest.mark.parametrize("shape", [*OURS, *THEIRS])
def test_every_answer_is_what_it_is_alone(shape: str, tmp_path: Path) -> None:
    engine = engine_of(shape, tmp_path)
    plan = Plan(engine, len(shape), [{}])
    for seed, kind in enumerate(kinds_of(shape)):
        plan.check(kind, seed, remembers=bool((seed + len(shape)) % 2))


@pytest.mark.parametrize("kind", ["", "ragged"])
def test_windows_of_sinks_and_packed_keys_too(kind: str, tmp_path: Path) -> None:
    sinks = [{}, {"window": 7, "sinks": 2}, {"window": 12, "sinks": 1}]
    for seed, shape in enumerate(("llama", "canon-full", "alibi")):
        packed: list[dict[str, int]] = [] if kind or shape != "llama" else [{"kv_bits": 8}, {"kv_bits": 2}]
        plan = Plan(engine_of(shape, tmp_path), seed, [*sinks, *packed])
        plan.check(kind, seed, remembers=True)


@pytest.mark.parametrize("shape", [*THEIRS, "mod"])
def test_prompts_of_equal_length_and_others_are_read_together(shape: str, tmp_path: Path) -> None:
    engine, config = engine_of(shape, tmp_path), SampleConfig(temperature=0, max_tokens=12)
    prompts = [[1, 2, 3], [4, 5, 6], [1, 2, 3], [7, 8, 9, 10, 11], [3]]
    alone = [engine.generate_batch([prompt], config, stop_ids=())[0].ids for prompt in prompts]
    for groups in ([[0, 1], [0, 2], [3, 4]], [[3], [0, 1, 4]], [[4, 3, 0], [1, 4]]):
        lane, answers = Lane(engine), list[tuple[int, Answer]]()
        for group in groups:
            for i in group:
                answers.append((i, lane.submit(engine.request(prompts[i], config, stop_ids=()))))
            lane.step()
            lane.step()
        lane.drain()
        assert all(answer.ids == alone[i] for i, answer in answers), groups


class Ends(Alternating):
    """Comes to a dead end after five tokens, or has them refused."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__()
        self.refuses = refuses

    def mask(self) -> Any:
        import numpy as np

        if len(self.taken) == 5 and not self.refuses:
            raise ConfigError("a dead end")
        return np.full(9, -1, np.int32)

    def take(self, token: int) -> None:
        if len(self.taken) == 5 and self.refuses:
            raise ConfigError("not allowed")
        self.taken.append(token)

    def rollback(self, n: int) -> None:
        del self.taken[len(self.taken) - n :]


@pytest.mark.parametrize("refuses", [False, True], ids=["end", "refusal"])
@pytest.mark.parametrize("kind", ["", "ngram", "draft", "medusa", "right"])
def test_a_constraint_that_fails_ends_its_own_answer_alone(kind: str, refuses: bool, tmp_path: Path) -> None:
    engine = engine_of("llama", tmp_path)
    config = SampleConfig(temperature=0, max_tokens=20)

    def requests() -> list[Request]:
        ending = Ends(refuses=refuses)
        return [
            engine.request([i, 2, 1, 2], config, stop_ids=(), constraint=None if i else ending)
            for i in (0, 1)
        ]

    free = engine.generate_batch([[0, 2, 1, 2], [1, 2, 1, 2]], config, stop_ids=())
    drafter: Any = None
    if kind == "right":  # guesses that lead beyond the end
        drafter = Ragged(lambda r: free[r.prompt[0]].ids, 3, branched=False)
    elif kind:
        drafter = _drafter(kind, engine)
    lane = Lane(engine, drafter=drafter)
    failing, other = (lane.submit(request) for request in requests())
    while lane.busy:
        lane.step_safely()
    assert (failing.finish_reason, other.finish_reason) == ("error", "length")
    assert failing.ids == free[0].ids[:5] and other.ids == free[1].ids
    assert isinstance(failing.error, ConfigError)


def test_guesses_beyond_a_grammars_limits_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_matcher.LIMITS, "max_items_in_row", 40)
    ruled = constraint("lark", 'start: x\nx: "a" x | x "a" | x x | "a"\n', ByteTokenizer())
    known = masks(ruled, [0, *b"aaaaaaaaaaaa"], range(12), 12, frozenset())
    assert 2 < len(known) < 12  # so far it goes
    for _ in range(len(known) - 1):
        ruled.mask()
        ruled.take(97)
    with pytest.raises(ConfigError, match=r"cannot go on|does not allow"):
        ruled.mask()
        ruled.take(97)
        ruled.mask()
