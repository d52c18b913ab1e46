"""A model as judge of reviews, beside the matching by place and category: does a report mean a planted issue?

Each planted issue is shown with all reports (`recall`: it was found), each report with all planted issues
(`precision`: it is real). `agreement` and `kappa` compare the judge's word with the matching's on the same
questions. What nobody has to ask, since one of the lists is empty, is a no and is in no agreement. A verdict
that did not come or cannot be read is left out of every figure and counted.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.core.rows import EvalRow
from tinygpt.eval.endpoint import GREEDY, Endpoint, Reply
from tinygpt.eval.suites import _rows, judge
from tinygpt.eval.suites._result import Clock, SuiteResult, of_all, record, share

TASK = "review_judge"
WORDS = ("YES", "NO")
MOST = 16  # tokens of a verdict
ASK = {
    "planted": "Code, its lines numbered:\n\n{code}\n\nIt is known to have this defect:\n{one}\n\n"
    "A reviewer reported:\n{others}\n\nDoes one of the reports describe the known defect? ",
    "reported": "Code, its lines numbered:\n\n{code}\n\nIt is known to have these defects:\n{others}\n\n"
    "A reviewer reported:\n{one}\n\nDoes the report describe one of the known defects? ",
}
HOW = "A line that is off by a few and other words do not matter. Reply with YES or NO and nothing else."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reviewed:
    """A row of the suite: planted and reported issues, and which of each the matching joined."""

    id: str
    code: str
    planted: Sequence[dict[str, Any]]
    reported: Sequence[dict[str, Any]]
    matched: dict[int, int]
    """The number of a report: that of the planted issue which it matches."""


def score(
    endpoint: Endpoint, asked: Endpoint, reviews: Sequence[Reviewed], at: str, settings: dict[str, Any]
) -> SuiteResult:
    """The rows of `endpoint` as the judge `asked` sees it, and a record of each question. `at`: the version
    of the data. DataError where no verdict can be read."""
    clock = Clock()
    questions = [one for review in reviews for one in _questions(review)]
    open_ones = [one for one in questions if one["prompt"]]
    replies = asked.complete(
        [_rows.question(one["prompt"]) for one in open_ones],
        max_tokens=MOST, sampling=dataclasses.replace(GREEDY, choices=WORDS),
    )  # fmt: skip
    said = {one["id"]: reply for one, reply in zip(open_ones, replies, strict=True)}
    found = [_record(one, said.get(one["id"])) for one in questions]
    judged = [one for one in found if one["readable"]]
    if replies and not any(one["asked"] for one in judged) and not any(reply.error for reply in replies):
        raise DataError(
            f"the judge {asked.name} gave no verdict that can be read; one is {replies[0].text[:60]!r}",
            hint="a judge answers YES or NO",
        )
    who = {"name": asked.name, "path": asked.path, "model_hash": asked.model_hash}
    ended = [one["finish_reason"] for one in found]
    more = {"n_failed": ended.count("error"), "n_truncated": ended.count("length")}
    unreadable = len(found) - len(judged) - more["n_failed"]
    told = settings | {"judge": who, "unreadable_verdicts": unreadable, "asked": len(open_ones)}
    when = (clock.seconds(), at)
    rows: list[EvalRow] = []
    for metric, side in (("recall", "planted"), ("precision", "reported")):
        if mine := [one for one in judged if one["side"] == side]:
            rows.append(share(endpoint, TASK, metric, mine, *when, key="yes", settings=told))
    if both := [one for one in judged if one["asked"]]:
        rows.append(share(endpoint, TASK, "agreement", both, *when, settings=told))
        rows.append(
            of_all(endpoint, TASK, "kappa", both, *when, "kappa", _sides, bounded=False, settings=told)
        )
    for one in found:
        one |= {"task": TASK, "subtasks": [None]}
    return SuiteResult(rows=[dataclasses.replace(row, **more) for row in rows], examples=found)


def _questions(review: Reviewed) -> list[dict[str, Any]]:
    """One for each issue of both lists; without a prompt where the other list is empty."""
    found: list[dict[str, Any]] = []
    lists = {"planted": (review.planted, review.reported), "reported": (review.reported, review.planted)}
    hits = {"planted": set(review.matched.values()), "reported": set(review.matched)}
    for side, (ones, others) in lists.items():
        listed = "\n".join(f"- {_told(issue)}" for issue in others)
        for i, issue in enumerate(ones):
            shown = {"code": review.code, "one": f"- {_told(issue)}", "others": listed}
            prompt = ASK[side].format(**shown) + HOW if others else ""
            about = {"id": f"{review.id}/{side}/{i}", "side": side, "matched": i in hits[side]}
            found.append({**about, "prompt": prompt})
    return found


def _told(issue: dict[str, Any]) -> str:
    """An issue in the words of its row or of its reporter."""
    kept = {key: value for key, value in issue.items() if value not in ("", None)}
    return issue.get("text") or json.dumps(kept, ensure_ascii=False)


def _record(question: dict[str, Any], reply: Reply | None) -> dict[str, Any]:
    """What became of a question; one that was not asked is a no."""
    word = "NO" if reply is None else judge.verdict(reply, WORDS)
    told = {"side": question["side"], "matched": question["matched"], "asked": reply is not None}
    told |= {"readable": word is not None, "yes": word == "YES", "got": "" if reply is None else reply.text}
    none = Reply(message={}, text="", finish_reason="stop", n_tokens=0)
    same = word is not None and (word == "YES") == question["matched"]
    return record(question["id"], same, reply or none, **told)


def _sides(one: dict[str, Any]) -> tuple[bool, bool]:
    return one["yes"], one["matched"]
