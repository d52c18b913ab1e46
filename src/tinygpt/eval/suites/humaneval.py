"""HumanEval: functions written after their docstrings, right when hidden tests pass in the sandbox.

The model continues the prompt, or is asked in a message and its code block is taken. A continuation ends at
the first line that begins something new, and where it is no Python at the last line up to which it is. Each
program runs in the kernel's sandbox (docs/sandbox.md), and another process decides; pass@k is the unbiased
estimate from n programs.

Paper: Chen et al. 2021, arXiv:2107.03374 (problems, stops, pass@k); Liu et al. 2023, arXiv:2305.01210
(EvalPlus: more inputs).
Differs: tests and program run in separate processes, so a program cannot pass by what it does to its tests.
Rows with `plus_input` (EvalPlus) are also run on these, against the reference, and `pass@k` then wants both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.core.sandbox.judge import definitions
from tinygpt.data import rows
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.suites import _code
from tinygpt.eval.suites._result import Examples, SuiteResult

STOP = ("\nclass ", "\ndef ", "\nif ", "\nprint(", "\n#", "\n@", "\nassert ", "\n```", "\nfrom ", "\nimport ")
HOW = "Complete this Python function. Answer with the whole function in one code block, and nothing else."
KEYS = ("task_id", "prompt", "entry_point", "test")
# EvalPlus: the reference computes what is expected; floats may differ by atol, as there.
PLUS = """
def _near(a, b, atol):
    if isinstance(a, float) or isinstance(b, float):
        return a == b or (a != a and b != b) or abs(a - b) <= max(atol, 1e-7 * abs(b))
    if isinstance(b, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(_near(x, y, atol) for x, y in zip(a, b))
    return a == b

for _args in {inputs!r}:
    assert _near({entry}(*_args), _reference(*_args), {atol!r}), "EvalPlus: wrong on " + repr(_args)[:200]
"""


@dataclass(frozen=True, kw_only=True)
class Config(_code.Code):
    """Knobs of HumanEval."""


def load(config: Config) -> Examples:
    """The problems; bad rows are counted in the notes."""
    found, report = rows.read(config.data, _problem, known=f"{{{', '.join(KEYS)}}}")
    chat = config.prompt == "chat"
    problems = [
        _code.Problem(
            id=row["task_id"], begin=row["prompt"], entry=row["entry_point"],
            tests=_tests(row), prelude=_prelude(row), gold=_gold(row, chat),
            asked=[{"role": "user", "content": f"{HOW}\n\n```python\n{row['prompt'].strip()}\n```"}]
            if chat else row["prompt"],
        )
        for row in found[: config.limit or None]
    ]  # fmt: skip
    return _code.examples(problems, (report.sentence(),) if report.n_bad else ())


def _problem(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in KEYS):
        raise DataError(f"no {{{', '.join(KEYS)}}}")
    _tests(row), _prelude(row)
    return row


def _tests(row: dict[str, Any]) -> str:
    entry = row["entry_point"]
    plain = f"{row['test']}\ncheck({entry})\n"
    if not row.get("plus_input"):
        return plain
    return plain + PLUS.format(inputs=row["plus_input"], entry=entry, atol=row.get("atol") or 0)


def _prelude(row: dict[str, Any]) -> str:
    """What the tests need and no program may change: the prompt's helpers, and for EvalPlus the reference."""
    helpers = definitions(row["prompt"], row["entry_point"])
    if not row.get("plus_input"):
        return helpers
    whole = row["prompt"] + row.get("canonical_solution", "")
    scope = "def _reference(*args):\n    scope = {}\n    exec(%r, scope)\n    return scope[%r](*args)\n"
    return f"{helpers}\n{scope % (whole, row['entry_point'])}"


def _gold(row: dict[str, Any], chat: bool) -> str:
    body = row.get("canonical_solution") or ""
    return f"```python\n{row['prompt']}{body}```" if chat else body


def gold(example: dict[str, Any]) -> str:
    """The reference as a model would write it."""
    return example["gold"]


def _program(item: dict[str, Any], text: str) -> str:
    if "prompt" in item:
        return _code.parsing(item["begin"], _code.cut(text, STOP))
    whole = f"def {item['entry']}("
    code = _code.block(text, whole)
    # A body alone continues the prompt; a whole function has the helpers that it was shown.
    if whole not in code:
        return _code.parsing(item["begin"], code)
    return _code.parsing(definitions(item["begin"], item["entry"]) + "\n", code)


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """A row for each pass@k."""
    return _code.score(endpoint, examples, config, "humaneval", _program, STOP)
