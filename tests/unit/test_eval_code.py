"""Programs that models write: taken out of answers, run, counted."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

import problems
from scripted import ScriptedEndpoint
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.eval.endpoint import Reply
from tinygpt.eval.suites import _code, humaneval, mbpp

pytestmark = pytest.mark.wide  # they start processes


def test_pass_at_k_is_the_chance_of_a_draw() -> None:
    for n, c in ((5, 0), (5, 2), (5, 5), (6, 1)):
        for k in range(1, n + 1):
            draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
            assert _code.pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_code_is_taken_out_of_answers() -> None:
    said = "Sure!\n```python\nimport os\n```\nand\n```py\ndef f():\n    pass\n```\nHope it helps"
    assert _code.block(said, "def f(") == "def f():\n    pass"
    assert _code.block(said, "def g(") == "import os"
    assert _code.block("def f(): pass") == "def f(): pass"
    assert _code.block("```\ndef f():\n    return 1") == "def f():\n    return 1", "a block that was cut off"
    assert _code.cut("    return 1\ndef g():", humaneval.STOP) == "    return 1"
    assert _code.cut("    return 1", humaneval.STOP) == "    return 1"
    begin = "def f():\n"
    assert _code.parsing(begin, "    x = 1\n    return (x +") == begin + "    x = 1\n"
    assert _code.parsing(begin, "    ((") == begin + "    ((\n", "none parses: it fails as it is"


def scored(folder: Path, answer: Any, rows: Any = None, suite: Any = humaneval, **knobs: Any) -> Any:
    problems.need_sandbox()
    path = problems.write(folder / "problems.jsonl", rows or problems.HUMANEVAL[:1])
    config = suite.Config(data=path, **knobs)
    return suite.score(ScriptedEndpoint(answer), suite.load(config), config)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("    return sum(xs)\n\ndef other(): ((", "ok"),
        ("    return 1\n", "failed"),
        ("    while True: pass\n", "time"),
        ("    return [0] * 10**9\n", "memory"),
        ("    import os; os._exit(0)\n", "failed"),
        ("    ((\n", "failed"),
    ],
)
def test_verdicts(answer: str, verdict: str, tmp_path: Path) -> None:
    result = scored(tmp_path, lambda _: answer, prompt="completion", timeout=1.0)
    sample = result.examples[0]["samples"][0]
    assert sample["verdict"] == verdict, sample
    assert result.rows[0].settings["verdicts"] == {verdict: 1}
    assert result.rows[0].score == (verdict == "ok") and result.rows[0].metric == "pass@1"


@pytest.mark.parametrize(
    "answer",
    [
        "```python\ndef add_all(xs: List[int]) -> int:\n    return sum(xs)\n```",
        "```python\nfrom typing import List\ndef add_all(xs):\n    return sum(xs)\n```\nDone.",
        "<think>```python\ndef add_all(xs): 0\n```</think>```python\ndef add_all(xs): return sum(xs)\n```",
        "    return sum(xs)",
    ],
)
def test_messages_may_hold_a_function_or_its_body(answer: str, tmp_path: Path) -> None:
    assert scored(tmp_path, lambda _: answer).rows[0].score == 1.0


def test_several_programs_a_problem(tmp_path: Path) -> None:
    """Two of four are right: pass@1 is a half, pass@3 all but certain."""
    answers = iter(["    return sum(xs)\n", "    return 1\n"] * 2)
    more = {"n": 4, "k": (1, 3), "temperature": 0.8, "prompt": "completion", "seed": 3}
    result = scored(tmp_path, lambda _: next(answers), **more)
    assert [(r.metric, r.score) for r in result.rows] == [("pass@1", 0.5), ("pass@3", 1.0)]
    assert result.rows[0].decoding == {"temperature": 0.8, "top_p": 1.0} and result.rows[0].seed == 3
    assert result.examples[0]["n_right"] == 2 and len(result.examples[0]["samples"]) == 4


def test_an_answer_that_did_not_come_fails_its_problem(tmp_path: Path) -> None:
    replies = iter([Reply.failed("gone"), "    return sum(xs)\n"])
    more = {"n": 2, "temperature": 1.0, "prompt": "completion"}
    result = scored(tmp_path, lambda _: next(replies), **more)
    assert result.rows[0].n_failed == 1 and result.examples[0]["error"] == "gone"
    assert not result.examples[0]["correct"]


def test_more_inputs_of_evalplus(tmp_path: Path) -> None:
    def run(answer: str) -> float:
        return scored(tmp_path, lambda _: answer, problems.PLUS, prompt="completion").rows[0].score

    assert run("    return sum(xs)\n") == 1.0
    assert run("    return sum(xs) if len(xs) < 3 else 0\n") == 0.0, (
        "right on the tests, wrong on more inputs"
    )


def test_the_rows_say_where_nothing_kept_programs_in(tmp_path: Path) -> None:
    knobs: dict[str, Any] = {"prompt": "completion", "unsafe_no_sandbox": True}
    result = scored(tmp_path, lambda _: "    return sum(xs)\n", **knobs)
    assert result.rows[0].score == 1.0 and result.rows[0].settings["unsafe_no_sandbox"] is True


def test_mbpp_in_both_its_forms(tmp_path: Path) -> None:
    key = [
        "def square(x):\n    return x ** 2\nassert square(1)",
        "import math\ndef root(x): return math.sqrt(x)",
    ]
    for prompt in ("chat", "completion"):
        answers = iter(key)
        result = scored(tmp_path, lambda _, a=answers: next(a), problems.MBPP[:2], mbpp, prompt=prompt)
        assert result.rows[0].score == 1.0, result.examples


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    for bad, told in (
        ({"k": (2,)}, "--k 2 must be from 1 to --n"), ({"n": 2}, "would be the same one"),
        ({"timeout": 0.0}, "--timeout"), ({"memory_mb": 1}, "'memory_mb' must be at least 32"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            humaneval.Config(data=tmp_path, **bad)  # type: ignore[arg-type]
    path = problems.write(tmp_path / "p.jsonl", [{"task_id": "x"}, {**problems.MBPP[0], "test_list": []}])
    for suite in (humaneval, mbpp):
        with pytest.raises(DataError, match="none of the 2 rows"):
            suite.load(suite.Config(data=path))
