"""MTEB's measures of embeddings: whether passages are found, and whether likeness is that which people see.

Retrieval: passages are ranked by cosine similarity to a query, `ndcg_at_10 = DCG / ideal DCG` with
`DCG = sum over the first 10 ranks i of relevance / log2(i + 1)`, `recall_at_10` the share of the relevant
passages among them. STS: `spearman`, the rank correlation of cosine similarity and people's scores. Data are
files of this machine (a folder as BEIR has it, or rows of two sentences), or the tasks of the package `mteb`,
which fetches and scores them; their row is its main score.

Paper: Muennighoff et al., EACL 2023, arXiv:2210.07316 (MTEB); Thakur et al. 2021, arXiv:2104.08663 (BEIR).
Differs: no instruction is put before a query; texts longer than the context are cut, and counted in
n_truncated. `ndcg` has gains as trec_eval has them, so both ways agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import to_dict
from tinygpt.core.errors import ConfigError, DataError, UnsupportedError
from tinygpt.data import rows as data_rows
from tinygpt.eval.endpoint import Endpoint, Reply
from tinygpt.eval.suites import _mteb_tasks, _rows
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, mean, of_all, record, version

K = 10
QRELS = "qrels/test.tsv"
BEIR = ("corpus.jsonl", "queries.jsonl", QRELS)
STS = "{sentence1, sentence2, score}"
DONE = Reply(message={}, text="", finish_reason="stop", n_tokens=0)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the embedding suite."""

    data: Annotated[
        tuple[Path, ...], "Folders with corpus.jsonl, queries.jsonl and qrels/test.tsv, or JSONL of pairs."
    ] = ()
    tasks: Annotated[tuple[str, ...], "Tasks of the package mteb, e.g. SciFact,STSBenchmark."] = ()
    limit: Annotated[int, "Use the first so many queries or pairs of each; 0: all."] = 0

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ConfigError(f"'limit' must not be negative, got {self.limit}")
        if not self.data and not self.tasks:
            raise ConfigError("nothing to measure", hint="--data FOLDER or PAIRS.jsonl, or --tasks NAME")
        names = [*(path.stem for path in self.data), *self.tasks]
        if len(set(names)) < len(names):
            raise ConfigError(f"two data sets share a name: {', '.join(names)}", hint="rename one")


def load(config: Config) -> Examples:
    """One item for each data set. What tasks of mteb hold tells their version when it is read."""
    notes: list[str] = []
    items = [(_beir if path.is_dir() else _sts)(path, config.limit, notes) for path in config.data]
    tasks = _mteb_tasks.load(config.tasks, config.limit) if config.tasks else []
    told = [{key: value for key, value in item.items() if key != "task"} for item in tasks]
    return Examples(items=[*items, *tasks], version=version([*items, *told]), notes=tuple(notes))


def _read(path: Path, convert: Any, known: str, notes: list[str]) -> list[Any]:
    def checked(row: Any) -> Any:
        if not isinstance(row, dict):
            raise DataError("the row is no object")
        return convert(row)

    found, report = data_rows.read(path, checked, known=known)
    if report.n_bad:
        notes.append(f"{path.name}: {report.sentence()}")
    return found


def _beir(path: Path, limit: int, notes: list[str]) -> dict[str, Any]:
    if missing := [name for name in BEIR if not (path / name).is_file()]:
        raise DataError(f"{path} lacks {', '.join(missing)}", hint=f"a folder holds {', '.join(BEIR)}")

    def entry(row: dict[str, Any]) -> tuple[str, str]:
        title = str(row.get("title") or "")
        return str(row["_id"]) if "_id" in row else _rows.text(
            row, "id"
        ), f"{title} {_rows.text(row, 'text')}".strip()

    corpus, queries = (dict(_read(path / name, entry, "{_id, text}", notes)) for name in BEIR[:2])
    relevant: dict[str, dict[str, float]] = {}
    for number, line in enumerate((path / QRELS).read_text(encoding="utf-8").splitlines(), 1):
        parts = line.split("\t")
        if number == 1 and not parts[-1].strip().lstrip("-").isdigit():
            continue  # the heading
        if len(parts) not in (3, 4) or not parts[-1].strip().lstrip("-").isdigit():
            raise DataError(f"{path / QRELS}:{number}: no query, passage and number with tabs between")
        if int(parts[-1]) > 0:
            relevant.setdefault(parts[0], {})[parts[-2]] = float(parts[-1])
    asked = {one: text.strip() for one, text in queries.items() if one in relevant}
    if unknown := sum(passage not in corpus for one in asked for passage in relevant[one]):
        raise DataError(f"{path / QRELS} names {unknown} passages that corpus.jsonl lacks")
    if not asked:
        raise DataError(f"{path / QRELS} judges none of the queries", hint="do the ids agree?")
    asked = dict(list(asked.items())[: limit or None])
    wanted = {one: relevant[one] for one in asked}
    return {"name": path.name, "corpus": corpus, "queries": asked, "relevant": wanted}


