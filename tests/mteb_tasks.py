"""Tasks of our own for the package mteb, with the data of row_suites: nothing is fetched."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import row_suites

ABOUT: dict[str, Any] = {
    "description": "ours", "reference": None, "eval_langs": ["eng-Latn"], "eval_splits": ["test"],
    "date": None, "domains": None, "task_subtypes": None, "license": None, "annotations_creators": None,
    "dialect": None, "sample_creation": None, "bibtex_citation": "",
}  # fmt: skip


def register(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let mteb know OwnSTS, OwnRetrieval and OwnClasses for as long as a test runs."""
    import mteb
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskClassification, AbsTaskRetrieval
    from mteb.abstasks.sts import AbsTaskSTS

    def about(name: str, kind: str, score: str, category: str) -> Any:
        source = {"path": f"own/{name}", "revision": "1" * 40}
        told = {"name": name, "type": kind, "main_score": score, "category": category, "dataset": source}
        return mteb.TaskMetadata(**{**ABOUT, **told})

    class OwnSTS(AbsTaskSTS):
        metadata = about("OwnSTS", "STS", "cosine_spearman", "t2t")

        def load_data(self, **kwargs: Any) -> None:
            rows = row_suites.ROWS["sts"](folder)
            self.dataset, self.data_loaded = DatasetDict({"test": Dataset.from_list(rows)}), True

    class OwnRetrieval(AbsTaskRetrieval):
        metadata = about("OwnRetrieval", "Retrieval", "ndcg_at_10", "t2t")

        def load_data(self, **kwargs: Any) -> None:
            corpus = {"p1": "aa", "p2": "ab", "p3": "cc"}
            queries = {"q1": "aaa", "q2": "c", "q3": "unjudged"}
            part = {
                "corpus": Dataset.from_list([{"id": i, "title": "", "text": t} for i, t in corpus.items()]),
                "queries": Dataset.from_list([{"id": i, "text": t} for i, t in queries.items()]),
                "relevant_docs": {"q1": {"p2": 2, "p3": 1, "p1": 0}, "q2": {"p3": 1}}, "top_ranked": None,
            }  # fmt: skip
            self.dataset, self.data_loaded = {"default": {"test": part}}, True

    class OwnClasses(AbsTaskClassification):
        metadata = about("OwnClasses", "Classification", "accuracy", "t2c")
        samples_per_label = n_experiments = 2

        def load_data(self, **kwargs: Any) -> None:
            rows = [{"text": "a" * i, "label": 0} for i in range(1, 5)]
            rows += [{"text": "b" * i, "label": 1} for i in range(1, 5)]
            self.dataset = DatasetDict({s: Dataset.from_list(rows) for s in ("train", "test")})
            self.data_loaded = True

    class OwnLost(AbsTaskSTS):
        metadata = about("OwnLost", "STS", "cosine_spearman", "t2t")

    data = folder / "repository"
    data.mkdir()
    row_suites.write("sts", data).rename(data / "test.jsonl")

    class OwnFolder(AbsTaskSTS):
        metadata = about("OwnFolder", "STS", "cosine_spearman", "t2t")
        metadata.dataset["path"] = str(data)

    names: Any = sys.modules["mteb.get_tasks"]
    made = (OwnSTS, OwnRetrieval, OwnClasses, OwnLost, OwnFolder)
    monkeypatch.setattr(names, "TASK_LIST", made)
    for one in made:
        monkeypatch.setitem(names._TASKS_REGISTRY, one.metadata.name, one)
