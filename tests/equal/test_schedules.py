"""Random schedules: requests of every kind come, write, and are cancelled at any step, in lanes that guess,
remember and batch; and each answer is what it is alone, without guesses and without memory.

The models are tiny with weights drawn wide, so that the likeliest tokens lie far apart beside the rounding of
a batch (1e-6): what differs is a fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

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
from tinygpt.infer.speculate._protocol import Told
from tinygpt.infer.speculate._tree import laid_out
from tinygpt.infer.speculate._verify import masks
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize

OURS: dict[str, dict[str, Any]] = {
    **{name: slots for name, slots in SHAPES.items() if name not in MORE},
    "canon-window": {"residual": Pick("canon"), "attention": Pick("gqa", {"window": 3})},
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
FORCE = False
WINDOWS = [{}, {"window": 7, "sinks": 2}, {"window": 12, "sinks": 1}, {"kv_bits": 8}]


class Ragged:
    """Knows what comes, and guesses a random part of it: of each row another number of right ones, followed
    by wrong ones; sometimes nothing."""

    points, note, most = frozenset[str](), "", 7

    def __init__(self, ids: Callable[[Request], list[int]], seed: int, *, branched: bool) -> None:
        self.ids, self.rng, self.branched, self.told = ids, random.Random(seed), branched, Told()

    def begin(self, pads: Sequence[int]) -> Ragged:
        return self

    def read(self, *_: Any) -> None: ...
    def extend(self, other: Ragged) -> None: ...
    def filter(self, rows: Sequence[int]) -> None: ...
    def settle(self, *_: Any) -> None: ...

    def propose(self, rows: Sequence[Answer], rules: Any, most: Sequence[int]) -> Any:
        trees = []
        for row, n in zip(rows, most, strict=True):
            ahead, tree, here = self.ids(row.request)[len(row.ids) :][:n], [], 0
            right, wrong = self.rng.randint(0, len(ahead)), self.rng.randint(0, 3)
            for token in [*ahead[:right], *(self.rng.randrange(250) for _ in range(min(wrong, n - right)))]:
                if self.branched and len(tree) + 2 <= min(n, self.most) and self.rng.random() < 0.5:
                    tree.append(((token + 1) % 250, here))
                if len(tree) < self.most:
                    tree.append((token, here))
                    here = len(tree)
            trees.append(tree)
        return laid_out(trees, self.most, branched=self.branched) if any(trees) else None


def engine_of(shape: str, tmp_path: Path) -> Engine:
    if shape in THEIRS:
        return foreign(tmp_path, THEIRS[shape])
    config = ModelConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=160, initializer_range=0.3, **OURS[shape],
    )  # fmt: skip
    return Engine(initialize(LM(config), 1), ByteTokenizer())


class Schedule:
    """One random schedule of a lane."""

    def __init__(self, engine: Engine, seed: int, *, windows: bool = False, guessing: bool = False) -> None:
        self.engine, self.rng = engine, random.Random(seed)
        rng = self.rng
        kinds = [w for w in WINDOWS if not (guessing and "kv_bits" in w)] if windows else [{}]
        beginnings = [[rng.randrange(256) for _ in range(n)] for n in (0, 20, 33)]
        self.recipes: list[dict[str, Any]] = []
        for _ in range(rng.randint(6, 12)):
            config = replace(rng.choice(CONFIGS), window=0, sinks=4)
            config = replace(
                config, seed=rng.randrange(1000), max_tokens=rng.randint(1, 30), **rng.choice(kinds)
            )
            prompt = rng.choice(beginnings) + [rng.randrange(9) for _ in range(rng.randint(1, 30))]
            self.recipes.append({
                "prompt": prompt, "config": config, "stop_ids": range(0, 250, rng.choice([17, 40, 300])),
                "logprobs": rng.choice([None, 0, 3]), "echo": rng.random() < 0.15, "boundaries": [20, 33],
            })  # fmt: skip
        self.recipes.append(self.recipes[0])
        self.ruled = [rng.random() < 0.3 for _ in self.recipes]

    def request(self, i: int) -> Request:
        return self.engine.request(**self.recipes[i], constraint=Alternating() if self.ruled[i] else None)

    def alone(self, i: int, drafter: Any = None) -> Answer:
        lane = Lane(self.engine, drafter=drafter)
        answer = lane.submit(self.request(i))
        lane.drain()
        return answer

    def run(self, lane: Lane) -> list[Answer]:
        rng, left, answers = self.rng, list(range(len(self.recipes))), []
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


def same(answer: Answer, alone: Answer, what: object) -> None:
    if answer.finish_reason == "cancelled":
        assert answer.ids == alone.ids[: len(answer.ids)], what
        return
    assert (answer.ids, answer.text, answer.finish_reason) == (alone.ids, alone.text, alone.finish_reason), (
        what
    )
    assert answer.logprob_sum == pytest.approx(alone.logprob_sum, abs=2e-3), what
    assert [p for p, _ in answer.prompt_logprobs] == pytest.approx(
        [p for p, _ in alone.prompt_logprobs], abs=1e-4
    ), what


def check(engine: Engine, seed: int, kind: str, *, prefixes: bool, windows: bool) -> None:
    plan = Schedule(engine, seed, windows=windows, guessing=bool(kind))
    expected = [plan.alone(i) for i in range(len(plan.recipes))]
    drafter: Any = None
    if kind in ("ragged", "branched"):
        known = {
            (tuple(a.request.prompt), a.request.config, bool(a.request.constraint)): a.ids for a in expected
        }
        drafter = Ragged(
            lambda r: known[tuple(r.prompt), r.config, bool(r.constraint)],
            seed,
            branched=kind == "branched" and (FORCE or takes_trees(engine.model)),
        )
    elif kind:
        drafter = _drafter(kind, engine)
    if kind == "draft":
        expected = [a if a.request.config.greedy else plan.alone(i, drafter) for i, a in enumerate(expected)]
    limits = Limits(rows=plan.rng.randint(2, 8), chunk=plan.rng.choice([5, 16, 64]))
    store = Prefixes(1 << 30, least=8) if prefixes else None
    for number in range(1 + prefixes):  # what is remembered is used the second time
        lane = Lane(engine, limits, store, "a model", drafter=drafter)
        for i, answer in enumerate(plan.run(lane)):
            same(answer, expected[i], (seed, kind, prefixes, windows, number, i, plan.recipes[i], limits))


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
