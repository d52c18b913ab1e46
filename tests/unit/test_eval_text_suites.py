"""Suites over texts: shortened contexts, orders of passages, answers out of passages, vectors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import row_suites
from row_suites import figures, played
from scripted import ScriptedEndpoint
from tinygpt.core.errors import DataError, UnsupportedError
from tinygpt.eval.playback import Playback
from tinygpt.eval.suites import mteb, rerank, scaledown, xquad

# Shortened contexts, orders, pieces of text


def test_scaledown_by_hand(tmp_path: Path) -> None:
    def row(answer: str, kept: str) -> dict[str, Any]:
        return {"question": "how many", "context": "there are 15 or 5 of ten", "answer": answer, "kept": kept}

    rows = [row("5", "there are 15"), row("5", "or 5"), row("15 or 5", "15 or, 5 of")]
    found = played("scaledown", tmp_path, [*rows, row("twenty", "")])
    assert [one["retained"] for one in found.examples] == [False, True, True]
    assert figures(found) == pytest.approx(
        {(None, "answer_retained"): 2 / 3, (None, "kept_ratio"): (3 + 2 + 4) / 21}
    )
    assert "the answer does not stand in the context" in found.rows[0].settings["notes"][0]
    config = scaledown.Config(data=row_suites.write("scaledown", tmp_path, rows))
    asked = scaledown.score(ScriptedEndpoint(lambda _: "It is 5."), scaledown.load(config), config)
    assert figures(asked)[(None, "answered")] == pytest.approx(2 / 3)
    assert "or 5\n\nQuestion: how many" in scaledown.load(config).items[1]["messages"][0]["content"]
    rows[0]["kept"] = "other"
    row_suites.write("scaledown", tmp_path, rows)
    assert scaledown.load(config).version == asked.rows[0].data_version, "another text of the same data"


def test_sentences_are_kept_by_score_and_share(tmp_path: Path) -> None:
    context = "Rain fell. The red fox ran home. A red hen. Snow fell too."

    def kept(**settings: Any) -> str:
        return scaledown.shorten(context, "red fox", scaledown.Config(data=tmp_path, **settings))

    assert kept(keep_frac=0.01) == "The red fox ran home."
    assert kept(keep_frac=0.65) == "The red fox ran home. A red hen."
    assert kept(keep_frac=0.65, threshold=0.9) == "The red fox ran home."
    assert kept(keep_frac=1.0) == context
    assert scaledown.shorten(context, "blue", scaledown.Config(data=tmp_path, keep_frac=0.2)) == "Rain fell."


def test_orders_by_hand_and_bm25_without_a_model(tmp_path: Path) -> None:
    config = rerank.Config(data=row_suites.write("rerank", tmp_path))
    examples = rerank.load(config)
    assert figures(played("rerank", tmp_path, row_suites.ROWS["rerank"](tmp_path))) == {
        (None, "mrr"): 1.0, (None, "pairwise_accuracy"): 1.0
    }  # fmt: skip
    assert len({item["positive"] for item in examples.items}) > 1, "no place is always the right one"
    places = [item["positive"] + 1 for item in examples.items]
    others = [next(i for i in range(1, 5) if i != place) for place in places]
    texts = [f"[{places[0]}]", f"[{others[1]}] > [{places[1]}]", f"{others[2]}", "no order", "[9] [0]"]
    by_prompt = {repr(item["messages"]): text for item, text in zip(examples.items, texts, strict=True)}
    found = rerank.score(ScriptedEndpoint(lambda prompt: by_prompt[repr(prompt)]), examples, config)
    assert [one["rank"] for one in found.examples][:3] == [1, 2, 4]
    assert figures(found) == pytest.approx(
        {(None, "mrr"): (1 + 1 / 2 + 1 / 4) / 5, (None, "pairwise_accuracy"): (1 + 2 / 3) / 5}
    )
    assert found.rows[0].settings["unreadable"] == 2


def test_answers_are_compared_as_squad_does() -> None:
    assert xquad.words("The  Eiffel-Tower, in a Park!") == ["eiffeltower", "in", "park"]
    assert xquad.words("東京 tower") == ["東", "京", "tower"]
    assert xquad.words("\u0905\u0928\u094d\u0928\u0964") == ["\u0905\u0928\u094d\u0928"]
    assert xquad._f1(["a", "b", "b"], ["b", "b", "c", "d"]) == pytest.approx(2 * 2 / 7)
    assert xquad._f1([], ["b"]) == 0.0


def test_the_best_of_several_answers_counts(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"context": "c", "question": "q", "answers": {"text": ["red fox", "fox"]}, "lang": "en"},
        {"context": "c", "question": "r", "answers": [{"text": "a big red dog"}], "lang": "ta"},
        {"context": "c", "question": "s", "answers": []},
    ]
    config = xquad.Config(data=row_suites.write("xquad", tmp_path, rows))
    found = xquad.score(ScriptedEndpoint(lambda _: "The fox."), xquad.load(config), config)
    assert "2 of 3" in found.rows[0].settings["notes"][0]
    assert figures(found)[(None, "exact_match")] == 0.5 and figures(found)[("en", "f1")] == 1.0
    assert figures(found)[("ta", "f1")] == 0.0


# Embeddings


def test_retrieval_and_likeness_by_hand(tmp_path: Path) -> None:
    data = (row_suites.beir(tmp_path / "beir"), row_suites.write("sts", tmp_path))
    config = mteb.Config(data=data)
    found = mteb.score(ScriptedEndpoint(lambda _: ""), mteb.load(config), config)
    # q1 "aaa" finds p1 (0), p2 (2), p3 (1); q2 "c" finds p3 (1) first.
    ideal = 2 + 1 / math.log2(3)
    assert figures(found) == pytest.approx(
        {("beir", "ndcg_at_10"): ((2 / math.log2(3) + 1 / math.log2(4)) / ideal + 1) / 2,
         ("beir", "recall_at_10"): 1.0, ("sts", "spearman"): 1.0}
    )  # fmt: skip
    assert found.rows[0].n_examples == 2 and found.rows[2].n_examples == 4
    one = mteb.Config(data=data[:1], limit=1)
    assert mteb.score(ScriptedEndpoint(lambda _: ""), mteb.load(one), one).rows[0].n_examples == 1


def test_retrieval_counts_the_first_ten(tmp_path: Path) -> None:
    folder = row_suites.beir(tmp_path / "beir")
    lines = [{"_id": f"p{i}", "text": "a" if i > 3 else "ab"} for i in range(1, 15)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "qrels" / "test.tsv").write_text("q1\t0\tp1\t1\nq1\t0\tp4\t1\n")
    config = mteb.Config(data=(folder,))
    found = figures(mteb.score(ScriptedEndpoint(lambda _: ""), mteb.load(config), config))
    assert found[("beir", "recall_at_10")] == 0.5
    assert found[("beir", "ndcg_at_10")] == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_data_of_embeddings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = row_suites.beir(tmp_path / "beir")
    for text, part in (("q1\tp9\t1\n", "names 1 passages"), ("q9\tp1\t1\n", "judges none"), ("q1 p1\n", "")):
        (folder / "qrels" / "test.tsv").write_text(text + "q1\tp1\tx\n" * (not part))
        with pytest.raises(DataError, match=part or "no query, passage and number"):
            mteb.load(mteb.Config(data=(folder,)))
    (folder / "queries.jsonl").unlink()
    with pytest.raises(DataError, match="lacks queries.jsonl"):
        mteb.load(mteb.Config(data=(folder,)))
    config = mteb.Config(data=(row_suites.write("sts", tmp_path),))
    odd = ScriptedEndpoint(lambda _: "")
    odd.embed = lambda texts: ([[float("nan")] for _ in texts], 0)  # type: ignore[method-assign]
    with pytest.raises(DataError, match="no vectors of one width"):
        mteb.score(odd, mteb.load(config), config)
    with pytest.raises(UnsupportedError, match="no embeddings"):
        mteb.score(Playback(name="given"), mteb.load(config), config)
