"""eval-mteb --tasks through the command, with a stand-in for the package: rows, and errors without any."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import fake_mteb
from e2e.shell import refused, tinygpt
from fake_openai import FakeOpenAI, Reply
from tinygpt.core.rows import read_rows

CALL = ("eval-mteb", "fake", "--tries", 1, "--url")


def server(said: Any = None) -> FakeOpenAI:
    """Its embedding of a text is how often each of three letters stands in it."""

    def answer(path: str, body: dict[str, Any]) -> Reply:
        if path.endswith("/models"):
            return {"data": [{"id": "fake"}]}
        vectors = [[float(text.count(letter)) for letter in "abc"] for text in body["input"]]
        return said or {"data": [{"index": i, "embedding": v} for i, v in enumerate(vectors)]}

    return FakeOpenAI(answer)


def test_tasks_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_mteb.install(monkeypatch)
    out = tmp_path / "rows.jsonl"
    with server().serving() as fake:
        done = tinygpt(
            *CALL, fake.url, "--tasks", "STSOwn,BEIR/scifact", "--limit", 1, "--out", out, "--json"
        )
    assert done.code == 0 and done.json[1]["subtask"] == "SciFact", done.err
    rows, invalid = read_rows(out)
    assert not invalid and [(row.metric, row.score, row.n_examples) for row in rows] == [
        ("cosine_spearman", 1.0, 1), ("ndcg_at_10", 1.0, 1)
    ]  # fmt: skip
    assert {(row.model_name, row.harness_version, row.n_failed) for row in rows} == {("fake", "mteb 9.9", 0)}


def test_what_fails_gives_a_line_and_no_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_mteb.install(monkeypatch)
    out = tmp_path / "rows.jsonl"
    with server().serving() as fake:
        call = (*CALL, fake.url, "--out", out, "--tasks")
        refused(tinygpt(*call, "Lost"), "data of Lost cannot be fetched: no route to the hub", hint="HF_HOME")
        refused(tinygpt(*call, "STSOne"), "no task 'STSOne'", hint="mteb available-tasks")
        refused(tinygpt(*call[:-1]), "nothing to measure", hint="--tasks NAME")
        monkeypatch.setitem(sys.modules, "mteb", None)
        refused(tinygpt(*call, "STSOwn"), "needs the package 'mteb'", hint="pip install 'tinygpt[mteb]'")
    fake_mteb.install(monkeypatch)
    for said in ((500, {}, {"error": "no"}), {"data": []}):
        with server(said).serving() as fake:
            refused(tinygpt(*CALL, fake.url, "--out", out, "--tasks", "STSOwn"))
    assert not out.exists()
