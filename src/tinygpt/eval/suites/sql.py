"""SQL: a question about a database, right when the query finds what the reference query finds.

The answer's query and the row's `gold_sql` run on the same SQLite file, and their results are compared as
multisets of rows, in order where the reference orders them. `execution_accuracy` is the share of equal
results, `exact_match` that of equal queries after normalisation (case outside quotes, spaces, the last ";").

Queries run in a process of their own that can only read: the file is opened immutable, an authorizer
refuses what is no reading, and time, memory, rows and the size of values have limits. Each record has a
verdict: right, wrong, error (SQLite's own words), refused, timeout, too_large, crash, no_answer.

Paper: Li et al., NeurIPS 2023, arXiv:2305.03111 (execution accuracy); Yu et al., EMNLP 2018,
arXiv:1809.08887 (Spider).
Differs: rows count as often as they stand there, where BIRD compares sets; numbers are equal to ten digits;
the order of columns matters and their names do not.
"""

from __future__ import annotations

import collections
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.suites import _rows, _sqlite
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, record, share

SHAPE = "{question, schema?, gold_sql, db} or {predicted_sql, gold_sql, db}"
ASK = "{schema}\n\nQuestion: {question}\n\nAnswer with one query for SQLite and nothing else."
FENCE = re.compile(r"```(?:\w*\n)?(.*?)```", re.DOTALL)
QUOTED = re.compile(r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")")
COMMENT = re.compile(rf"{QUOTED.pattern}|--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Config(_rows.Asking):
    """Knobs of SQL."""

    data: Annotated[Path, "JSONL with {question, schema?, gold_sql, db}, or {predicted_sql, gold_sql, db}."]
    db_dir: Annotated[
        Path | None, "Folder of the databases, NAME or NAME/NAME.sqlite; not given: the data's folder."
    ] = None
    seconds_each: Annotated[float, "Longest time for a query."] = 10.0
    max_rows: Annotated[int, "Most rows that a query may find."] = 100_000
    max_tokens: Annotated[int, "Longest answer in tokens."] = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seconds_each <= 0 or self.max_rows < 1:
            raise ConfigError("'seconds_each' and 'max_rows' must be positive")


def load(config: Config) -> Examples:
    """The rows, with what their reference queries find; one whose reference does not run is a bad row."""
    schemas: dict[Path, str] = {}
    with _sqlite.Reader(seconds=config.seconds_each, rows=config.max_rows) as reader:

        def item(row: dict[str, Any]) -> dict[str, Any]:
            query, db = _rows.text(row, "gold_sql"), _database(config, _rows.text(row, "db"))
            found = reader.run(db, query)
            if found["verdict"] != "rows":
                raise DataError(f"the reference query ends in {found['verdict']}: {found['why']}")
            messages = []
            if row.get("question"):
                if not row.get("schema") and db not in schemas:
                    schemas[db] = _sqlite.schema(db)
                told = {"schema": row.get("schema") or schemas[db], "question": _rows.text(row, "question")}
                messages = _rows.question(ASK.format(**told))
            order = "ordered" if _ordered(query) else "unordered"
            given = {_rows.GIVEN: row["predicted_sql"]} if isinstance(row.get("predicted_sql"), str) else {}
            return {
                "messages": messages, "gold": query, "db": row["db"], "order": order, "found": found[order]
            } | given  # fmt: skip

        return _rows.load(config, item, SHAPE)


def _path(config: Config, name: str) -> Path:
    folder = config.db_dir or config.data.parent
    path = next((p for p in (folder / name, folder / name / f"{name}.sqlite") if p.is_file()), None)
    if path is None:
        raise DataError(f"there is no database {folder / name}", hint="--db-dir names their folder")
    return path


def _database(config: Config, name: str) -> Path:
    """A database that can be opened as it lies."""
    path = _path(config, name)
    log = path.with_name(f"{path.name}-wal")
    if log.is_file() and log.stat().st_size:
        raise DataError(f"{path} has changes in {log.name}", hint="close the program that writes to it")
    try:
        _sqlite.schema(path)
    except sqlite3.Error as error:
        raise DataError(f"{path} is no database: {error}") from error
    return path


def gold(example: dict[str, Any]) -> str:
    """The reference query."""
    return example["gold"]


def predicted(example: dict[str, Any]) -> str | None:
    """The query that the row brings."""
    return example.get(_rows.GIVEN)


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """Two rows: execution_accuracy and exact_match."""
    clock = Clock()
    replies = _rows.answers(endpoint, examples, config.max_tokens)
    found = []
    with _sqlite.Reader(seconds=config.seconds_each, rows=config.max_rows) as reader:
        for item, reply in zip(examples.items, replies, strict=True):
            query = _query(reply.answer)
            ran = reader.run(_path(config, item["db"]), query) if query else {"verdict": "no_answer"}
            verdict = ran["verdict"]
            if verdict == "rows":
                verdict = "right" if ran[item["order"]] == item["found"] else "wrong"
            same = _normal(query) == _normal(item["gold"]) and not reply.error
            told = {"verdict": verdict, "same": same, "expected": item["gold"], "got": query}
            told |= {key: ran[key] for key in ("why", "n_rows", "rows") if key in ran}
            found.append(record(item["id"], verdict == "right", reply, **told))
    verdicts = dict(collections.Counter(one["verdict"] for one in found))
    told = {"settings": _rows.settings(config, examples, verdicts=verdicts)}
    at = (found, clock.seconds(), examples.version)
    rows = [
        share(endpoint, "sql", metric, *at, key=key, **told)
        for metric, key in (("execution_accuracy", "correct"), ("exact_match", "same"))
    ]
    return SuiteResult(rows=rows, examples=found)


def _query(answer: str) -> str:
    """The query of an answer: its last fenced block, or all of it."""
    fenced = FENCE.findall(answer)
    return (fenced[-1] if fenced else answer).strip()


def _normal(query: str) -> str:
    parts = QUOTED.split(query.strip().rstrip(";").strip())
    told = [part if i % 2 else re.sub(r"\s+", " ", part.lower()) for i, part in enumerate(parts)]
    return re.sub(r"\s*([(),=<>])\s*", r"\1", "".join(told))


def _ordered(query: str) -> bool:
    """Whether the whole result has an order: "order by" outside quotes, comments and brackets."""
    plain = COMMENT.sub(" ", query)
    while (inner := re.sub(r"\([^()]*\)", " ", plain)) != plain:
        plain = inner
    return re.search(r"\border\s+by\b", plain, re.IGNORECASE) is not None
