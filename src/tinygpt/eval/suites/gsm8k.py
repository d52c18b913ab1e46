"""GSM8K: grade-school arithmetic in words, right when the final number is.

A problem is asked as a chat message that says how the answer is to end, or continued as "Question: ...
Answer:" with solved examples before it. Two figures are told apart, as lm-eval does: `strict_match` wants the
number after "####", `flexible_match` takes the last number of the answer.

Paper: Cobbe et al. 2021, arXiv:2110.14168 (data and format); Wei et al. 2022, arXiv:2201.11903 (examples).
Differs: numbers are compared as numbers, so 1,000 and 1000.00 are equal; lm-eval compares their text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core.config import to_dict
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import rows
from tinygpt.eval.endpoint import Endpoint, Prompt
from tinygpt.eval.suites import _rows
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, record, share

MARK = "####"
HOW = f"Solve the problem step by step. End with a line `{MARK} N`, where N is the answer as a plain number."
NUMBER = re.compile(r"-?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


@dataclass(frozen=True, kw_only=True)
class Config(_rows.Asking):
    """Knobs of GSM8K."""

    data: Annotated[Path, "JSONL with {question, answer}; the answer ends with '#### N'."]
    prompt: Annotated[Literal["chat", "completion"], "Ask in a message, or have a text continued."] = "chat"
    shots: Annotated[int, "Solved examples before each problem."] = 0
    shots_data: Annotated[Path | None, "JSONL that solved examples are taken from, the first ones."] = None
    max_tokens: Annotated[int, "Longest answer in tokens."] = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shots < 0:
            raise ConfigError(f"'shots' must not be negative, got {self.shots}")
        if bool(self.shots) != (self.shots_data is not None):
            raise ConfigError("--shots and --shots-data belong together", hint="give both, or none")


def load(config: Config) -> Examples:
    """The problems; bad rows are counted in the notes."""
    found, report = rows.read(config.data, _problem)
    shots = [] if config.shots_data is None else rows.read(config.shots_data, _problem)[0][: config.shots]
    if len(shots) < config.shots:
        raise DataError(
            f"{config.shots_data} has {len(shots)} problems, --shots wants {config.shots}", hint="lower it"
        )
    items: list[dict[str, Any]] = []
    for i, (question, answer) in enumerate(found[: config.limit or None]):
        asked = _asked(config, shots, question)
        key = "prompt" if isinstance(asked, str) else "messages"
        items.append({"id": str(i), key: asked, "answer": answer})
    return Examples.of(items, (report.sentence(),) if report.n_bad else ())


def _problem(row: Any) -> tuple[str, str]:
    if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("question", "answer")):
        raise DataError("no {question, answer}")
    if not row["question"].strip():
        raise DataError("the question is empty")
    if number(row["answer"], strict=True) is None:
        raise DataError(f"the answer does not end with '{MARK} N'")
    return row["question"], row["answer"]


def _asked(config: Config, shots: list[tuple[str, str]], question: str) -> Prompt:
    if config.prompt == "completion":
        solved = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in shots)
        return f"{solved}Question: {question}\nAnswer:"
    turns = [
        {"role": role, "content": text}
        for q, a in shots
        for role, text in (("user", f"{q}\n\n{HOW}"), ("assistant", a))
    ]
    return [*turns, {"role": "user", "content": f"{question}\n\n{HOW}"}]


def gold(example: dict[str, Any]) -> str:
    """The worked answer of the data."""
    return example["answer"]


def number(text: str, *, strict: bool) -> Decimal | None:
    """The final number: after the last "####" (strict), or the last one of all; None where there is none."""
    if strict:
        if MARK not in text:
            return None
        found = NUMBER.findall(text.rpartition(MARK)[2])[:1]
    else:
        found = NUMBER.findall(text)[-1:]
    try:
        return Decimal(found[0].replace(",", "").replace("$", "")) if found else None
    except InvalidOperation:
        return None


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """Two rows: strict_match and flexible_match."""
    clock = Clock()
    asked = [item.get("messages") or item["prompt"] for item in examples.items]
    stop = ("Question:",) if config.prompt == "completion" else ()
    replies = endpoint.complete(asked, max_tokens=config.max_tokens, stop=stop)
    found = []
    for item, reply in zip(examples.items, replies, strict=True):
        wanted = number(item["answer"], strict=True)
        strict, flexible = (
            number(reply.answer, strict=s) == wanted and not reply.error for s in (True, False)
        )
        told = {"strict": strict, "expected": str(wanted), "got": reply.text}
        found.append(record(item["id"], flexible, reply, **told))
    settings = to_dict(config) | {"notes": list(examples.notes)}

    def row(metric: str, key: str) -> Any:
        told = {"key": key, "settings": settings}
        return share(endpoint, "gsm8k", metric, found, clock.seconds(), examples.version, **told)

    return SuiteResult(rows=[row("strict_match", "strict"), row("flexible_match", "correct")], examples=found)
