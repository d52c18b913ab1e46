"""The few names of the package mteb that we use, as modules: two tasks whose data need nothing."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest


class Rows(list[dict[str, Any]]):
    """Rows as datasets has them."""

    def select(self, numbers: Any) -> Rows:
        return Rows(self[i] for i in numbers)

    def filter(self, keep: Any) -> Rows:
        return Rows(row for row in self if keep(row))

    def __getitem__(self, at: Any) -> Any:
        return [row[at] for row in self] if isinstance(at, str) else super().__getitem__(at)


class Task:
    """A task; `data` is what it loads, by split, or an error."""

    def __init__(self, name: str, type: str, score: str, data: Any, **more: Any) -> None:
        told = {"name": name, "type": type, "main_score": score, "modalities": ["text"]}
        told |= {"eval_splits": ["test"], "dataset": {"path": f"own/{name}", "revision": "abc"}}
        self.metadata, self.hf_subsets = SimpleNamespace(**{**told, **more}), ["default"]
        self._data, self.dataset = data, dict[str, Any]()

    def load_data(self) -> None:
        if isinstance(self._data, Exception):
            raise self._data
        self.dataset = {"test": self._data() if callable(self._data) else self._data}


def _pairs() -> Rows:
    texts = [("a", "a", 5), ("ab", "a", 4), ("abb", "a", 3), ("b", "a", 0)]
    return Rows({"sentence1": a, "sentence2": b, "score": n} for a, b, n in texts)


def _retrieval() -> dict[str, Any]:
    return {
        "corpus": Rows({"id": f"p{i}", "text": text} for i, text in enumerate(("aa", "cc"))),
        "queries": Rows({"id": f"q{i}", "text": text} for i, text in enumerate(("none", "a", "c"))),
        "relevant_docs": {"q1": {"p0": 1}, "q2": {"p1": 1, "p0": 0}, "q0": {"p0": 0}},
    }  # fmt: skip


def tasks() -> dict[str, Task]:
    member = Task("SciFact", "Retrieval", "ndcg_at_10", _retrieval)
    made = [
        Task("STSOwn", "STS", "cosine_spearman", _pairs), member,
        Task("Lost", "STS", "cosine_spearman", ConnectionError("no route\nto the hub")),
        Task("Empty", "STS", "cosine_spearman", Rows()),
        Task("Classes", "Classification", "accuracy", _pairs),
        Task("Pictures", "Any2AnyRetrieval", "ndcg_at_10", _pairs, modalities=["image", "text"]),
        Task("All", "Retrieval", "ndcg_at_10", _pairs, tasks=[member]),
    ]  # fmt: skip
    return {task.metadata.name: task for task in made}


def _texts(rows: Any, key: str) -> list[dict[str, Any]]:
    """Batches as a loader gives them."""
    return [{"text": rows[key][at : at + 2]} for at in range(0, len(rows), 2)]


def evaluate(model: Any, task: Task, *, cache: Any, raise_error: bool, **more: Any) -> Any:
    """The mean similarity of pairs, or the share of queries whose best passage is right."""
    assert cache is None and raise_error, "no score of another day, and no error that is swallowed"
    part, at = (
        task.dataset["test"],
        {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default"},
    )
    if isinstance(part, dict):
        left = model.encode(_texts(part["queries"], "text"), **at, prompt_type="query")
        right = model.encode(_texts(part["corpus"], "text"), **at)
        best = np.argmax(model.similarity(left, right), axis=1)
        right_ones = [part["relevant_docs"][q].get(f"p{i}", 0) for q, i in zip(part["queries"]["id"], best)]
        value = sum(right_ones) / len(right_ones)
    else:
        both = [model.encode(_texts(part, f"sentence{i}"), **at) for i in (1, 2)]
        value = float(np.mean(model.similarity_pairwise(*both)))
    scores = [{"hf_subset": "default", "main_score": value}]
    return SimpleNamespace(task_results=[SimpleNamespace(scores={"test": scores})])


def install(monkeypatch: pytest.MonkeyPatch, **more: Any) -> dict[str, Task]:
    """Have `import mteb` find this."""
    known = tasks()
    names = {
        "mteb": {"__version__": "9.9", "get_task": lambda name: known[name], "evaluate": evaluate,
                 "get_tasks": lambda **_: list(known.values()), **more},
        "mteb.models": {},
        "mteb.models.model_meta": {"ModelMeta": SimpleNamespace(create_empty=lambda told: told)},
        "mteb.similarity_functions": {
            "cos_sim": lambda a, b: a @ b.T, "pairwise_cos_sim": lambda a, b: (a * b).sum(axis=1),
        },
    }  # fmt: skip
    for name, held in names.items():
        module = ModuleType(name)
        vars(module).update(held)
        monkeypatch.setitem(sys.modules, name, module)
    return known
