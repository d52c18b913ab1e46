"""Tasks of the package mteb: what is asked of it, and what becomes a row.

The package is a stand-in here; tests/parity/test_mteb.py asks the real one where it is installed."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fake_mteb
import row_suites
from row_suites import figures
from scripted import ScriptedEndpoint
from tinygpt.core.errors import ConfigError, DataError, DependencyError, RemoteError
from tinygpt.eval.suites import mteb


def run(*names: str, endpoint: Any = None, **settings: Any) -> Any:
    config = mteb.Config(tasks=names, **settings)
    return mteb.score(endpoint or ScriptedEndpoint(lambda _: ""), mteb.load(config), config)


def test_main_scores_are_rows_beside_those_of_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_mteb.install(monkeypatch)
    found = run("STSOwn", "SciFact", data=(row_suites.write("sts", tmp_path),))
    near = (1 + 1 / math.sqrt(2) + 1 / math.sqrt(5) + 0) / 4
    assert figures(found) == pytest.approx(
        {("sts", "spearman"): 1.0, ("STSOwn", "cosine_spearman"): near, ("SciFact", "ndcg_at_10"): 1.0}
    )
    rows = {row.subtask: row for row in found.rows}
    assert [rows[name].n_examples for name in ("sts", "STSOwn", "SciFact")] == [4, 4, 2], "q0 has no answer"
    assert {rows[name].harness_version for name in ("STSOwn", "SciFact")} == {"mteb 9.9"}
    assert rows["SciFact"].settings["dataset"] == {"path": "own/SciFact", "revision": "abc"}
    assert rows["SciFact"].settings["parts"] == {"test/default": 1.0}
    assert len({row.data_version for row in found.rows}) == 3


def test_other_texts_or_another_revision_are_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    known = fake_mteb.install(monkeypatch)
    versions = [run("STSOwn").rows[0].data_version for _ in range(2)]
    limited = run("STSOwn", limit=3).rows[0]
    assert limited.n_examples == 3
    known["STSOwn"].metadata.dataset["revision"] = "def"
    found = {*versions, limited.data_version, run("STSOwn").rows[0].data_version}
    assert versions[0] == versions[1] and len(found) == 3


def test_a_limit_keeps_judged_queries_and_is_refused_where_it_means_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = fake_mteb.install(monkeypatch)
    assert run("SciFact", limit=1).rows[0].n_examples == 1
    part = known["SciFact"].dataset["test"]
    assert part["queries"]["id"] == ["q1"] and part["relevant_docs"] == {"q1": {"p0": 1}}
    with pytest.raises(ConfigError, match="Classes is a task of Classification"):
        run("Classes", limit=1)
    assert run("Classes").rows[0].metric == "accuracy"


def test_names_as_the_original_has_them_and_unknown_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mteb.install(monkeypatch)
    assert run("BEIR/scifact").rows[0].subtask == "SciFact"
    for name, said in {
        "STSOne": r"no task 'STSOne' Did you mean 'STSOwn'",
        "Pictures": "is about image, text",
        "All": "set of tasks .*SciFact",
    }.items():
        with pytest.raises(ConfigError, match=said):
            run(name)
    with pytest.raises(ConfigError, match="share a name"):
        mteb.Config(tasks=("STSOwn", "STSOwn"))
    with pytest.raises(ConfigError, match="nothing to measure"):
        mteb.Config()


def test_data_that_cannot_be_had_are_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mteb.install(monkeypatch)
    with pytest.raises(DataError, match="data of Lost cannot be fetched: no route to the hub .*HF_HOME"):
        run("Lost")
    with pytest.raises(DataError, match="Empty has no example in test"):
        run("Empty")


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(DependencyError, match=r"needs the package 'mteb' \(pip install 'tinygpt\[mteb\]'\)"):
        run("STSOwn")


def test_texts_that_were_cut_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mteb.install(monkeypatch)
    short, whole = ScriptedEndpoint(lambda _: ""), ScriptedEndpoint(lambda _: "")
    short.embed = lambda texts: (whole.embed(texts)[0], sum(len(t) > 2 for t in texts))  # type: ignore[method-assign]
    row = run("STSOwn", endpoint=short).rows[0]
    assert (row.n_truncated, row.settings["texts_cut"]) == (1, 1)


def test_an_error_is_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(texts: Any) -> Any:
        raise RemoteError("the server is gone")

    def odd(*_: Any, **__: Any) -> Any:
        raise ValueError("two\nlines")

    fake_mteb.install(monkeypatch)
    endpoint = ScriptedEndpoint(lambda _: "")
    endpoint.embed = gone  # type: ignore[method-assign]
    with pytest.raises(RemoteError, match="is gone"):
        run("STSOwn", endpoint=endpoint)
    scores = {"test": [{"hf_subset": "default", "main_score": math.nan}]}
    none = SimpleNamespace(task_results=[SimpleNamespace(scores=scores)])
    for broken, said in (
        (lambda *_, **__: none, "no number for STSOwn"),
        (odd, "cannot score STSOwn: two l"),
    ):
        fake_mteb.install(monkeypatch, evaluate=broken)
        with pytest.raises(DataError, match=said):
            run("STSOwn")
