"""A reranker end to end: trained, reported on, gone on with, ordering rows, and choosing sentences."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from e2e.shell import good, refused, snapshot, tinygpt

NAMES = ["Kelm", "Arn", "Bost", "Dorf", "Elba", "Fenn", "Gorm", "Hale", "Ilm", "Jura"]
ASKED = {
    "When was {} built?": "It went up in {}.",
    "How tall is {}?": "From foot to roof there are {} metres.",
    "Who made {}?": "The plans came from Mr. {}son.",
}
SMALL = (
    "--set", "blocks.hidden_size=32", "--set", "blocks.num_hidden_layers=1", "--context", 96, "--lr", 0.005,
    "--no-lock", "--no-compile",
)  # fmt: skip


def rows(n: int, seed: int) -> list[dict[str, str]]:
    """Questions that share no word with the sentence that answers them."""
    rng, found = Random(seed), list[dict[str, str]]()
    for i in range(n):
        name = f"{rng.choice(NAMES)}{i}"
        told = {question: answer.format(rng.randint(100, 999)) for question, answer in ASKED.items()}
        question = rng.choice(list(told))
        sentences = [*told.values(), f"People like {name}.", f"A path leads to {name}.", "Rain falls."]
        rng.shuffle(sentences)
        answer = told[question].split()[-1 if question != "How tall is {}?" else -2].rstrip(".")
        context = " ".join([f"{name} is near the sea.", *sentences])
        found.append({"question": question.format(name), "context": context, "answer": answer})
    return found


def write(path: Path, found: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("rerank") / "questions.jsonl", [*rows(200, 0), {"query": "odd"}])  # type: ignore[list-item]


@pytest.fixture(scope="module")
def head(questions: Path) -> Path:
    """A cross-encoder trained on them."""
    out = questions.parent / "head"
    line = ("rerank-train", "--triples", questions, "--kind", "cross-encoder", "--out", out)
    done = good(*line, "--steps", 150, "--batch", 16, *SMALL)
    assert "1 of 201 rows left out" in done.err and "ahead of bm25 by" in done.out
    return out


def test_the_head_is_clearly_ahead_of_bm25_on_queries_it_has_not_seen(head: Path) -> None:
    report: Any = json.loads((head / "final" / "report.json").read_text())
    for name in ("mrr@10", "ndcg@10", "hit@1"):
        one = report["metrics"][name]
        assert one["low"] <= one["value"] <= one["high"], name
        lead = report["baselines"]["bm25"][name]["lead"]
        assert lead["clear"] and lead["low"] > 0, name
    assert report["queries"] == 40 and report["documents"]["least"] == 20
    assert report["kind"] == "cross-encoder" and report["platt"]["documents"] > 50
    good("validate", head / "final")


def test_answers_survive_by_the_head_more_often_than_by_bm25_and_by_place(head: Path, tmp_path: Path) -> None:
    held_out, kept = write(tmp_path / "new.jsonl", rows(60, 1)), dict[str, float]()
    for kind, more in {"head": ("--model", head), "bm25": (), "lead": ()}.items():
        out = tmp_path / f"{kind}.jsonl"
        line = ("compress", "--data", held_out, "--kind", kind, "--ratio", 0.3, *more, "--out", out, "--json")
        told = good(*line).json
        assert told["rows"] == 60 and 0.1 < told["kept_ratio"] <= 0.35
        scored = good("eval-scaledown", "--predictions", out, "--json").json
        figures = {row["metric"]: row["score"] for row in scored}
        assert figures["kept_ratio"] < 0.4
        kept[kind] = figures["answer_retained"]
    assert kept["head"] > 0.8 > 0.5 > max(kept["bm25"], kept["lead"]), kept
    refused(tinygpt("compress", "--data", held_out, "--out", tmp_path / "bm25.jsonl"), "exists")


def test_one_text_from_a_file_and_from_a_pipe(head: Path, tmp_path: Path) -> None:
    text = "Kelm is near the sea. Rain falls. It went up in 512. A path leads to Kelm.\n"
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    line = ("compress", "--query", "When was Kelm built?", "--kind", "head", "--model", head, "--letters", 25)
    assert good(*line, "--in", path).out == "It went up in 512.\n"
    found = good(*line, "--in", "-", "--json", stdin=text).json
    assert found["kept"] == "It went up in 512." and found["of"] == len(text.strip())
    kept = [one for one in found["sentences"] if one["kept"]]
    assert kept[0]["score"] == max(one["score"] for one in found["sentences"])
    out = tmp_path / "b.txt"
    assert "18 of 74 letters" in good(*line, "--doc", path, "--out", out).out
    assert out.read_text() == "It went up in 512.\n"
    refused(tinygpt(*line, "--in", tmp_path / "none"), "cannot read")
    refused(tinygpt(*line, "--in", "-"), "empty")


def triples(path: Path, n: int = 60) -> Path:
    """What answers is short and holds the query's first word; what does not repeats the other."""
    return write(path, [
        {"query": f"alpha{i} common", "pos_doc": f"alpha{i} here", "neg_doc": f"common common common word{i}"}
        for i in range(n)
    ])  # fmt: skip


