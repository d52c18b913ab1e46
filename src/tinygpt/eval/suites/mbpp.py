"""MBPP: short programs written after one sentence and three assertions, right when these pass in the sandbox.

Asked as in the paper: the sentence, and the tests that the program is to pass. A continuation begins below
them as a docstring and ends at the first line that begins something else; of a message the code block is
taken. Rows of the full data and of the sanitized are read.

Paper: Austin et al. 2021, arXiv:2108.07732; Chen et al. 2021, arXiv:2107.03374, equation 1 (pass@k).
Differs: no solved examples before the problem; tests and program run in separate processes, as in humaneval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data import rows
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.suites import _code
from tinygpt.eval.suites._result import Examples, SuiteResult

STOP = ("\nclass ", "\nassert ", '\n"""', "\nprint(", "\nif ", "\n```")
SHAPE = "{task_id, text or prompt, code, test_list}"


@dataclass(frozen=True, kw_only=True)
class Config(_code.Code):
    """Knobs of MBPP."""


def load(config: Config) -> Examples:
    """The problems; bad rows are counted in the notes."""
    found, report = rows.read(config.data, _problem, known=SHAPE)
    chat = config.prompt == "chat"
    problems = [_of(row, chat) for row in found[: config.limit or None]]
    return _code.examples(problems, (report.sentence(),) if report.n_bad else ())


def _problem(row: Any) -> dict[str, Any]:
    text = isinstance(row, dict) and (row.get("text") or row.get("prompt"))
    tests = isinstance(row, dict) and row.get("test_list")
    if not isinstance(text, str) or not isinstance(tests, list) or not tests or "task_id" not in row:
        raise DataError(f"no {SHAPE}")
    if not all(isinstance(one, str) for one in tests):
        raise DataError("'test_list' must be a list of assertions")
    return row


def _of(row: dict[str, Any], chat: bool) -> _code.Problem:
    text = (row.get("text") or row["prompt"]).strip()
    tests = "\n".join(row["test_list"])
    imports = row.get("test_imports") or row.get("test_setup_code") or ""
    said = f"{text}\nThe code must pass these tests:\n\n"
    begin = f'"""\n{text}\n{tests}\n"""\n'
    code = row.get("code") or ""
    ask = f"{said}```python\n{tests}\n```\n\nAnswer with one code block of Python, and nothing else."
    return _code.Problem(
        id=str(row["task_id"]), begin=begin, entry="", tests=tests + "\n",
        prelude="\n".join(imports) if isinstance(imports, list) else imports,
        asked=[{"role": "user", "content": ask}] if chat else begin,
        gold=f"```python\n{code}\n```" if chat else code,
    )  # fmt: skip


def gold(example: dict[str, Any]) -> str:
    """The reference as a model would write it."""
    return example["gold"]


def _program(item: dict[str, Any], text: str) -> str:
    if "prompt" in item:
        return _code.parsing("", _code.cut(text, STOP))
    return _code.parsing("", _code.block(text, "def "))


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """A row for each pass@k."""
    return _code.score(endpoint, examples, config, "mbpp", _program, STOP)
