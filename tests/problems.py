"""Programming problems of our own, in the forms of HumanEval, EvalPlus and MBPP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import SandboxError
from tinygpt.core.sandbox.run import check

ADD = 'from typing import List\n\n\ndef add_all(xs: List[int]) -> int:\n    """The sum of xs."""\n'
TWICE = 'def double(x):\n    return 2 * x\n\n\ndef quad(x):\n    """Four times x, by double."""\n'
HUMANEVAL: list[dict[str, Any]] = [
    {
        "task_id": "own/0", "prompt": ADD, "entry_point": "add_all",
        "canonical_solution": "    return sum(xs)\n",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
    },
    {
        "task_id": "own/1", "prompt": TWICE, "entry_point": "quad",
        "canonical_solution": "    return double(double(x))\n",
        "test": "def check(candidate):\n    assert candidate(3) == double(double(3))\n",
    },
    {
        "task_id": "own/2", "prompt": 'def shout(text):\n    """The text in capitals."""\n',
        "entry_point": "shout", "canonical_solution": "    return text.upper()\n",
        "test": "def check(candidate):\n    assert candidate('ab') == 'AB'\n",
    },
]  # fmt: skip
PLUS = [{**HUMANEVAL[0], "plus_input": [[[5]], [[1] * 9], [[-1, 1]]], "atol": 0}]
MBPP: list[dict[str, Any]] = [
    {
        "task_id": 1, "text": "Write a function to square a number.",
        "code": "def square(x):\n    return x * x", "test_list": ["assert square(3) == 9"],
        "test_setup_code": "",
    },
    {
        "task_id": 2, "prompt": "Write a function to find the root of a number.",
        "code": "import math\ndef root(x):\n    return math.sqrt(x)",
        "test_imports": ["import math"], "test_list": ["assert root(9) == math.sqrt(9)"],
    },
    {
        "task_id": 3, "prompt": "Write a function to reverse a list.", "test_imports": [],
        "code": "def back(xs):\n    return xs[::-1]", "test_list": ["assert back([1, 2]) == [2, 1]"],
    },
]  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as a file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def need_sandbox() -> None:
    """Skip a test where this machine's kernel has no sandbox."""
    try:
        check()
    except SandboxError as error:
        pytest.skip(str(error))
