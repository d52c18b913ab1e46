"""Review: planted issues in code, found when a report has their place and their category.

A reported issue matches a planted one of the same file and category within `lines` lines; each matches once,
as many as can be. Over all rows: `precision = matched / reported`, `recall = matched / planted`,
`f1 = 2 matched / (reported + planted)`, each 0 where nothing can be matched but something should; `accuracy`
is the share of rows where both lists agree. Issues that are plain texts match when they are equal.

Place and category are what counts. A judge, a second model, may be asked beside them whether reports mean the
planted issues in whatever words: task `review_judge`, with how far it agrees with the matching.

Paper: van Rijsbergen 1979, Information Retrieval, chapter 7 (precision, recall, F); Berge 1957 (matching).
Differs: nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.suites import _review_judge, _rows
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, of_all, record, share

SHAPE = "{code, planted_issues: [{line, category, file?} | text], found_issues?}"
ASK = (
    "Review this code. List each defect once.\n\n{code}\n\nCategories: {categories}.\n"
    'Answer with a JSON array of objects {{"file", "line", "category"}} and nothing else; [] where none is.'
)
ARRAY = re.compile(r"\[.*\]", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Config(_rows.Asking):
    """Knobs of the review suite."""

    data: Annotated[Path, "JSONL with {code, planted_issues: [{line, category, file?}], found_issues?}."]
    lines: Annotated[int, "How many lines a report may be off."] = 3
    max_tokens: Annotated[int, "Longest answer in tokens."] = 512
    judge: Annotated[
        Path | None, "A model that judges the reports, too; with --judge-url the server's name for it."
    ] = None
    judge_url: Annotated[
        str, "An OpenAI-compatible server with the judge; without --judge its first model."
    ] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lines < 0:
            raise ConfigError(f"'lines' must not be negative, got {self.lines}")


def load(config: Config) -> Examples:
    """The pieces of code; a model is told every category of the file."""
    found = _rows.load(config, _item, SHAPE)
    kinds = sorted({issue["category"] for item in found.items for issue in item["planted"]})
    for item in found.items:
        if code := item["code"]:
            asked = ASK.format(code=_numbered(code), categories=", ".join(kinds))
            item["messages"] = _rows.question(asked)
    return _rows.of(found.items, found.notes)


def _item(row: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(row.get("planted_issues"), list):
        raise DataError("no list of 'planted_issues'")
    planted = [_issue(one) for one in row["planted_issues"]]
    if None in planted:
        raise DataError("a planted issue is neither a text nor {line, category}")
    given = (
        {_rows.GIVEN: json.dumps(row["found_issues"])} if isinstance(row.get("found_issues"), list) else {}
    )
    code = row.get("code") or row.get("diff") or ""
    return {"messages": [], "code": str(code), "planted": planted} | given


def _numbered(code: str) -> str:
    return "\n".join(f"{i}: {line}" for i, line in enumerate(code.split("\n"), 1))


def _issue(one: Any) -> dict[str, Any] | None:
    """An issue with its place; None for what is none. A text alone is a category without place."""
    if isinstance(one, str):
        return {"file": "", "line": None, "category": one.strip().casefold()}
    if not isinstance(one, dict) or not isinstance(one.get("category"), str):
        return None
    line = one.get("line")
    if not isinstance(line, int) or isinstance(line, bool):
        return None
    told = {"file": str(one.get("file") or ""), "line": line, "category": one["category"].strip().casefold()}
    said = one.get("description")  # for a judge
    return told | ({"description": said} if isinstance(said, str) and said else {})


def gold(example: dict[str, Any]) -> str:
    """The planted issues, reported."""
    texts = [one["category"] if one["line"] is None else one for one in example["planted"]]
    return json.dumps(texts)


def predicted(example: dict[str, Any]) -> str | None:
    """The issues that the row brings."""
    return example.get(_rows.GIVEN)


def score(
    endpoint: Endpoint, examples: Examples, config: Config, *, judge: Endpoint | None = None
) -> SuiteResult:
    """Four rows: accuracy, precision, recall, f1; with a judge those of `review_judge`, too."""
    clock = Clock()
    found = []
    reviews: list[_review_judge.Reviewed] = []
    replies = _rows.answers(endpoint, examples, config.max_tokens)
    for item, reply in zip(examples.items, replies, strict=True):
        reported = _reported(reply.answer)
        planted, told = item["planted"], reported or []
        pairs = _matched(planted, told, config.lines)
        matched = len(pairs)
        same = reported is not None and matched == len(planted) == len(told)
        if not reply.error:
            about = {"id": item["id"], "code": _numbered(item["code"])}
            reviews.append(_review_judge.Reviewed(**about, planted=planted, reported=told, matched=pairs))
        counts = {"matched": matched, "reported": len(told), "planted": len(planted)}
        more = {"readable": reported is not None, "expected": planted, "got": told}
        found.append(record(item["id"], same, reply, **counts, **more))
    unreadable = sum(not one["readable"] and not one.get("error") for one in found)
    told = {"settings": _rows.settings(config, examples, unreadable=unreadable)}
    at = (clock.seconds(), examples.version)
    rows = [share(endpoint, "review", "accuracy", found, *at, **told)]
    for metric, keys in (
        ("precision", ["reported"]),
        ("recall", ["planted"]),
        ("f1", ["reported", "planted"]),
    ):

        def part(one: dict[str, Any], keys: list[str] = keys) -> tuple[int, int, bool]:
            clean = not (one["planted"] or one["reported"]) and one["readable"]
            return len(keys) * one["matched"], sum(one[k] for k in keys), clean

        rows.append(of_all(endpoint, "review", metric, found, *at, "ratio", part, **told))
    if judge is not None:
        judged = _review_judge.score(endpoint, judge, reviews, examples.version, told["settings"])
        rows += judged.rows
        found += judged.examples
    return SuiteResult(rows=rows, examples=found)


def _reported(answer: str) -> list[dict[str, Any]] | None:
    """The issues of an answer; None where it holds no list. An entry that is no issue is a false report."""
    held = ARRAY.search(answer)
    try:
        given = json.loads(held.group()) if held else None
    except (ValueError, RecursionError):
        return None
    nothing = {"file": "", "line": None, "category": ""}
    if not isinstance(given, list):
        return None
    told = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in given]
    return [(_issue(one) or nothing) | {"text": said} for one, said in zip(given, told)]


def _matched(
    planted: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], lines: int
) -> dict[int, int]:
    """The most pairs in which each issue stands once (augmenting paths, Berge 1957): the number of a report,
    and that of its planted issue."""

    def fit(a: dict[str, Any], b: dict[str, Any]) -> bool:
        if a["category"] != b["category"] or (a["line"] is None) != (b["line"] is None):
            return False
        return a["file"] == b["file"] and (a["line"] is None or abs(a["line"] - b["line"]) <= lines)

    taken: dict[int, int] = {}

    def place(i: int, seen: set[int]) -> bool:
        for j in range(len(found)):
            if j in seen or not fit(planted[i], found[j]):
                continue
            seen.add(j)
            if j not in taken or place(taken[j], seen):
                taken[j] = i
                return True
        return False

    for i in range(len(planted)):
        place(i, set())
    return taken
