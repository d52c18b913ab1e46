"""Router: which of several tools serves a request; accuracy, macro-F1, and a paired lead between methods.

`accuracy` is the share of requests with the right tool, `macro_f1` the mean over the reference's tools t of
2 TP_t / (2 TP_t + FP_t + FN_t), so that rare tools count as much as frequent ones. Predictions of several
methods get both for each (as subtasks), and `lead`: the best method's accuracy minus the second's over the
requests that both answered, with a paired bootstrap; `settings.winner` is empty where its interval holds 0.

Paper: Opitz and Burst 2019, arXiv:1911.03347 (macro-F1 as the mean of F1s); Koehn, EMNLP 2004 (paired
bootstrap).
Differs: an answer that names no tool, or more than one, is wrong and of no class; no class is made of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import DataError
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.paired import difference
from tinygpt.eval.playback import Playback
from tinygpt.eval.suites import _rows
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, of_all, record, row, share

SHAPE = "{query, gold_tool (or tool), tools?} or {method?, predicted_tool, gold_tool, query?}"
ASK = (
    "Tools:\n{tools}\n\nRequest: {query}\n\n"
    "Which tool serves the request? Answer with its name and nothing else."
)


@dataclass(frozen=True, kw_only=True)
class Config(_rows.Asking):
    """Knobs of the router suite."""

    data: Annotated[Path, "JSONL with {query, gold_tool, tools?}, or {method?, predicted_tool, gold_tool}."]


def load(config: Config) -> Examples:
    """The requests; those without tools of their own are asked with every tool of the file."""
    found = _rows.load(config, _item, SHAPE)
    every = sorted({name for item in found.items for name in (item["gold"], *item["tools"])})
    for item in found.items:
        item["tools"] = item["tools"] or dict.fromkeys(every, "")
        if query := item["query"]:
            tools = "\n".join(f"- {name}{told and f': {told}'}" for name, told in item["tools"].items())
            item["messages"] = _rows.question(ASK.format(tools=tools, query=query))
    return _rows.of(found.items, found.notes)


def _item(row: dict[str, Any]) -> dict[str, Any]:
    tools = row.get("tools") or []
    if not isinstance(tools, list):
        raise DataError("'tools' is no list of names, or of {name, description}")
    named = [{"name": one} if isinstance(one, str) else one for one in tools]
    if not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in named):
        raise DataError("a tool has no name")
    wanted = _rows.text(row, "tool" if "tool" in row and "gold_tool" not in row else "gold_tool")
    told = {one["name"]: str(one.get("description") or "") for one in named}
    if told and wanted not in told:
        raise DataError(f"the tool '{wanted}' is not among the row's tools")
    given = {_rows.GIVEN: row["predicted_tool"]} if isinstance(row.get("predicted_tool"), str) else {}
    method, query = (str(row.get(key) or "") for key in ("method", "query"))
    return {"messages": [], "query": query, "tools": told, "gold": wanted, "method": method} | given


def gold(example: dict[str, Any]) -> str:
    """The right tool's name."""
    return example["gold"]


def predicted(example: dict[str, Any]) -> str | None:
    """The tool that the row brings."""
    return example.get(_rows.GIVEN)


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """Two rows, accuracy and macro_f1; of several methods two for each, and their lead."""
    clock = Clock()
    methods = list(dict.fromkeys(item["method"] for item in examples.items))
    if len(methods) > 1 and not isinstance(endpoint, Playback):
        raise DataError(f"rows of {len(methods)} methods are answers", hint="give them under --predictions")
    found: list[dict[str, Any]] = []
    replies = _rows.answers(endpoint, examples, config.max_tokens)
    for item, reply in zip(examples.items, replies, strict=True):
        got = "" if reply.error else _tool(reply.answer, item["tools"])
        told = {"expected": item["gold"], "got": got, "method": item["method"], "query": item["query"]}
        found.append(record(item["id"], got == item["gold"], reply, **told))
    settings, at = _rows.settings(config, examples), (clock.seconds(), examples.version)
    rows = []
    for method in methods:
        mine = [one for one in found if one["method"] == method]
        told = {"subtask": method if len(methods) > 1 else None, "settings": settings}
        rows.append(share(endpoint, "router", "accuracy", mine, *at, **told))
        rows.append(of_all(endpoint, "router", "macro_f1", mine, *at, "macro_f1", _both, **told))
    if len(methods) > 1:
        ranked = sorted(methods, key=lambda method: -_accuracy(found, method))
        rows += _lead(endpoint, found, ranked[0], ranked[1], at, settings)
    return SuiteResult(rows=rows, examples=found)


def _tool(answer: str, tools: dict[str, str]) -> str:
    """The one tool that the answer names; "" where there is none, or more than one."""
    plain = answer.strip().strip("`'\"*. ")
    if plain in tools:
        return plain
    named = [name for name in tools if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", answer)]
    return named[0] if len(named) == 1 else ""


def _both(one: dict[str, Any]) -> tuple[str, str]:
    return one["got"], one["expected"]


def _accuracy(found: Sequence[dict[str, Any]], method: str) -> float:
    mine = [one["correct"] for one in found if one["method"] == method]
    return sum(mine) / len(mine)


def _lead(
    endpoint: Endpoint, found: Sequence[dict[str, Any]], best: str, second: str, at: Any, settings: Any
) -> list[Any]:
    """The lead of a method on the requests that another answered, too; none where they share none."""
    right = [
        {(one["query"] or i, one["expected"]): one["correct"] for i, one in enumerate(mine)}
        for mine in ([one for one in found if one["method"] == method] for method in (best, second))
    ]
    both = [key for key in right[0] if key in right[1]]
    if not both:
        return []
    a, b = ([float(of[key]) for key in both] for of in right)
    gain = difference(a, b, [1.0] * len(both))
    told = settings | {"best": best, "second": second, "winner": best if gain.clear else ""}
    interval = (gain.low, gain.high)
    return [
        row(endpoint, "router", "lead", gain.value, len(both), *at, subtask=f"{best} over {second}",
            interval=interval, settings=told)
    ]  # fmt: skip
