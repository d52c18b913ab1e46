"""The router: its encoder, its pairs, its calibration, what it is measured against, and its files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import from_dict, to_dict
from tinygpt.core.errors import CheckpointError, ConfigError, DataError
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.requests import NOTHING
from tinygpt.data.tally import Tally
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.noise import row_keys
from tinygpt.router import baseline, calibrate, encoder, pairs, router, source
from tinygpt.router.objective import Hiding, ToolLoss
from tinygpt.router.router import Router
from tinygpt.runs import _router_report
from tinygpt.runs._router_settings import Config
from tinygpt.train.state import arrays
from tinygpt.train.update import Gradient

LABELS = ("cat", "rm", NOTHING)
SAID = {"cat": "show me {}", "rm": "delete {} for good", NOTHING: "sing of {}"}


def shape(**changes: Any) -> ModelConfig:
    base: dict[str, Any] = {
        "vocab_size": byte.load().vocab_size, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 48,
    }  # fmt: skip
    return ModelConfig(**base | changes)


def made(grams: int = 2, labels: tuple[str, ...] = LABELS, **changes: Any) -> encoder.Encoder:
    """An encoder whose head is not zero."""
    config = shape(initializer_range=0.3, **changes)
    ids = [[1, 2, 3], [3, 2, 1]] * 2 + source.encoded(byte.load(), [q for q, _ in some()], 48)
    kept = encoder.known(ids, grams, 999)
    facts = encoder.Facts(labels=labels, model=to_dict(config), grams=grams, vectors=len(kept.buckets))
    found = encoder.build(config, facts, 1, kept)
    found.router_head.weight = mx.random.normal(found.router_head.weight.shape, key=mx.random.key(2))
    return found


def some(n: int = 12) -> list[pairs.Pair]:
    return [(SAID[tool].format(f"file{i}"), tool) for tool in LABELS for i in range(n)]


def batches(given: list[pairs.Pair], **how: Any) -> Any:
    rows = source.Requests(
        source.encoded(byte.load(), [q for q, _ in given], 48), [LABELS.index(t) for _, t in given],
        np.ones(len(LABELS), np.float32),
    )  # fmt: skip
    return source.build(rows, byte.load(), **{"batch_size": 4, "seed": 0} | how)


# --- the encoder --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grams", [0, 3])
def test_padding_changes_nothing(grams: int) -> None:
    module, ids = made(grams), source.encoded(byte.load(), ["a", "show the file", "x" * 40], 48)
    together = router.logits(module, ids, byte.load().pad_id)
    for i, one in enumerate(ids):
        alone = np.array(module(mx.array([one]), mx.ones((1, len(one)), mx.int32)))[0]
        assert np.allclose(together[i], alone, atol=1e-4)
    assert not np.allclose(together[0], together[1], atol=0.1)


def test_tokens_read_those_after_them() -> None:
    module = made()
    seen: list[np.ndarray] = []
    for last in (5, 6):
        frame = encoder.BothWays(length=4, segments=mx.ones((1, 4), mx.int32))
        found = module.model(mx.array([[1, 2, 3, last]]), [None, None], frame)
        seen.append(np.array(found)[0, 0])
    assert not np.allclose(*seen, atol=1e-3)


def test_the_table_of_runs_knows_their_order_and_no_padding() -> None:
    module = made(grams=2)

    def grams(tokens: list[int], n: int) -> np.ndarray:
        real = mx.array([[1.0] * n + [0.0] * (len(tokens) - n)])
        return np.array(module._grams(mx.array([tokens]), real))[0]

    assert np.allclose(grams([1, 2, 3], 3), grams([1, 2, 3, 9, 9], 3), atol=1e-6)
    assert not np.allclose(grams([1, 2, 3], 3), grams([3, 2, 1], 3), atol=1e-3)
    table = np.array(module.gram_table.weight)
    weighted = table * np.array(module.gram_weights)[:, None]
    rows = np.flatnonzero(np.abs(weighted - grams([1], 1)).max(axis=1) < 1e-6)
    assert len(rows) == 1, "a request of one token has one run"


def test_runs_of_two_requests_have_a_vector_and_rare_ones_weigh_more() -> None:
    config, ids = shape(), [[1, 2], [1, 3], [1, 2], [4]]
    kept = encoder.known(ids, 2, 99)
    assert len(kept.buckets) == 3 and sorted(kept.weights) == pytest.approx(
        [math.log1p(4 / 3), math.log1p(2), math.log1p(2)]
    )
    facts = encoder.Facts(labels=LABELS, model=to_dict(config), grams=2, vectors=3)
    built = encoder.build(config, facts, 0, kept)

    def said(*tokens: int) -> float:
        return float(mx.abs(built._grams(mx.array([tokens]), mx.ones((1, len(tokens))))).sum().item())

    assert said(1) > 0 and said(2) > 0 and said(3) == 0 and said(4, 9) == 0, "3, 4 and 9: nothing is known"
    assert len(encoder.known(ids, 2, 1).buckets) == 1
    learned = dict(tree_flatten(built.trainable_parameters()))
    assert {"gram_weights", "gram_rows"}.isdisjoint(learned) and "gram_table.weight" in learned


def test_small_letters(tmp_path: Path) -> None:
    config, module = shape(initializer_range=0.3), made()
    facts = dataclasses.replace(module.facts, lower=True)
    folded = encoder.Encoder(config, facts)
    folded.update(module.parameters())
    router.save(tmp_path / "r", Router(folded, byte.load()))
    told = Router.open(tmp_path / "r")
    assert told("SHOW it") == told("show it") and Router(module, byte.load())("SHOW it") != told("SHOW it")


def test_the_sizes_are_the_originals() -> None:
    config = encoder.size("tiny", vocab_size=256, context=128)
    tiny = encoder.Encoder(config, encoder.Facts(labels=tuple(map(str, range(20)))))
    n = sum(w.size for _, w in tree_flatten(tiny.parameters()))
    assert 3.2e6 < n < 3.4e6, "the original's has 3,262,996"
    with pytest.raises(ConfigError, match="no size 'huge'"):
        encoder.size("huge", vocab_size=256, context=128)


@pytest.mark.parametrize(
    "changes",
    [{"attention": {"name": "gqa", "window": 4}}, {"position": {"name": "alibi"}}, {"mlp": {"name": "moe"}},
     {"attention": {"name": "gqa", "key_shift": True}}],
)  # fmt: skip
def test_what_reads_one_way_alone_is_refused(changes: dict[str, Any]) -> None:
    config = from_dict(
        ModelConfig, {**{k: v for k, v in vars(shape()).items() if isinstance(v, int)}, **changes}
    )
    with pytest.raises(ConfigError):
        encoder.Encoder(config, encoder.Facts(labels=LABELS))


def test_one_class_is_no_router() -> None:
    with pytest.raises(ConfigError, match="two classes"):
        encoder.Facts(labels=("a",))
    with pytest.raises(ConfigError, match="two classes"):
        encoder.Facts(labels=("a", "a"))


# --- what is learned ----------------------------------------------------------------------------------------


def test_a_batch_says_class_and_weight_at_the_first_token() -> None:
    batch = batches(some(2), batch_size=2)[0]
    assert batch.n_targets == 2 and (batch.weights[:, 1:] == 0).all()
    assert batch.tokens.shape[1] % 8 == 0 and batch.n_tokens == int((batch.segments > 0).sum())
    last = batches(some(3), batch_size=4, seed=None)
    assert sum(last[i].n_targets for i in range(len(last))) == 9, "each once, and padding counts nothing"


def test_the_loss_is_the_weighted_mean() -> None:
    module, given = made(), some(1)
    batch = arrays(batches(given, batch_size=3, seed=None)[0])
    batch["weights"] = batch["weights"] * mx.array([[1.0], [2.0], [0.5]])
    loss = ToolLoss(module)
    z = np.array(module(batch["tokens"], batch["segments"]), np.float64)
    y, w = np.array(batch["targets"])[:, 0], np.array([1.0, 2.0, 0.5])
    nats = -calibrate.log_softmax(z)[np.arange(3), y]
    assert float(loss.measure(batch)) == pytest.approx((nats * w).sum() / w.sum(), rel=1e-4)
    told = loss.report(batch)
    assert float(told["loss"][0] / told["loss"][1]) == pytest.approx((nats * w).sum() / w.sum(), rel=1e-4)
    assert float(told["accuracy"][0]) == (z.argmax(1) == y).sum() and float(told["accuracy"][1]) == 3


def test_hidden_tokens_are_drawn_from_keys_and_never_the_first() -> None:
    segments, keys = mx.ones((64, 20), mx.int32), row_keys(0, 1, 64)
    seen = np.array(Hiding(token_drop=0.3).of(keys).seen(segments))
    assert (seen[:, 0] == 1).all() and 0.6 < seen[:, 1:].mean() < 0.8
    assert (seen == np.array(Hiding(token_drop=0.3).of(keys).seen(segments))).all()
    assert Hiding(token_drop=0.1) and not Hiding()
    with pytest.raises(ConfigError, match="--token-drop"):
        Hiding(token_drop=1.0)


@pytest.mark.wide
def test_it_learns_and_parts_of_a_batch_are_the_whole() -> None:
    from tinygpt.train.optim import adamw

    found: list[float] = []
    for accumulate in (1, 2):
        module = made()
        module.noise = Hiding(dropout=0.1, token_drop=0.2)
        optimizer = adamw.build(adamw.Config())
        update = Gradient(ToolLoss(module), optimizer, lambda _: 1e-2, accumulate=accumulate, compiled=False)
        learned = batches(some())
        found += [update.step(learned[i], i + 1)["loss"] for i in range(30)][-1:]
        told = Router(module, byte.load())
        assert [told(q)[0][0] for q, _ in some(1)] == list(LABELS)
    assert found[0] == pytest.approx(found[1], abs=1e-3) and found[0] < 0.2


# --- pairs --------------------------------------------------------------------------------------------------


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_that_are_no_pairs_are_counted(tmp_path: Path) -> None:
    rows = [
        {"query": "a", "tool": "t"}, {"query": "b", "tool": None}, {"query": "c", "tool": ""},
        {"query": "", "tool": "t"}, {"tool": "t"}, {"query": "d"}, {"query": "e", "tool": 3}, [1],
        {"query": "f", "gold_tool": "u"},
    ]  # fmt: skip
    tally = Tally("rows")
    found = list(pairs.read([write(tmp_path / "a.jsonl", rows)], tally))
    assert found == [("a", "t"), ("b", NOTHING), ("c", NOTHING), ("f", "u")]
    assert tally.n_in == 9 and sum(tally.dropped.values()) == 5
    unserved = pairs.read([tmp_path / "a.jsonl"], Tally("out of scope"), unserved=True)
    assert {tool for _, tool in unserved} == {NOTHING}


def test_a_request_counts_once_and_a_contradiction_never() -> None:
    tally = Tally("requests")
    given = [("Do it", "a"), ("do  it ", "a"), ("Or that", "a"), ("or that", "b"), ("known", "a"), ("z", "b")]
    assert pairs.cleaned(given, tally, known=["known"]) == [("Do it", "a"), ("z", "b")]
    assert tally.dropped == {
        "a duplicate": 1, "the same request with several tools": 2,
        "among those that the report is made on": 1,
    }  # fmt: skip


def test_the_split_has_every_class_on_each_side_and_no_text_on_two() -> None:
    given = [(f"request {tool} {i}", tool) for tool, n in (("a", 100), ("b", 20), ("c", 2)) for i in range(n)]
    learn, watch, test = pairs.split(given, [0.1, 0.2], 0)
    assert sorted(learn + watch + test) == sorted(given)
    counts = Counter(tool for _, tool in test)
    assert counts["a"] in (20, 21) and counts["b"] in (4, 5) and {t for _, t in learn} == {"a", "b", "c"}
    assert pairs.split(given[::-1], [0.1, 0.2], 0) == [learn, watch, test], "whatever the order"
    assert pairs.split(given, [0.1, 0.2], 1)[2] != test


def test_weights_make_up_for_what_is_rare() -> None:
    numbers = [0] * 90 + [1] * 10
    assert pairs.weights(numbers, 2, 0.0).tolist() == [1, 1]
    even = pairs.weights(numbers, 2, 1.0)
    assert even[0] * 90 == pytest.approx(even[1] * 10) and even[0] * 90 + even[1] * 10 == pytest.approx(100)
    assert pairs.labels([("", NOTHING), ("", "b"), ("", "a")]) == ("a", "b", NOTHING)


# --- calibration and baselines ------------------------------------------------------------------------------


def drawn(n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits and classes drawn from them."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (n, 3))
    p = np.exp(calibrate.log_softmax(z))
    return z, np.array([rng.choice(3, p=one) for one in p])


def test_the_temperature_is_found() -> None:
    z, y = drawn()
    found = calibrate.fitted(3 * z, y.tolist(), [1.0] * 3)
    assert found.temperature == pytest.approx(3, rel=0.1) and found.prior == () and found.requests == len(y)
    assert np.allclose(found.probabilities(3 * z).sum(axis=1), 1)


def test_some_requests_that_are_all_right_do_not_make_it_certain() -> None:
    found = calibrate.fitted(10 * np.eye(3), [0, 1, 2], [1.0] * 3)
    assert 0.6 < found.probabilities(10 * np.eye(3)).max() < 0.9


@pytest.mark.wide
def test_what_class_weights_shift_is_taken_back() -> None:
    z, y = drawn()
    weights = [4.0, 1.0, 0.25]
    shifted = z + np.log(weights)  # where the minimum of the weighted loss lies
    found = calibrate.fitted(shifted, y.tolist(), weights)
    assert np.allclose(found.prior, -np.log(weights)) and found.temperature == pytest.approx(1, rel=0.1)
    assert calibrate.fitted(z, y.tolist(), weights).prior == ()
    assert calibrate.fitted(z[:0], [], weights) == calibrate.Calibration()
    with pytest.raises(ConfigError, match="positive"):
        calibrate.Calibration(temperature=0.0)


def test_the_baselines_by_hand() -> None:
    learned = [("show the picture", "cat"), ("show a text", "cat"), ("delete everything", "rm")]
    found = baseline.predictions(learned, ["delete a picture", "remove it", "zzz"], {"rm": "remove"})
    assert found["majority"] == ["cat"] * 3
    assert found["bm25-tools"] == ["cat", "rm", "cat"], "no shared word: the commonest"
    assert found["bm25-requests"][0] == "rm" and found["bm25-requests"][2] == "cat"
    assert "get Weather Now" in baseline.spoken("getWeather.now".replace("now", "Now"))


def test_a_bound_tells_when_no_tool_serves() -> None:
    learned = [(f"show file number {i}", "cat") for i in range(6)]
    learned += [(f"sing song number {chr(97 + i)}", NOTHING) for i in range(6)]
    found = baseline.predictions(learned, ["show file number 9", "play music"], {"cat": "show file"})
    assert found["bm25-tools"] == ["cat", NOTHING] and found["bm25-requests"] == ["cat", NOTHING]


def test_the_report_by_hand() -> None:
    class Known(Router):
        """A router with probabilities as its request says them."""

        def __init__(self) -> None:
            super().__init__(made(), byte.load())

        def probabilities(self, queries: Any) -> Any:
            return np.array([json.loads(query) for query in queries])

    test = [
        ("[0.8,0.1,0.1]", "cat"),
        ("[0.7,0.2,0.1]", "rm"),
        ("[0.1,0.1,0.8]", NOTHING),
        ("[0.1,0.1,0.8]", "other"),
    ]
    found = _router_report.report(
        Known(), test, [("x", "cat"), ("y", "cat"), ("z", "rm"), ("w", NOTHING)], {}
    )
    assert found["accuracy"]["value"] == 0.5 and found["rows"] == 4
    f1 = [2 / 3, 0, 2 / 3, 0]
    assert found["macro_f1"]["value"] == pytest.approx(sum(f1) / 4), "a tool that it does not know is wrong"
    assert found["abstain"]["precision"]["value"] == 0.5 and found["abstain"]["recall"]["value"] == 1
    assert found["ece"]["value"] == pytest.approx(0.5 * abs(0.5 - 0.8) + 0.25 * 0.2 + 0.25 * 0.7, abs=0.11)
    assert found["ece"]["low"] <= found["ece"]["value"] <= found["ece"]["high"]
    assert found["baselines"]["majority"]["accuracy"]["value"] == 0.25
    lead = found["baselines"]["majority"]["lead"]
    assert lead["value"] == 0.25 and lead["low"] <= 0.25 <= lead["high"]


# --- files --------------------------------------------------------------------------------------------------


def test_saved_and_opened_it_says_the_same(tmp_path: Path) -> None:
    calibration = calibrate.Calibration(temperature=2.0, prior=(0.5, 0.0, -0.5), requests=9)
    before = Router(made(), byte.load(), calibration)
    router.save(tmp_path / "final", before, step=3)
    for path in (tmp_path / "final", tmp_path):
        after = Router.open(path)
        assert after("show it") == before("show it") and after.labels == LABELS and after.abstain == NOTHING
    assert math.isclose(sum(p for _, p in after("x")), 1) and after("x")[0][1] >= after("x")[1][1]
    labels = json.loads((tmp_path / "final" / "labels.json").read_text())
    assert labels == {"version": 1, "kind": "tool-router", "labels": list(LABELS)}


def test_long_requests_and_empty_ones_have_an_answer() -> None:
    told = Router(made(), byte.load())
    assert told("a" * 48) == told("a" * 500) and len(told("")) == 3


def test_what_is_no_router_is_refused(tmp_path: Path) -> None:
    whole = router.save(tmp_path / "r", Router(made(), byte.load()))
    (whole / "labels.json").write_text('{"labels": ["a"]}')
    with pytest.raises(CheckpointError, match="labels.json"):
        Router.open(whole)
    checkpoint.save(tmp_path / "lm", nano.model())
    with pytest.raises(CheckpointError, match="of kind model, not a router"):
        Router.open(tmp_path / "lm")
    module = made()
    tensors = dict(tree_flatten(module.parameters()))
    tensors.pop("router_head.bias")
    with pytest.raises(CheckpointError, match="router_head.bias"):
        router.fill(module, tensors, "here")


# --- the settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"held_out": 0.6, "val_split": 0.5}, "leave nothing"), ({"held_out": 0.0}, "nothing to report"),
        ({"val_split": 0.0}, "calibrate"), ({"balance": 2.0}, "--balance"), ({"vocab_size": 100}, "--vocab"),
        ({"tokenizer": "here", "vocab_size": 900}, "leave one out|brings its own"), ({"grams": 9}, "--grams"),
        ({"min_lr": 1.0}, "--min-lr"), ({"z_loss": 0.1}, "--z-loss"), ({"dropout": 1.0}, "--dropout"),
        ({"test": (Path("t"),), "held_out": 0.3}, "--test"),
        ({"baselines": False, "tools": Path("t")}, "--tools"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Config(data=(Path("x"),), **changes)


def test_the_rate_ends_where_it_is_told() -> None:
    from tinygpt.train.schedule import cosine

    config = Config(data=(Path("x"),), lr=1e-3, min_lr=1e-4)
    assert config.amounts.lr * cosine.at(500, 500, config.course.options) == pytest.approx(1e-4)


@pytest.mark.wide
def test_too_little_is_told(tmp_path: Path) -> None:
    from tinygpt.runs.train_extractor import plan

    sink = MemorySink()
    one = write(tmp_path / "one.jsonl", [{"query": str(i), "tool": "a"} for i in range(9)])
    with pytest.raises(DataError, match="two or more"):
        plan(Config(data=(one,)), Events(sink))
    few = write(tmp_path / "few.jsonl", [{"query": f"{t} {i}", "tool": t} for t in "ab" for i in range(2)])
    with pytest.raises(DataError, match="holds no request"):
        plan(Config(data=(few,), val_split=0.01, held_out=0.01), Events(sink))
