"""Small files for the suites that read rows: written where a test wants them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from tinygpt.core.family import Family
from tinygpt.eval.playback import Playback

SUITES = Family("tinygpt.eval.suites", verb="score")
FIXTURES = Path(__file__).parents[1] / "evals" / "judgement"


def database(path: Path) -> Path:
    """Three people and their pets."""
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "create table person (id integer primary key, name text, age real);"
            "create table pet (owner integer, kind text);"
            "insert into person values (1, 'Ann', 30.5), (2, 'Bo', 41), (3, 'Cy', null);"
            "insert into pet values (1, 'cat'), (1, 'dog'), (2, 'cat');"
        )
    connection.close()
    return path


def _sql(folder: Path) -> list[dict[str, Any]]:
    database(folder / "people.sqlite")
    queries = [
        "select name from person where age > 35",
        "select name from person order by age desc",
        "select kind, count(*) from pet group by kind",
        "select name, kind from person join pet on owner = id",
        "select avg(age) from person",
    ]
    return [{"question": f"{i}?", "gold_sql": q, "db": "people.sqlite"} for i, q in enumerate(queries)]


def _router(folder: Path) -> list[dict[str, Any]]:
    return [{"query": f"do {i}", "gold_tool": ("find", "find_all", "move")[i % 3]} for i in range(6)]


def _milu(folder: Path) -> list[dict[str, Any]]:
    options = ["one", "two", "three", "four"]
    return [
        {
            "question": f"{i}?",
            "options": options,
            "answer": "ABCD"[i % 4],
            "language": ("Hindi", "Tamil")[i % 2],
        }
        for i in range(6)
    ]


def _review(folder: Path) -> list[dict[str, Any]]:
    kinds = ("bug", "leak")
    return [
        {"code": f"a = {i}\nb = a / 0\n", "planted_issues": [{"line": 2 + i, "category": kinds[i % 2]}]}
        for i in range(4)
    ] + [{"code": "c = 1\nd = 2\n", "planted_issues": ["unclear name", {"line": 1, "category": "bug"}]}]


def _escalate(folder: Path) -> list[dict[str, Any]]:
    return [{"question": f"{i} + {i}?", "local_wrong": i % 2 == 0} for i in range(6)]


def _scaledown(folder: Path) -> list[dict[str, Any]]:
    """The answer of every second row stands in a sentence that shares no word with the question."""
    return [
        {"question": f"Where is cat {i}?", "answer": f"box {i}",
         "context": f"Dogs run all day. Cat {i} {'is in' if i % 2 == 0 else 'sleeps.'} box {i}. It rains."}
        for i in range(4)
    ]  # fmt: skip


def _rerank(folder: Path) -> list[dict[str, Any]]:
    wrong = ["no", "off", "never"]
    return [
        {"query": f"city {i}", "positive": f"the city {i} is large", "negatives": wrong} for i in range(5)
    ]


def _xquad(folder: Path) -> list[dict[str, Any]]:
    names = ("Hindi", "Tamil")
    return [
        {"context": f"The answer is number {i}.", "question": f"{i}?", "answers": [f"number {i}"],
         "language": names[i % 2]}
        for i in range(6)
    ]  # fmt: skip


def _judge(folder: Path) -> list[dict[str, Any]]:
    labels = ("a", "b", "tie")
    return [
        {"prompt": f"{i}?", "response_a": f"first {i}", "response_b": f"second {i}", "label": labels[i % 3]}
        for i in range(6)
    ]


def _sts(folder: Path) -> list[dict[str, Any]]:
    pairs = [("a", "a", 5), ("ab", "a", 4), ("abb", "a", 3), ("b", "a", 0)]
    return [{"sentence1": a, "sentence2": b, "score": score} for a, b, score in pairs]


ROWS = {
    "sts": _sts,
    "judge": _judge,
    "scaledown": _scaledown,
    "rerank": _rerank,
    "xquad": _xquad,
    "sql": _sql,
    "router": _router,
    "milu": _milu,
    "review": _review,
    "escalate": _escalate,
}


def beir(folder: Path) -> Path:
    """Three passages and two queries, of which letters alone tell the right ones."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    corpus = {"p1": "aa", "p2": "ab", "p3": "cc"}
    lines = [{"_id": one, "title": "", "text": text} for one, text in corpus.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    queries = [{"_id": "q1", "text": "aaa"}, {"_id": "q2", "text": "c"}, {"_id": "q3", "text": "unjudged"}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in queries))
    qrels = "query-id\tcorpus-id\tscore\nq1\tp2\t2\nq1\tp3\t1\nq1\tp1\t0\nq2\tp3\t1\n"
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


# What a row brings, where it brings its answer.
GIVEN = {
    "sql": {"predicted_sql": "select 1"},
    "router": {"predicted_tool": "find"},
    "milu": {"predicted": "A", "gold": "B"},
    "review": {"found_issues": []},
    "escalate": {"defer_pred": True},
    "scaledown": {},
    "rerank": {},
}


def given(suite: str, folder: Path) -> Path:
    """The same file, of rows that bring their answers."""
    return write(suite, folder, [{**row, **GIVEN[suite]} for row in ROWS[suite](folder)])


def write(suite: str, folder: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    """A file of rows, those of the suite where none are given."""
    path = folder / f"{suite}.jsonl"
    told = ROWS[suite](folder) if rows is None else rows
    path.write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
    return path


def played(suite: str, folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Any:
    """What a suite makes of rows that bring their answers."""
    module = SUITES.load(suite)
    config = module.Config(data=write(suite, folder, rows), **settings)
    examples, endpoint = module.load(config), Playback(name="given")
    endpoint.answers = [module.predicted(item) for item in examples.items]
    return module.score(endpoint, examples, config)


def figures(result: Any) -> dict[Any, float]:
    """Scores by subtask and metric."""
    return {(row.subtask, row.metric): row.score for row in result.rows}