def test_a_lexical_one_orders_rows_beside_bm25(tmp_path: Path) -> None:
    data = triples(tmp_path / "triples.jsonl")
    line = ("rerank-train", "--triples", data, "--out", tmp_path / "r", "--no-lock", "--no-compile", "--json")
    told = good(*line, "--steps", 60).json
    assert told["report"]["metrics"]["mrr@10"]["value"] > 0.9 and told["report"]["kind"] == "lexical"
    rows_of = good("rerank-eval", "--predictions", data, "--reranker", tmp_path / "r", "--json").json
    figures = {row["metric"]: row for row in rows_of}
    assert figures["mrr"]["score"] == 1.0 and figures["mrr"]["n_examples"] == 60
    bm25 = {r["metric"]: r["score"] for r in good("rerank-eval", "--predictions", data, "--json").json}
    assert figures["mrr_over_bm25"]["score"] == pytest.approx(1.0 - bm25["mrr"]) and len(bm25) == 2
    assert figures["mrr"]["data_version"] == rows_of[2]["data_version"]
    theirs = tmp_path / "a.tinygpt-rerank"
    theirs.write_text('{"weights": [-1, 0, 0, 0], "bias": 0}', encoding="utf-8")
    other = good("rerank-eval", "--predictions", data, "--reranker", theirs, "--json").json
    assert other[0]["data_version"] == rows_of[0]["data_version"]
    refused(tinygpt("rerank-eval", "--predictions", data, "--reranker", tmp_path / "none"), "none")


def test_stopped_and_gone_on_with_it_is_the_same(tmp_path: Path) -> None:
    data = triples(tmp_path / "triples.jsonl", 30)
    for kind, more in {"lexical": ("--no-lock", "--no-compile"), "cross-encoder": SMALL}.items():
        out = tmp_path / kind
        line = ("rerank-train", "--triples", data, "--kind", kind, "--out", out, "--steps", 4, "--batch", 8,
                "--save-every", 2, "--save-history", *more)  # fmt: skip
        good(*line)
        whole = (out / "final" / "model.safetensors").read_bytes()
        for gone in ("final", "steps/000004"):
            for file in (out / gone).iterdir():
                file.unlink()
            (out / gone).rmdir()
        good(*line, "--resume")
        assert (out / "final" / "model.safetensors").read_bytes() == whole, kind
        refused(tinygpt(*line, "--resume", "--pairs", 3), "pairs")


def test_refusals(head: Path, tmp_path: Path) -> None:
    few = write(tmp_path / "few.jsonl", [{"query": "a", "pos_doc": "b", "neg_doc": "c"}])
    before = snapshot(tmp_path)
    refused(tinygpt("rerank-train", "--triples", few, "--out", tmp_path / "r"), "holds no query")
    refused(tinygpt("rerank-train", "--triples", tmp_path / "no.jsonl", "--out", tmp_path / "r"), "no.jsonl")
    refused(tinygpt("rerank-train", "--triples", few, "--tokenizer", "x", "--out", tmp_path / "r"), "lexical")
    refused(tinygpt("rerank-train", "--triples", few, "--out", head), "exists")
    assert snapshot(tmp_path) == before
    line = ("compress", "--query", "q", "--in", few, "--kind", "head", "--model")
    refused(tinygpt(*line, tmp_path), "")
    refused(tinygpt("rerank-eval", head, "--data", few, "--reranker", head), "")
