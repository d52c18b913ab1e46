"""MILU: exam questions in Indian languages with options, right when the right option is the likeliest.

The options stand under letters, and the model's log p(letter | question) is compared: `by = letter`. With `by
= text` it is log p(option | question) divided by the option's bytes. `accuracy` of each language and of all,
`accuracy_macro` is the mean over languages. Rows that bring their answers are scored by these.

Paper: Verma et al., NAACL 2025, arXiv:2411.02538 (MILU); Gao et al., lm-evaluation-harness (likelihood of
options, normalised by bytes).
Differs: no solved examples before the question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core.errors import DataError, UnsupportedError
from tinygpt.eval.endpoint import Endpoint, Reply
from tinygpt.eval.playback import Playback
from tinygpt.eval.suites import _rows
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, of_all, record, share

SHAPE = (
    "{question, options | option1.., answer | target, language?} or {language, predicted, gold} or "
    "{language, correct}"
)
LETTERS = "ABCDEFGHIJ"
AT_ONCE = 64  # rows in one request to the endpoint


@dataclass(frozen=True, kw_only=True)
class Config(_rows.Rows):
    """Knobs of MILU."""

    data: Annotated[
        Path, "JSONL with {question, options, answer, language?}, or {language, predicted, gold}."
    ]
    by: Annotated[Literal["letter", "text"], "Compare the options' letters, or their texts."] = "letter"


def load(config: Config) -> Examples:
    """The questions; bad rows are counted in the notes."""
    return _rows.load(config, _item, SHAPE)


def _item(row: dict[str, Any]) -> dict[str, Any]:
    language = str(row.get("language") or "unknown")
    known: dict[str, Any] = {"language": language, "messages": []}
    if isinstance(row.get("correct"), bool):
        return known | {"options": [], "gold": "A", _rows.GIVEN: "A" if row["correct"] else "?"}
    options = row.get("options") or [row[f"option{i}"] for i in range(1, 11) if row.get(f"option{i}")]
    given = {_rows.GIVEN: str(row["predicted"]).strip()} if row.get("predicted") is not None else {}
    if given and row.get("gold") is not None:
        return known | {"options": [], "gold": str(row["gold"]).strip()} | given
    if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
        raise DataError(f"no list of 2 to {len(LETTERS)} options")
    texts = [str(option).strip() for option in options]
    right = _letter(next((row[k] for k in ("answer", "target", "gold") if row.get(k) is not None), ""), texts)
    asked = _rows.text(row, "question").strip()
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, texts))
    return known | {"question": asked, "listed": listed, "options": texts, "gold": right} | given


def _letter(answer: Any, options: Sequence[str]) -> str:
    """A right option as its letter: given as letter, text, number from 0, or "option2"."""
    told = str(answer).strip()
    if told in options:
        return LETTERS[options.index(told)]
    if told.lower().startswith("option") and told[6:].isdigit():
        at = int(told[6:]) - 1
    elif isinstance(answer, int) and not isinstance(answer, bool):
        at = answer
    else:
        at = LETTERS.find(told.upper()) if len(told) == 1 else -1
    if not 0 <= at < len(options):
        raise DataError(f"the right answer {answer!r} is none of the {len(options)} options")
    return LETTERS[at]


def gold(example: dict[str, Any]) -> str:
    """The right letter."""
    return example["gold"]


def predicted(example: dict[str, Any]) -> str | None:
    """The letter that the row brings."""
    return example.get(_rows.GIVEN)


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """accuracy of all and of each language, and accuracy_macro."""
    clock = Clock()
    if isinstance(endpoint, Playback):
        replies = _rows.answers(endpoint, examples, 1)
    else:
        replies = _likeliest(endpoint, examples.items, config)
    found = []
    for item, reply in zip(examples.items, replies, strict=True):
        told = {"language": item["language"], "expected": item["gold"], "got": reply.text}
        found.append(record(item["id"], reply.text == item["gold"], reply, **told))
    settings, at = {"settings": _rows.settings(config, examples)}, (clock.seconds(), examples.version)
    rows = [share(endpoint, "milu", "accuracy", found, *at, **settings)]
    rows.append(of_all(endpoint, "milu", "accuracy_macro", found, *at, "macro_mean", _lingual, **settings))
    for language in dict.fromkeys(item["language"] for item in examples.items):
        mine = [one for one in found if one["language"] == language]
        rows.append(share(endpoint, "milu", "accuracy", mine, *at, subtask=language, **settings))
    return SuiteResult(rows=rows, examples=found)


def _lingual(one: dict[str, Any]) -> tuple[str, float]:
    return one["language"], float(one["correct"])


def _likeliest(endpoint: Endpoint, items: Sequence[dict[str, Any]], config: Config) -> list[Reply]:
    """The letter of the likeliest option of each question; one that does not fit the context has failed."""
    tokenizer = endpoint.tokenizer
    if tokenizer is None:
        raise UnsupportedError(
            f"{endpoint.name} does not show its tokens, so options have no likelihood",
            hint="with --url name the model's --tokenizer",
        )
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    jobs: list[tuple[int, str, list[int], int, int]] = []
    too_long: dict[int, int] = {}
    for i, item in enumerate(items):
        if not item["options"]:
            raise DataError(
                f"row {item['id']} has no options", hint="rows of answers alone go under --predictions"
            )
        listed = f"{item['listed']}\n" if config.by == "letter" else ""
        asked = f"{item['question']}\n{listed}Answer:"
        before = tokenizer.encode(asked)
        for letter, option in zip(LETTERS, item["options"]):
            told = f" {letter}" if config.by == "letter" else f" {option}"
            ids = tokenizer.encode(asked + told)
            same = next(
                (k for k, (a, b) in enumerate(zip(before, ids)) if a != b), min(len(before), len(ids))
            )
            size = 1 if config.by == "letter" else len(option.encode())
            jobs.append((i, letter, bos + ids, len(bos) + same, size))
            if endpoint.context and len(bos + ids) > endpoint.context + 1:
                too_long[i] = len(bos + ids)
    jobs = [job for job in jobs if job[0] not in too_long]
    best: dict[int, tuple[float, str]] = {}
    for at in range(0, len(jobs), AT_ONCE):
        part = jobs[at : at + AT_ONCE]
        for job, told in zip(part, endpoint.token_logprobs([job[2] for job in part]), strict=True):
            i, letter, _, first, size = job
            value = math.fsum(told[max(0, first - 1) :]) / size
            if i not in best or value > best[i][0]:
                best[i] = value, letter
    return [
        Reply.failed(f"the question has {too_long[i]} tokens, the context {endpoint.context}")
        if i in too_long
        else _reply(best[i][1])
        for i in range(len(items))
    ]


def _reply(letter: str) -> Reply:
    message = {"role": "assistant", "content": letter}
    return Reply(message=message, text=letter, finish_reason="stop", n_tokens=0)
