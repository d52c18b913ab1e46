"""Rerankers: rows, features, ids, the loss, figures by hand, probabilities, and what a file can be."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt.core.backend import mx
from tinygpt.core.config import to_dict
from tinygpt.core.errors import CheckpointError, ConfigError, DataError
from tinygpt.data.tally import Tally
from tinygpt.data.tokenizer import byte
from tinygpt.model.config import ModelConfig
from tinygpt.router import encoder, rerank, rerank_lexical, rerank_metrics, rerank_rows
from tinygpt.router.rerank import ByReading, ByWords, Platt, Reranker
from tinygpt.router.rerank_cross import EXTRA, LABELS, Cross, CrossPairs, CrossSource, Reading
from tinygpt.router.rerank_lexical import Lexical, Rarity, features
from tinygpt.router.rerank_objective import PairLoss
from tinygpt.router.rerank_rows import Group
from tinygpt.runs import _rerank_report
from tinygpt.runs._rerank_settings import Config
from tinygpt.train.state import arrays

TEXTS = ["the cat sat", "the dog ran", "the cat and the dog", "a bird"]


def cross(context: int = 64) -> ByReading:
    """A tiny cross-encoder whose head says something."""
    tokenizer = byte.load()
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size + EXTRA, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=context,
    )  # fmt: skip
    facts = encoder.Facts(labels=LABELS, model=to_dict(config))
    module = Cross(config, facts)
    module.update(encoder.build(config, facts, 3).parameters())
    module.router_head.weight = mx.random.normal(module.router_head.weight.shape, key=mx.random.key(1))
    return ByReading(module, Rarity.of(TEXTS), tokenizer)


# --- rows ---------------------------------------------------------------------------------------------------


def test_rows_of_all_shapes_are_put_together(tmp_path: Path) -> None:
    context = "Kelm is a town. It goes back to 1823. Cows graze."
    rows: list[Any] = [
        {"query": "Who?", "pos_doc": "Ann did.", "neg_doc": "Rain fell."},
        {"query": "who? ", "positive": "ann DID.", "negatives": ["Snow fell."]},
        {"query": "Who?", "sentence": "Bo did.", "relevant": True},
        {"query": "Who?", "sentence": "Rain fell.", "relevant": 0},
        {"question": "When?", "context": context, "answer": "1823"},
        {"question": "When?", "context": context, "answer": "1999"},
        {"query": "Who?", "sentence": "Cy", "relevant": 2},
        {"query": " ", "pos_doc": "a", "neg_doc": "b"},
        {"query": "a"},
        [1],
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tally = Tally("rows")
    judged = list(rerank_rows.read([path], tally))
    assert (tally.n_in, tally.n_out) == (10, 5) and "no sentence of the context holds" in tally.sentence()
    who, when = rerank_rows.grouped(judged, Tally("queries"), alone=True)
    assert who == Group("Who?", ("Ann did.", "Bo did."), ("Rain fell.", "Snow fell."), "who?")
    assert when.positives == ("It goes back to 1823.",) and len(when.negatives) == 2
    assert when.source == rerank_rows.folded(context)


@pytest.mark.parametrize(
    "row",
    [
        {"query": "\ud800", "pos_doc": "a", "neg_doc": "b"},
        {"query": "q", "pos_doc": "a", "neg_doc": "\udc00"},
        {"query": "q", "positive": "a", "negatives": ["\ud800"]},
        {"question": "q", "context": "a \ud800", "answer": "a"},
    ],
)  # fmt: skip
def test_half_of_a_surrogate_pair_is_no_text(row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="half of a surrogate pair"):
        rerank_rows.judged(row)


def test_an_answer_is_found_where_no_spaces_part_words() -> None:
    found = rerank_rows.judged({"question": "谁建塔", "context": "塔很高。李四建塔。", "answer": "李四"})
    assert [(one.document, one.relevant) for one in found] == [("塔很高。", False), ("李四建塔。", True)]


def test_a_document_that_is_both_is_neither() -> None:
    def judged(*said: tuple[str, bool]) -> list[rerank_rows.Judged]:
        return [rerank_rows.Judged("q", text, yes) for text, yes in said]

    def grouped(given: list[rerank_rows.Judged], *, alone: bool) -> tuple[list[Group], dict[str, int]]:
        tally = Tally("queries")
        return rerank_rows.grouped(given, tally, alone=alone), tally.dropped

    found, _ = grouped(judged(("a", True), ("A ", False), ("b", True), ("c", False)), alone=True)
    assert found[0].positives == ("b",) and found[0].negatives == ("c",)
    assert grouped(judged(("c", False)), alone=False)[1] == {"no document answers the query": 1}
    assert grouped(judged(("b", True)), alone=True)[1] == {"every document answers the query": 1}
    assert len(grouped(judged(("b", True)), alone=False)[0]) == 1


def groups(n: int = 40) -> list[Group]:
    return [Group(f"q{i}", (f"yes {i}",), (f"no {i}", f"nor {i}"), f"s{i // 2}") for i in range(n)]


def test_no_source_is_on_two_sides_and_the_seed_decides() -> None:
    parts = rerank_rows.split(groups(), [0.1, 0.3], 0)
    sources = [{group.source for group in part} for part in parts]
    assert [len(s) for s in sources] == [12, 2, 6] and not any(
        a & b for a, b in itertools.combinations(sources, 2)
    )
    assert parts == rerank_rows.split(groups(), [0.1, 0.3], 0) != rerank_rows.split(groups(), [0.1, 0.3], 1)


def test_pairs_and_candidates_never_take_a_query_s_own_document_for_a_stranger() -> None:
    given = groups(8)
    pairs = rerank_rows.pairs(given, most=1, others=2, seed=0)
    assert len(pairs) == 8 * 3
    for g, yes, no in pairs:
        assert yes == f"yes {g}" and no != yes
    lists = rerank_rows.candidates(given, 9, 0)
    assert all(len(documents) == len(set(documents)) == 9 and sum(right) == 1 for documents, right in lists)
    assert len({right.index(True) for _, right in lists}) > 1, "no place is always the right one"
    assert len(rerank_rows.candidates(given[:1], 9, 0)[0][0]) == 3, "there is nothing to fill it up with"


# --- features and ids ---------------------------------------------------------------------------------------


def test_features_by_hand() -> None:
    rarity = Rarity.of(TEXTS)
    assert rarity.documents == 4 and rarity.mean == 13 / 4
    idf = math.log(1 + (4 - 2 + 0.5) / 2.5)
    assert rarity.idf("cat") == pytest.approx(idf) and rarity.idf("zebra") == pytest.approx(math.log(10))
    found = features("Cat ran", "the cat ran, the cat ran", rarity)
    assert found[:4] == pytest.approx([1.0, 2 / 3, 2 / 3, 1.0])
    spread = 0.25 + 0.75 * 6 / 3.25
    assert found[4] == pytest.approx(2 / (2 + 1.5 * spread)), "one share, since both words stand there twice"
    assert features("ran cat", "the cat ran", rarity)[3] == 0.0
    assert features("?", "the cat", rarity) == features("cat", "", rarity) == [0.0] * 5
    assert [rarity.level(word, 4) for word in ("the", "cat", "zebra")] == sorted(
        rarity.level(word, 4) for word in ("the", "cat", "zebra")
    )
    assert rarity.level("zebra", 4) == 3


def test_bm25_orders_as_the_index_does() -> None:
    from tinygpt.data.bm25 import BM25

    rarity, index = Rarity.of(TEXTS), BM25(TEXTS)
    ours = [features("the cat ran", text, rarity)[4] for text in TEXTS]
    theirs = index.scores("the cat ran")
    assert np.argsort(ours).tolist() == np.argsort([theirs.get(i, 0.0) for i in range(4)]).tolist()


def test_marks_stand_before_shared_words_and_say_how_rare_they_are() -> None:
    tokenizer, rarity = byte.load(), Rarity.of(TEXTS)
    reading = Reading(tokenizer, rarity, 64)
    [[ids]] = reading.windows("The zebra", ["a Zebra, the end"])
    separator = tokenizer.vocab_size
    marks = {word: separator + 1 + rarity.level(word, 4) for word in ("the", "zebra")}
    at = ids.index(separator)

    def spelled(part: list[int]) -> str:
        names = {marks["the"]: "<the>", marks["zebra"]: "<zebra>"}
        return "".join(names.get(id) or chr(id) for id in part)

    assert spelled(ids[:at]) == "<the>The<zebra> zebra"
    assert spelled(ids[at + 1 :]) == "a<zebra> Zebra,<the> the end" and marks["the"] != marks["zebra"]


def test_long_documents_have_windows_and_the_best_one_counts() -> None:
    scoring = cross(context=32)
    windows = scoring.reading.windows("q" * 40, ["short", "x" * 40, ""])
    assert [len(each) for each in windows] == [1, 3, 1] and all(
        len(ids) <= 32 and ids[16] == byte.load().vocab_size for each in windows for ids in each
    )
    alone = [max(scoring.raw("qq", [part])) for part in ("a" * 29, "b" * 29)]
    assert scoring.raw("qq", ["a" * 29 + "b" * 29])[0] == pytest.approx(max(alone), abs=1e-5)


# --- the loss -----------------------------------------------------------------------------------------------


def test_halves_of_a_row_are_read_as_rows_and_padding_counts_nothing() -> None:
    scoring = cross()
    texts = [("the cat", "a cat sat here"), ("the cat", "no")]
    ids = [scoring.reading.windows(query, [text])[0][0] for query, text in texts]
    scoring.module.lexical_weight = mx.array([1.0, 0.5, -1.0, 2.0, 3.0])
    values = rerank_lexical.differences([("the cat", "a cat sat here", "no")], scoring.rarity).values
    rows: Any = CrossPairs([(ids[0], ids[1])], values)
    assert rows.row_tokens(0) == 2 * len(ids[0]) and rows.longest % 8 == 0
    pad = scoring.tokenizer.pad_id
    batch = CrossSource(rows, most=1, length=rows.longest, batch_size=2, pad_id=pad, seed=None, facts={})[0]
    assert batch.n_targets == 1 and batch.tokens.shape == (2, rows.longest)
    margins = scoring.module.margins(arrays(batch))
    yes, no = (scoring.raw(query, [text])[0] for query, text in texts)
    assert float(margins[0]) == pytest.approx(yes - no, abs=1e-4)
    loss = PairLoss(scoring.module)
    assert float(loss.measure(arrays(batch))) == pytest.approx(math.log1p(math.exp(no - yes)), abs=1e-4)
    right, total = loss.report(arrays(batch))["pairs_right"]
    assert (float(right), float(total)) == (float(yes > no), 1.0)
    trained, told = loss.loss(arrays(batch))
    assert float(trained) == pytest.approx(float(loss.measure(arrays(batch)))) and not told


def test_the_weights_that_a_cross_encoder_begins_with_are_the_best() -> None:
    rng = np.random.default_rng(0)
    true = np.array([2.0, -1.0, 0.5, 0.0, 3.0])
    x = rng.normal(0, 1, (4000, 5))
    x *= np.sign(np.log(1 / rng.random(4000) - 1) + x @ true)[:, None]  # each on the side that was drawn
    found = rerank_lexical.best(x.astype(np.float32))
    assert found == pytest.approx(true, abs=0.3)
    assert all(map(math.isfinite, rerank_lexical.best(np.ones((3, 5), np.float32)))), "told apart by anything"


def test_lexical_rows_are_differences() -> None:
    rarity = Rarity.of(TEXTS)
    rows = rerank_lexical.differences([("cat", "the cat sat", "a bird")], rarity)
    batch = rerank_lexical.Pairs(rows, length=1, batch_size=3, pad_id=0, seed=None, facts={})[0]
    module = Lexical()
    module.weight = mx.array([1.0, 2.0, 3.0, 4.0, 5.0])
    margins = module.margins(arrays(batch)).tolist()
    s = ByWords(module, rarity).raw("cat", ["the cat sat", "a bird"])
    assert margins == pytest.approx([s[0] - s[1], 0, 0], abs=1e-5)
    assert float(PairLoss(module).measure(arrays(batch))) == pytest.approx(
        math.log1p(math.exp(s[1] - s[0])), abs=1e-5
    )


# --- figures ------------------------------------------------------------------------------------------------


def test_figures_by_hand() -> None:
    found = rerank_metrics.measured([0.1, 0.9, 0.5], [True, False, True])
    ideal = 1 + 1 / math.log2(3)
    assert found == pytest.approx(
        {"mrr@10": 1 / 2, "ndcg@10": (1 / math.log2(3) + 1 / 2) / ideal, "hit@1": 0}
    )
    far = rerank_metrics.measured([-i for i in range(12)], [False] * 11 + [True])
    assert set(far.values()) == {0.0}, "behind the tenth"
    assert rerank_metrics.order([1.0, 2.0, 1.0]) == [1, 0, 2]


def test_chance_is_the_mean_over_all_orders() -> None:
    right = [True, True, False, False, False]
    told = rerank_metrics.chance(right)
    orders = [rerank_metrics.measured(scores, right) for scores in itertools.permutations(range(5))]
    for name, value in told.items():
        assert value == pytest.approx(sum(one[name] for one in orders) / len(orders)), name


def test_the_report_pairs_queries() -> None:
    test = [Group(f"cat {i}", (f"a cat {i}",), (f"cat {i} cat {i}", f"dog {i}"), f"s{i}") for i in range(30)]

    def scores(query: str, documents: Any) -> list[float]:
        return [float(text == f"a {query}") for text in documents]

    found = _rerank_report.report(scores, test, candidates=5, seed=0)
    assert found["metrics"]["hit@1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    bm25 = found["baselines"]["bm25"]["mrr@10"]
    assert bm25["value"] < 1 and bm25["lead"]["value"] == pytest.approx(1 - bm25["value"])
    assert bm25["lead"]["clear"] and found["documents"] == {"least": 5, "most": 5, "mean": 5}
    assert found["baselines"]["random"]["hit@1"]["value"] == pytest.approx(1 / 5)
    same = _rerank_report.report(scores, test, candidates=0, seed=0)
    assert same["documents"]["most"] == 3


def test_probabilities_are_those_that_drew_the_labels() -> None:
    rng = np.random.default_rng(0)
    s = rng.normal(0, 2, 4000)
    y = rng.random(4000) < 1 / (1 + np.exp(-(0.5 * s - 1)))
    values = {str(i): float(s[i]) for i in range(len(s))}
    judged = [("q", str(i), bool(y[i])) for i in range(len(s))]
    found = rerank.fitted(lambda _, documents: [values[d] for d in documents], judged)
    assert found.slope == pytest.approx(0.5, rel=0.1) and found.intercept == pytest.approx(-1, abs=0.1)
    assert found.documents == 4000
    assert rerank.fitted(lambda _, documents: [1.0] * len(documents), [("q", "a", True)]) == Platt()
    turned = rerank.fitted(lambda _, documents: [-values[d] for d in documents], judged)
    assert 0 < turned.slope <= 1e-3, "no order is turned round"


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lexical", "cross-encoder"])
def test_what_is_saved_scores_the_same(kind: str, tmp_path: Path) -> None:
    lexical = Lexical()
    lexical.weight = mx.array([1.0, -2.0, 0.5, 3.0, 4.0])
    scoring: Any = ByWords(lexical, Rarity.of(TEXTS)) if kind == "lexical" else cross()
    made = Reranker(scoring, Platt(slope=2.0, intercept=-0.5, documents=7))
    rerank.save(tmp_path / "r", made, report={"a": 1})
    back = Reranker.open(tmp_path / "r")
    assert back.kind == kind and back.platt == made.platt and back.name == "r"
    assert back.scores("the cat", TEXTS) == pytest.approx(made.scores("the cat", TEXTS), abs=1e-5)
    p = back.probabilities("the cat", TEXTS)
    assert [1 / (1 + math.exp(-z)) for z in back.scores("the cat", TEXTS)] == pytest.approx(p)
    assert back.scores("the cat", []) == []


def test_the_originals_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tinygpt-rerank"
    path.write_text('{"weights": [1, 0.5, 0, 2], "bias": -0.25}', encoding="utf-8")
    found = Reranker.open(path)
    assert found.scores("cat sat", ["the cat sat", "a bird"]) == pytest.approx(
        [1 + 0.5 * 2 / 3 + 2 - 0.25, -0.25]
    )
    for weights, more in (("[1, 2]", ', "bias": 0'), ('[1, 2, 3, "x"]', ', "bias": 0'), ("[1, 2, 3, 4]", "")):
        wrong = f'{{"weights": {weights}{more}}}'
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(CheckpointError, match="no reranker"):
            Reranker.open(path)


def test_what_is_no_reranker_is_told(tmp_path: Path) -> None:
    rerank.save(tmp_path / "r", Reranker(ByWords(Lexical(), Rarity.of(TEXTS))))
    config = tmp_path / "r" / "config.json"
    told = json.loads(config.read_text())
    for change, said in (
        ({"kind": "other"}, "unknown"),
        ({"features": []}, "features"),
        ({"rarity": {}}, "rarity"),
    ):
        path = tmp_path / said
        with pytest.raises((CheckpointError, DataError), match=said):
            _rewritten(path, tmp_path / "r", {**told, **change})
            Reranker.open(path)


def _rewritten(path: Path, source: Path, told: dict[str, Any]) -> None:
    """The same directory with another config, sealed again."""
    import shutil

    from tinygpt.model import checkpoint

    shutil.copytree(source, path)
    (path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    (path / checkpoint.MANIFEST).unlink()
    checkpoint.seal(path, kind="classifier", purpose="rerank")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tokenizer": "x"}, "lexical"),
        ({"dropout": 0.1}, "lexical"),
        ({"blocks": {"hidden_size": 8}}, "lexical"),
        ({"z_loss": 0.1}, "reranker"),
        ({"held_out": 0.95}, "leave nothing"),
        ({"held_out": 0.0}, "nothing to report on"),
        ({"val_split": 0.0}, "nothing to watch"),
        ({"test": (Path("t"),), "held_out": 0.3}, "--test"),
        ({"pairs": 0, "others": 0}, "no pair"),
        ({"candidates": -1}, "--candidates"),
        ({"kind": "cross-encoder", "context": 8}, "--context"),
    ],
)
def test_what_does_not_go_together(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Config(data=(Path("x"),), **given)


def test_each_kind_has_its_amounts() -> None:
    assert Config(data=(Path("x"),)).amounts == (1000, 256, 0.1)
    assert Config(data=(Path("x"),), kind="cross-encoder", steps=7).amounts == (7, 32, 1e-3)