def _sts(path: Path, limit: int, notes: list[str]) -> dict[str, Any]:
    def pair(row: dict[str, Any]) -> list[Any]:
        if not isinstance(row.get("score"), int | float) or isinstance(row["score"], bool):
            raise DataError("'score' is no number")
        return [_rows.text(row, "sentence1"), _rows.text(row, "sentence2"), float(row["score"])]

    return {"name": path.stem, "pairs": _read(path, pair, STS, notes)[: limit or None]}


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """ndcg_at_10 and recall_at_10 of each folder, spearman of each file of pairs, a task's main score."""
    clock = Clock()
    embed = getattr(endpoint, "embed", None)
    if embed is None:
        raise UnsupportedError(f"{endpoint.name} gives no embeddings")
    rows, found = [], []
    settings = to_dict(config) | {"notes": list(examples.notes)}
    for item in examples.items:
        if "task" in item:
            rows.append(_mteb_tasks.score(endpoint, item, partial(_vectors, embed), settings))
            continue
        told = {"subtask": item["name"]}
        if "pairs" in item:
            likeness, n_cut = _likeness(embed, item["pairs"])
            pairs = [
                record(f"{item['name']}/{i}", True, DONE, likeness=value, score=pair[2])
                for i, (pair, value) in enumerate(zip(item["pairs"], likeness, strict=True))
            ]
            measured: list[Any] = [
                (of_all, "spearman", pairs, {"how": "spearman", "part": _both, "bounded": False})
            ]
            found += pairs
        else:
            ranked, n_cut = _ranked(embed, item)
            queries = [_query(item, one, passages) for one, passages in ranked.items()]
            measured = [(mean, f"{m}_at_{K}", queries, {"key": m}) for m in ("ndcg", "recall")]
            found += queries
        for how, metric, mine, more in measured:
            at = (endpoint, "mteb", metric, mine, clock.seconds(), examples.version)
            row = how(*at, **more, **told, settings=settings | {"texts_cut": n_cut})
            rows.append(replace(row, n_truncated=n_cut))
    return SuiteResult(rows=rows, examples=found)


def _vectors(embed: Any, texts: Sequence[str]) -> tuple[Any, int]:
    """Vectors of length 1 as rows of an array, and how many texts were cut."""
    import numpy as np

    vectors, n_cut = embed(list(texts))
    if (
        len({len(vector) for vector in vectors}) > 1
        or not np.isfinite(found := np.asarray(vectors, float)).all()
    ):
        raise DataError(
            "the embeddings are no vectors of one width and finite numbers", hint="look into the model"
        )
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), n_cut


def _likeness(embed: Any, pairs: Sequence[Any]) -> tuple[list[float], int]:
    left, cut_left = _vectors(embed, [pair[0] for pair in pairs])
    right, cut_right = _vectors(embed, [pair[1] for pair in pairs])
    return [float(x) for x in (left * right).sum(axis=1)], cut_left + cut_right


def _ranked(embed: Any, item: dict[str, Any]) -> tuple[dict[str, list[str]], int]:
    """The first K passages of each query."""
    import numpy as np

    passages, cut = _vectors(embed, list(item["corpus"].values()))
    queries, more = _vectors(embed, list(item["queries"].values()))
    ids = list(item["corpus"])
    best = np.argsort(-(queries @ passages.T), axis=1, kind="stable")[:, :K]
    return {one: [ids[i] for i in row] for one, row in zip(item["queries"], best)}, cut + more


def _query(item: dict[str, Any], one: str, found: Sequence[str]) -> dict[str, Any]:
    relevant = item["relevant"][one]
    gains = [relevant.get(passage, 0.0) for passage in found]
    ideal = sorted(relevant.values(), reverse=True)[:K]
    ndcg = _dcg(gains) / _dcg(ideal)
    recall = sum(passage in relevant for passage in found) / len(relevant)
    return record(f"{item['name']}/{one}", recall > 0, DONE, ndcg=ndcg, recall=recall, found=list(found))


def _dcg(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(i + 2) for i, gain in enumerate(gains))


def _both(one: dict[str, Any]) -> tuple[float, float]:
    return one["likeness"], one["score"]
