"""The package mteb itself, where it is installed: tasks of our own, and its figures beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import row_suites
from e2e.shell import refused, tinygpt
from scripted import ScriptedEndpoint
from serving import serve, tiny_chat_model
from tinygpt.core.rows import read_rows
from tinygpt.eval.suites import mteb

pytestmark = pytest.mark.parity


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("mteb", reason="the extra mteb is not installed")
    import mteb_tasks

    mteb_tasks.register(monkeypatch, tmp_path)


def run(**settings: Any) -> dict[Any, Any]:
    config = mteb.Config(**settings)
    found = mteb.score(ScriptedEndpoint(lambda _: ""), mteb.load(config), config)
    return {(row.subtask, row.metric): row for row in found.rows}


def test_its_figures_are_those_of_the_same_data_in_files(tmp_path: Path) -> None:
    data = (row_suites.beir(tmp_path / "beir"), row_suites.write("sts", tmp_path))
    found = run(data=data, tasks=("OwnSTS", "OwnRetrieval", "OwnClasses"))
    score, ours = found["OwnRetrieval", "ndcg_at_10"], found["beir", "ndcg_at_10"]
    assert score.score == pytest.approx(ours.score, abs=1e-5) and score.n_examples == ours.n_examples == 2
    assert found["OwnSTS", "cosine_spearman"].score == found["sts", "spearman"].score == 1.0
    assert found["OwnClasses", "accuracy"].score == 1.0 and score.harness_version.startswith("mteb 2.")
    assert run(tasks=("OwnRetrieval",), limit=1)["OwnRetrieval", "ndcg_at_10"].n_examples == 1
    assert run(tasks=("own/ownsts",), limit=3)["OwnSTS", "cosine_spearman"].n_examples == 3


def test_a_task_reads_files_by_itself(tmp_path: Path) -> None:
    """Through mteb's own loading, of a folder in the place of a repository."""
    found = run(tasks=("OwnFolder",))["OwnFolder", "cosine_spearman"]
    assert found.score == 1.0 and found.n_examples == 4


def test_a_model_here_and_served(tmp_path: Path) -> None:
    model, found = tiny_chat_model(tmp_path), dict[str, Any]()
    words = ("--tasks", "OwnSTS,OwnRetrieval")
    with serve(model, tmp_path, "--no-lock") as live:
        for name, who in (("here", [model]), ("there", ["--url", live.url])):
            out = tmp_path / f"{name}.jsonl"
            done = tinygpt("eval-mteb", *who, *words, "--out", out, "--json")
            assert done.code == 0, done.err
            found[name] = [(r.subtask, r.metric, r.score, r.data_version) for r in read_rows(out)[0]]
    assert found["here"] == found["there"] and len(found["here"]) == 2
    out = tmp_path / "none.jsonl"
    refused(tinygpt("eval-mteb", model, "--tasks", "OwnLost", "--out", out), "OwnLost cannot be fetched")
    refused(tinygpt("eval-mteb", model, "--tasks", "OwnNone", "--out", out), "no task 'OwnNone'")
    assert not out.exists()
