"""Escalate: whether a small model hands over the questions that it would get wrong, and only those.

To hand over is the positive class. Over all rows: `precision` (handed over rightly / handed over), `recall`
(handed over rightly / would be wrong), `f1`, `over_escalation` (handed over / would be right; less is
better), and `accuracy`. A model is asked whether it would answer or hand over, and says so in a word, or in
the form that `build-escalate-data` teaches; an answer that says neither is the wrong one of the two.

Paper: Madras et al., NeurIPS 2018, arXiv:1711.06664 (learning to defer); Chow 1970 (the reject option).
Differs: nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import DataError
from tinygpt.data.escalating import decision
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.suites import _rows
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, mean, of_all, record, share

SHAPE = "{question, local_wrong} or {defer_pred, local_wrong}"
ASK = (
    "A larger model can take over questions that you would get wrong.\n\nQuestion: {question}\n\n"
    "Reply with ANSWER if you would get it right yourself, or with DEFER, and nothing else."
)
SAID = re.compile(r"\b(answer|defer)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Config(_rows.Asking):
    """Knobs of the escalation suite."""

    data: Annotated[Path, "JSONL with {question, local_wrong}, or {defer_pred, local_wrong}."]
    max_tokens: Annotated[int, "Longest answer in tokens."] = 16


def load(config: Config) -> Examples:
    """The questions; bad rows are counted in the notes."""
    return _rows.load(config, _item, SHAPE)


def _item(row: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(row.get("local_wrong"), bool):
        raise DataError("'local_wrong' is neither true nor false")
    given = {}
    if isinstance(row.get("defer_pred"), bool):
        given = {_rows.GIVEN: "DEFER" if row["defer_pred"] else "ANSWER"}
    asked = row.get("question") or row.get("prompt")
    messages = _rows.question(ASK.format(question=asked)) if isinstance(asked, str) else []
    return {"messages": messages, "local_wrong": row["local_wrong"]} | given


def gold(example: dict[str, Any]) -> str:
    """DEFER where the model would be wrong."""
    return "DEFER" if example["local_wrong"] else "ANSWER"


def predicted(example: dict[str, Any]) -> str | None:
    """What the row brings."""
    return example.get(_rows.GIVEN)


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """Five rows: accuracy, precision, recall, f1, over_escalation."""
    clock = Clock()
    found = []
    replies = _rows.answers(endpoint, examples, config.max_tokens)
    for item, reply in zip(examples.items, replies, strict=True):
        said = _said(reply.answer)
        wrong = item["local_wrong"]
        readable = len(said) == 1
        deferred = said == {"DEFER"} if readable else not wrong
        more = {"local_wrong": wrong, "deferred": deferred, "readable": readable, "got": reply.text}
        found.append(record(item["id"], deferred == wrong, reply, **more))
    unreadable = sum(not one["readable"] and not one.get("error") for one in found)
    told = {"settings": _rows.settings(config, examples, unreadable=unreadable)}
    at = (clock.seconds(), examples.version)
    rows = [share(endpoint, "escalate", "accuracy", found, *at, **told)]
    for metric, (hits, out_of) in PARTS.items():

        def part(one: dict[str, Any], hits: Any = hits, out_of: Any = out_of) -> tuple[int, int, bool]:
            return int(hits(one)), int(out_of(one)), False

        rows.append(of_all(endpoint, "escalate", metric, found, *at, "ratio", part, **told))
    right = [one for one in found if not one["local_wrong"]]
    if right:
        rows.append(mean(endpoint, "escalate", "over_escalation", right, *at, key="deferred", **told))
    return SuiteResult(rows=rows, examples=found)


def _said(answer: str) -> set[str]:
    """ANSWER or DEFER, as a word or in the form that models are taught."""
    if (decided := decision(answer)) is not None:
        return {"DEFER" if decided.defer else "ANSWER"}
    return {word.upper() for word in SAID.findall(answer)}


def _hit(one: dict[str, Any]) -> int:
    return one["deferred"] and one["local_wrong"]


# What each figure counts, and out of how much.
PARTS: dict[str, Any] = {
    "precision": (_hit, lambda one: one["deferred"]),
    "recall": (_hit, lambda one: one["local_wrong"]),
    "f1": (lambda one: 2 * _hit(one), lambda one: one["deferred"] + one["local_wrong"]),
}
