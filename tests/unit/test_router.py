"""The router: its encoder, its pairs, its calibration, what it is measured against, and its files."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import from_dict, to_dict
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.data.requests import NOTHING
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.noise import row_keys
from tinygpt.router import calibrate, encoder, linear, pairs, router, source
from tinygpt.router.neighbours import Neighbours
from tinygpt.router.objective import Hiding, ToolLoss
from tinygpt.router.router import Router
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


def made(labels: tuple[str, ...] = LABELS, **changes: Any) -> encoder.Encoder:
    """An encoder whose head is not zero."""
    config = shape(initializer_range=0.3, **changes)
    found = encoder.build(config, encoder.Facts(labels=labels, model=to_dict(config)), 1)
    found.router_head.weight = mx.random.normal(found.router_head.weight.shape, key=mx.random.key(2))
    return found


def whole(module: encoder.Encoder | None = None, **more: Any) -> Router:
    """A router whose other readers have learned `some` requests."""
    given = some()
    classes = [LABELS.index(tool) for _, tool in given]
    reader = linear.learned([query for query, _ in given], classes, [1.0] * 3, grams=3, most=999)
    return Router(module or made(), reader, Neighbours(given, LABELS), byte.load(), **more)


def some(n: int = 12) -> list[pairs.Pair]:
    return [(SAID[tool].format(f"file{i}"), tool) for tool in LABELS for i in range(n)]


def batches(given: list[pairs.Pair], **how: Any) -> Any:
    rows = source.Requests(
        source.encoded(byte.load(), [q for q, _ in given], 48), [LABELS.index(t) for _, t in given],
        np.ones(len(LABELS), np.float32),
    )  # fmt: skip
    defaults: dict[str, Any] = {"batch_size": 4, "seed": 0}
    return source.build(rows, byte.load(), **defaults | how)


# --- the encoder --------------------------------------------------------------------------------------------


def test_padding_changes_nothing() -> None:
    module, ids = made(), source.encoded(byte.load(), ["a", "show the file", "x" * 40], 48)
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


# --- the other readers --------------------------------------------------------------------------------------


def test_features_by_hand() -> None:
    """Of two requests both have "a" and "ab"; "b" is twice in the first."""
    reader = linear.learned(["ab b", "ab c"], [0, 1], [1.0, 1.0], grams=2, most=99)
    assert len(reader.keys) == 5, "a, b, space, ab, 'b '"
    assert np.allclose(reader.idf, math.log1p(1)) and (np.diff(reader.keys.astype(np.int64)) > 0).all()
    same = dataclasses.replace(
        reader,
        weights=np.ones((5, 2), np.float32),
        biases=np.zeros(2, np.float32),
        idf=np.ones(5, np.float32),
    )
    twice = 1 + math.log(2)
    expected = (4 + twice) / math.sqrt(4 + twice**2)
    assert same.logits(["ab b", "xyz", ""])[:, 0] == pytest.approx([expected, 0, 0], rel=1e-5)
    assert len(linear.learned(["ab b", "ab c"], [0, 1], [1.0, 1.0], grams=2, most=1).keys) == 1


def test_the_linear_reader_is_scikit_learns() -> None:
    """Three classes, and two, of which scikit-learn keeps one row."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    for labels in (LABELS, LABELS[:2]):
        given = [(query, tool) for query, tool in some() if tool in labels]
        queries, y = [q for q, _ in given], [labels.index(t) for _, t in given]
        reader = linear.learned(queries, y, [1.0] * len(labels), grams=2, most=9999)
        peer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, min_df=2, norm=None)
        x = peer.fit_transform(queries).toarray()
        x = x / peer.idf_ * np.log1p(len(queries) / (x > 0).sum(axis=0))  # its idf is another one
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        model = LogisticRegression(C=linear.STRENGTH, max_iter=linear.ROUNDS).fit(x, y)
        ours = calibrate.log_softmax(reader.logits(queries))
        assert np.allclose(ours, model.predict_log_proba(x), atol=2e-3)


def test_class_weights_and_the_hash_reach_the_linear_reader() -> None:
    queries, y = ["show it"] * 9 + ["show it now"], [0] * 9 + [1]
    said = [
        np.exp(calibrate.log_softmax(linear.learned(queries, y, w, grams=1, most=99).logits(["show it"])))[
            0, 1
        ]
        for w in ([1.0, 1.0], [1.0, 50.0])
    ]
    assert said[0] < said[1]
    assert (
        linear.learned(["é", "é", "x"], [0, 0, 1], [1.0, 1.0], grams=1, most=9).logits(["é"])[0].argmax() == 0
    )


def test_what_has_no_room_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinygpt.core.backend.memory", lambda: 1000)
    with pytest.raises(ConfigError, match="2 classes by 2 runs of bytes"):
        linear.learned(["ab", "ab"], [0, 1], [1.0, 1.0], grams=1, most=9)


def test_neighbours_share_by_their_scores() -> None:
    near = Neighbours([("show the file", "cat"), ("show it", "cat"), ("delete the file", "rm")], LABELS)
    k = near.shares(["show the file", "delete", "nothing in common"])
    assert k[0].sum() == pytest.approx(1) and k[0].argmax() == 0 and 0 < k[0][1] < 0.2 and k[0][2] == 0
    assert k[1].tolist() == [0, 1, 0] and k[2].tolist() == [0, 0, 0]


