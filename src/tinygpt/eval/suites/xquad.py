"""XQuAD: questions whose answer is a piece of the text before them, in many languages.

`exact_match` and `f1` as SQuAD defines them, the best over the answers of a row: small letters, without
punctuation and English articles; `F1 = 2 P R / (P + R)` over the words that answer and reference share. Both
for all rows and for each language. IndicGenBench's XQuAD-IN has this form.

Paper: Rajpurkar et al., EMNLP 2016, arXiv:1606.05250 (measures); Artetxe et al., ACL 2020, arXiv:1910.11856
(XQuAD); Singh et al., ACL 2024, arXiv:2404.16816 (IndicGenBench).
Differs: each letter of a script without spaces is a word, as in MLQA.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import DataError
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.suites import _rows
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, mean, record, share

SHAPE = "{context, question, answers: [text, ...] | {text: [...]}, language?}"
ASK = "{context}\n\nQuestion: {question}\n\nAnswer with words of the text above and nothing else."
ARTICLES = re.compile(r"\b(a|an|the)\b")
UNSPACED = re.compile(r"([\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff])")


@dataclass(frozen=True, kw_only=True)
class Config(_rows.Asking):
    """Knobs of XQuAD."""

    data: Annotated[Path, "JSONL with {context, question, answers, language?}."]
    max_tokens: Annotated[int, "Longest answer in tokens."] = 32


def load(config: Config) -> Examples:
    """The questions; bad rows are counted in the notes."""
    return _rows.load(config, _item, SHAPE)


def _item(row: dict[str, Any]) -> dict[str, Any]:
    given = row.get("answers") if row.get("answers") is not None else [row.get("answer")]
    given = given.get("text") if isinstance(given, dict) else given
    listed = given if isinstance(given, list) else [given]
    told = [one.get("text") if isinstance(one, dict) else one for one in listed]
    answers = [one for one in told if isinstance(one, str) and words(one)]
    if not answers:
        raise DataError("no text of an answer")
    asked = ASK.format(context=_rows.text(row, "context"), question=_rows.text(row, "question"))
    language = str(row.get("language") or row.get("lang") or "unknown")
    return {"messages": _rows.question(asked), "answers": answers, "language": language}


def words(text: str) -> list[str]:
    """The words that are compared."""
    plain = "".join(c for c in text.lower() if not unicodedata.category(c).startswith("P"))
    return UNSPACED.sub(r" \1 ", ARTICLES.sub(" ", plain)).split()


def gold(example: dict[str, Any]) -> str:
    """The first answer."""
    return example["answers"][0]


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """exact_match and f1, of all rows and of each language."""
    clock = Clock()
    found = []
    for item, reply in zip(examples.items, _rows.answers(endpoint, examples, config.max_tokens), strict=True):
        got = words(reply.answer)
        wanted = [words(answer) for answer in item["answers"]]
        f1 = 0.0 if reply.error else max(_f1(got, one) for one in wanted)
        more = {"f1": f1, "language": item["language"], "expected": item["answers"], "got": reply.text}
        found.append(record(item["id"], got in wanted, reply, **more))
    more, at = {"settings": _rows.settings(config, examples)}, (clock.seconds(), examples.version)
    rows = []
    languages = dict.fromkeys(item["language"] for item in examples.items)
    for language in (None, *languages):
        mine = [one for one in found if language in (None, one["language"])]
        rows.append(share(endpoint, "xquad", "exact_match", mine, *at, subtask=language, **more))
        rows.append(mean(endpoint, "xquad", "f1", mine, *at, key="f1", subtask=language, **more))
    return SuiteResult(rows=rows, examples=found)


def _f1(got: list[str], wanted: list[str]) -> float:
    shared = (Counter(got) & Counter(wanted)).total()
    return 2 * shared / (len(got) + len(wanted)) if shared else 0.0
