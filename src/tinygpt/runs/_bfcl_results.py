"""BFCL's files: results as its runner writes them, scores as its scorer does, and the rows made of both."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.core.files import write_text
from tinygpt.core.rows import EvalRow
from tinygpt.eval.endpoint import Reply
from tinygpt.eval.suites._result import record, share
from tinygpt.eval.suites._result import row as row_of
from tinygpt.runs._bfcl_harness import FAILED
from tinygpt.runs._bfcl_known import KNOWN_BAD
from tinygpt.runs._own_server import Subject

TASK = "bfcl"
LONGEST = 2000  # letters of an answer in a record


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; a line that a killed process left torn is none."""
    found: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def failed(result: Mapping[str, Any]) -> bool:
    """Whether a result of the runner is an answer that did not come."""
    return isinstance(result["result"], str) and result["result"].startswith(FAILED)


def n_answered(root: Path) -> int:
    """Results that are there by now."""
    return sum(path.read_bytes().count(b"\n") for path in (root / "result").rglob("*_result.json"))


def keep_answers(root: Path) -> int:
    """Leave only answers in the files of results, so that the runner asks again for what did not come; how
    many are left."""
    kept = 0
    for path in sorted((root / "result").rglob("*_result.json")):
        good = [one for one in lines_of(path) if not failed(one)]
        write_text(path, "".join(json.dumps(one) + "\n" for one in good))
        kept += len(good)
    return kept


def results(root: Path, name: str, category: str) -> dict[str, dict[str, Any]]:
    """What the runner wrote of a category, by id; with what had to be asked before it."""
    found = [
        one
        for kind in ("", "_prereq")
        for path in (root / "result" / name).rglob(f"BFCL_v4_{category}{kind}_result.json")
        for one in lines_of(path)
    ]
    return {one["id"]: one for one in found}


def scores(root: Path, name: str, category: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The scorer's head of a category, and by id each answer that it does not take. DataError where it did
    not write them."""
    path = next((root / "score" / name).rglob(f"BFCL_v4_{category}_score.json"), None)
    found = lines_of(path) if path is not None else []
    if not found or "accuracy" not in found[0]:
        raise DataError(f"BFCL wrote no score of {category}", hint=f"see {root / 'evaluate.log'}")
    return found[0], {one["id"]: one for one in found[1:]}


def category_row(
    subject: Subject, root: Path, name: str, category: str, plan: Mapping[str, Any]
) -> tuple[EvalRow, list[dict[str, Any]]]:
    """The row of a category, and a record of each of its examples. The scorer's own count must agree."""
    answers, (head, wrong) = results(root, name, category), scores(root, name, category)
    records: list[dict[str, Any]] = []
    for id_ in plan["ids"]:
        answer = answers.get(id_) or {"result": f"{FAILED}: the runner wrote no result"}
        error = wrong.get(id_)
        why = _why(error) if error is not None else ("", "")
        reply = _reply(answer)
        right = id_ in answers and error is None and not reply.error
        told: dict[str, Any] = {
            "group": plan["group"], "error_type": why[0] if not reply.error else "inference_error",
            "failure": why[1] if not reply.error else reply.error, "got": reply.text,
            "n_steps": len(_numbers(answer.get("latency"))),
        }  # fmt: skip
        if id_ in KNOWN_BAD:
            told["known_bad"] = True
        records.append(record(id_, right, reply, **told))
    n_right = sum(one["correct"] for one in records)
    if n_right != head["correct_count"]:
        raise DataError(
            f"BFCL counts {head['correct_count']} right answers of {category}, its list of wrong ones leaves "
            f"{n_right}",
            hint=f"look into {root}",
        )
    seconds = round(sum(_flat(one.get("latency")) for one in answers.values()), 3)
    settings = {
        "n_all": plan["n_all"], "known_bad": sum("known_bad" in one for one in records),
        "failures": dict(Counter(one["error_type"] for one in records if one["error_type"])),
    }  # fmt: skip
    row = share(
        subject, TASK, "accuracy", records, seconds, plan["data_version"], subtask=category, settings=settings
    )
    lost = sum(failed(answers[id_]) if id_ in answers else 1 for id_ in plan["before"])
    return dataclasses.replace(row, n_failed=row.n_failed + lost), records


def overall(subject: Subject, root: Path, rows: Sequence[EvalRow], seconds: float, version: str) -> EvalRow:
    """BFCL's own figure over all categories: those that were not asked count as 0 in it, and are named."""
    with (root / "score" / "data_overall.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    if len(table) != 1:
        raise DataError(f"{root}/score/data_overall.csv has {len(table)} lines, not one", hint="start anew")
    told = {key: value for key, value in table[0].items() if key and value and value.endswith("%")}
    empty = [key for key, value in table[0].items() if value == "N/A" and "Latency" not in key]
    n = sum(row.n_examples for row in rows)
    score = round(float(told.pop("Overall Acc").rstrip("%")) / 100, 4)
    settings = {"official": told, "not_asked": empty, "weights": "agentic 40, multi-turn 30, others 10 each"}
    row = row_of(subject, TASK, "official_overall", score, n, seconds, version, settings=settings)
    return dataclasses.replace(
        row, n_failed=sum(one.n_failed for one in rows), n_truncated=sum(one.n_truncated for one in rows)
    )


def hops_row(subject: Subject, path: Path, seconds: float, version: str) -> EvalRow:
    """How many times a model looked a tool of our catalogue up, on average over the answers."""
    hops = [float(one["get_tool_info_hops"]) for one in lines_of(path)]
    mean = sum(hops) / len(hops) if hops else 0.0
    return row_of(
        subject, TASK, "get_tool_info_hops", mean, len(hops), seconds, version, subtask="deferred_tools"
    )


def _reply(answer: Mapping[str, Any]) -> Reply:
    if failed(answer):
        return Reply.failed(str(answer["result"]))
    text = answer["result"] if isinstance(answer["result"], str) else json.dumps(answer["result"])
    cut = "length" in (answer.get("finish_reasons") or ())
    return Reply(
        message={"role": "assistant", "content": text[:LONGEST]}, text=text[:LONGEST],
        finish_reason="length" if cut else "stop", n_tokens=int(_flat(answer.get("output_token_count"))),
    )  # fmt: skip


def _why(error: Mapping[str, Any]) -> tuple[str, str]:
    """The kind of a failure and its words: single-turn scorers say both at the top, the others inside."""
    said = error.get("error")
    inside = said if isinstance(said, dict) else {}
    kind = str(error.get("error_type") or inside.get("error_type") or "unknown")
    words = inside.get("error_message", said)
    return kind, "; ".join(map(str, words))[:LONGEST] if isinstance(words, list) else str(words)[:LONGEST]


def _flat(value: Any) -> float:
    """The sum of a number, or of numbers in lists."""
    return sum(_numbers(value))


def _numbers(value: Any) -> list[float]:
    """A number, or the numbers in lists: one for each step of each turn."""
    if isinstance(value, list):
        return [number for one in value for number in _numbers(one)]
    return [float(value)] if isinstance(value, int | float) else []