def test_only_the_nearest_count() -> None:
    near = Neighbours([("show it", "cat")] * 10 + [("show it now please", "rm")], LABELS)
    assert near.shares(["show it"])[0].tolist() == [1, 0, 0]


def test_small_letters(tmp_path: Path) -> None:
    plain = whole()
    folded = encoder.Encoder(shape(), dataclasses.replace(plain.module.facts, lower=True))
    folded.update(plain.module.parameters())
    router.save(tmp_path / "r", whole(folded))
    told = Router.open(tmp_path / "r")
    assert told("SHOW it") == told("show it") and plain("SHOW it") != told("SHOW it")


# --- the encoder's shape ------------------------------------------------------------------------------------


def test_the_sizes_are_the_originals() -> None:
    config = encoder.size("tiny", vocab_size=256, context=128)
    tiny = encoder.Encoder(config, encoder.Facts(labels=tuple(map(str, range(20)))))
    n = sum(w.size for w in dict(tree_flatten(tiny.parameters())).values())
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


def test_rows_of_padding_change_nothing() -> None:
    """Their targets are the padding's id, beyond the logits: a gradient written there broke the memory."""
    module, given = made(), some(1)
    loss = ToolLoss(module)
    batch = arrays(batches(given, batch_size=3, seed=None)[0])
    wide = {name: mx.concatenate([x, mx.full(x[:1].shape, 259, x.dtype)]) for name, x in batch.items()}
    for name in ("weights", "segments"):
        wide[name][3:] = 0
    assert int(wide["targets"][3, 0]) >= len(module.facts.labels)
    one, other = (nn.value_and_grad(module, lambda b: loss.loss(b)[0])(b) for b in (batch, wide))
    assert float(one[0]) == pytest.approx(float(other[0]), rel=1e-5)
    ours, theirs = dict(tree_flatten(one[1])), dict(tree_flatten(other[1]))
    assert all(np.allclose(np.array(ours[name]), np.array(theirs[name]), atol=1e-6) for name in ours)
    assert [float(n) for _, n in loss.report(wide).values()] == [
        float(n) for _, n in loss.report(batch).values()
    ]


def test_hidden_tokens_are_drawn_from_keys_and_never_the_first() -> None:
    segments, keys = mx.ones((64, 20), mx.int32), row_keys(0, 1, 64)
    noise = dataclasses.replace(Hiding(token_drop=0.3), keys=keys)
    seen = np.array(noise.seen(segments))
    assert (seen[:, 0] == 1).all() and 0.6 < seen[:, 1:].mean() < 0.8
    assert (seen == np.array(noise.seen(segments))).all()
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
        ids = source.encoded(byte.load(), [q for q, _ in some(1)], 48)
        assert router.logits(module, ids, byte.load().pad_id).argmax(axis=1).tolist() == [0, 1, 2]
    assert found[0] == pytest.approx(found[1], abs=1e-3) and found[0] < 0.2


# --- files --------------------------------------------------------------------------------------------------


def test_saved_and_opened_it_says_the_same(tmp_path: Path) -> None:
    calibration = calibrate.Calibration(trust=(0.5, 1.0, 2.0), prior=(0.5, 0.0, -0.5), requests=9)
    before = whole(calibration=calibration)
    router.save(tmp_path / "final", before, step=3)
    for path in (tmp_path / "final", tmp_path):
        after = Router.open(path)
        assert after("show it") == before("show it") and after.labels == LABELS and after.abstain == NOTHING
    assert math.isclose(sum(p for _, p in after("x")), 1) and after("x")[0][1] >= after("x")[1][1]
    labels = json.loads((tmp_path / "final" / "labels.json").read_text())
    assert labels == {"version": 1, "kind": "tool-router", "labels": list(LABELS)}


def test_long_requests_and_empty_ones_have_an_answer() -> None:
    told = whole()
    a, b = (told.said(["a" * n]) for n in (48, 500))
    assert np.allclose(a[0], b[0]) and len(told("")) == 3 and len(told("a" * 500)) == 3


def test_what_is_no_router_is_refused(tmp_path: Path) -> None:
    for name in ("labels.json", "requests.jsonl"):
        path = router.save(tmp_path / "r", whole(), replace=True)
        (path / name).write_text('{"labels": ["a"]}')
        with pytest.raises(CheckpointError, match=name):
            Router.open(path)
    odd = [whole(calibration=calibrate.Calibration(trust=(1.0,))), whole(), whole()]
    odd[1].neighbours.pairs.append(("a", "zap"))
    odd[2].linear = dataclasses.replace(odd[2].linear, biases=np.zeros(2, np.float32))
    for one, said in zip(odd, ("another number", "zap", "linear reader"), strict=True):
        path = router.save(tmp_path / "r", one, replace=True)
        with pytest.raises(CheckpointError, match=said):
            Router.open(path)
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
        ({"grams": 0}, "--grams"),
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
