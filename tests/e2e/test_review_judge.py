"""eval-review with a judge, through the command: behind a server, one that breaks, one of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import row_suites
from e2e.shell import refused, tinygpt
from fake_openai import FakeOpenAI, Reply, chat
from serving import tiny_chat_model
from tinygpt.core.rows import beside, read_rows

WHAT = {"line": 2, "category": "bug"}


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    rows = [{"code": f"a{i}\nb", "planted_issues": [WHAT], "found_issues": [WHAT]} for i in range(4)]
    return row_suites.write("review", tmp_path, rows)


def judge(said: Any) -> FakeOpenAI:
    def answer(path: str, body: dict[str, Any]) -> Reply:
        return {"data": [{"id": "judge"}]} if path.endswith("/models") else said(body)

    return FakeOpenAI(answer)


def test_a_judge_behind_a_server(reviews: Path, tmp_path: Path) -> None:
    for word, score in (("YES", 1.0), ("NO", 0.0)):
        out = tmp_path / word / "rows.jsonl"
        out.parent.mkdir()
        with judge(lambda body, word=word: chat(word)).serving() as fake:
            done = tinygpt("eval-review", "--predictions", reviews, "--judge-url", fake.url, "--out", out)
        assert done.code == 0, done.err
        rows = {(row.task, row.metric): row for row in read_rows(out)[0]}
        assert rows["review", "recall"].score == 1.0 and rows["review_judge", "kappa"].n_examples == 8
        for metric in ("recall", "precision", "agreement"):
            assert rows["review_judge", metric].score == score
        assert rows["review_judge", "recall"].model_name == "review"
        assert rows["review_judge", "recall"].settings["judge"]["name"] == "judge"
        records = [json.loads(line) for line in beside(out).read_text().splitlines()]
        assert {record["run_id"] for record in records} == {rows["review", "f1"].run_id}
        assert len(records) == 4 + 8


def test_an_error_of_the_judge_ends_the_command(reviews: Path, tmp_path: Path) -> None:
    def third(body: dict[str, Any]) -> Reply:
        odd = "a2" in body["messages"][0]["content"]
        return (400, {}, {"error": {"message": "no"}}) if odd else chat("YES")

    out = tmp_path / "rows.jsonl"
    with judge(third).serving() as fake:
        call = ("eval-review", "--predictions", reviews, "--judge-url", fake.url, "--out", out)
        done = tinygpt(*call)
        assert done.code == 2 and "2 answers failed to come" in done.err
        assert {row.n_failed for row in read_rows(out)[0] if row.task == "review_judge"} == {2}
        assert tinygpt(*call, "--max-errors", 2).code == 0
    out.unlink()
    with judge(lambda body: (500, {}, {"error": "no"})).serving() as fake:
        refused(tinygpt(*call[:3], "--judge-url", fake.url, "--out", out), "HTTP 500")
    refused(tinygpt(*call[:3], "--judge-url", "http://127.0.0.1:9", "--out", out), "does not answer")
    refused(tinygpt(*call[:3], "--judge", tmp_path / "none", "--out", out), "there is nothing at")
    assert not out.exists()


def test_a_judge_of_this_machine(reviews: Path, tmp_path: Path) -> None:
    """It can say YES and NO alone, so that each of its verdicts can be read."""
    model = tiny_chat_model(tmp_path, context=600)
    done = tinygpt("eval-review", "--predictions", reviews, "--judge", model, "--json")
    assert done.code == 0, done.err
    rows = {row["metric"]: row for row in done.json if row["task"] == "review_judge"}
    assert rows["agreement"]["n_examples"] == 8 and rows["agreement"]["settings"]["unreadable_verdicts"] == 0
