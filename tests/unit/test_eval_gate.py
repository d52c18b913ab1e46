"""Parts of the gate: false alarms and power, reports that readers take, contamination, what is believed."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as tree

import pytest

from gates import Measured, measured
from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.rows import EvalRow
from tinygpt.data.rows import strings
from tinygpt.eval.gate.evidence import Key, Side
from tinygpt.eval.gate.leak import overlap, question
from tinygpt.eval.gate.report import Found, junit, markdown, result
from tinygpt.eval.gate.spec import Spec, parse
from tinygpt.eval.gate.verdict import Judged, judge

SCRIPT = Path(__file__).parents[2] / "scripts" / "gate_noise.py"
KEY = Key("t", "", "accuracy")


def side(*given: Measured) -> Side:
    rows = [from_dict(EvalRow, {k: v for k, v in one.row.items() if v is not None}) for one in given]
    return Side(rows=rows, records=[record for one in given for record in one.records])


@pytest.fixture(scope="module")
def noise() -> Any:
    made = importlib.util.spec_from_file_location("gate_noise", SCRIPT)
    assert made is not None and made.loader is not None
    module = importlib.util.module_from_spec(made)
    sys.modules["gate_noise"] = module  # its dataclasses look their module up
    made.loader.exec_module(module)
    return module


@pytest.mark.wide
def test_noise_does_not_fail_and_ten_points_do(noise: Any) -> None:
    """Nearly the same model asked twice; scripts/gate_noise.py does it 2,000 times and for more worlds."""
    assert noise.failed(noise.World(redrawn=0.1), 200) <= 0.05
    assert noise.failed(noise.World(redrawn=0.1, fall=10), 100) >= 0.95


@pytest.mark.wide
def test_another_model_is_judged_without_false_alarms_too(noise: Any) -> None:
    assert noise.failed(noise.World(redrawn=1.0), 150) <= 0.08
    assert noise.failed(noise.World(redrawn=1.0, records=False), 150) <= 0.08


def test_a_lower_alpha_is_stricter_about_noise() -> None:
    new, old = side(measured(154)), side(measured(160))
    assert judge(Spec(), new, old)[0][0].verdict == "fail"
    assert judge(Spec(alpha=0.001), new, old)[0][0].verdict == "pass"


def test_examples_that_changed_are_named() -> None:
    (one,), _ = judge(Spec(), side(measured(range(1, 160))), side(measured(range(0, 159))))
    assert one.lost == ("0",) and one.won == ("159",)


def test_the_last_model_of_a_baseline_counts() -> None:
    old = side(measured(100, model_name="older"), measured(160))
    (one,), _ = judge(Spec(), side(measured(160)), old)
    assert one.baseline == 0.8 and one.verdict == "pass"


def test_records_of_other_rows_are_left_out() -> None:
    rows = side(measured(160, subtask="a"), measured(100, subtask="b"))
    scores = rows.scores(Key("t", "b", "accuracy"), rows.passes(Key("t", "b", "accuracy")))
    assert scores is not None and sum(scores.values()) == 100
    assert side(measured(160, records=False)).scores(KEY, side(measured(160, records=False)).rows) is None


def test_examples_count_as_much_as_they_weigh() -> None:
    """A loss is a mean over tokens: a document of nine counts nine times as much as one of one."""
    row = EvalRow(
        model_path="m", model_name="m", task="t", metric="loss", score=2.8, n_examples=2, wall_seconds=0,
        run_id="r",
    )  # fmt: skip
    of: dict[str, Any] = {"run_id": "r", "task": "t", "subtasks": [None]}
    records = [
        {**of, "id": id, "scores": {"loss": loss}, "weights": {"loss": tokens}}
        for id, loss, tokens in (("a", 1.0, 1), ("b", 3.0, 9))
    ]
    key = Key("t", "", "loss")
    assert Side(rows=[row], records=records).scores(key, [row]) == pytest.approx({"a": 0.2, "b": 5.4})
    for record in records:
        del record["weights"]
    with pytest.raises(DataError, match="the records' mean is 2, the row's 2.8"):
        Side(rows=[row], records=records).scores(key, [row])


def test_conditions_that_differ_are_told() -> None:
    (one,), _ = judge(Spec(), side(measured(template_hash="a")), side(measured(template_hash="b")))
    assert one.verdict == "pass" and "another template hash" in one.notes[0]


def test_junit_is_what_readers_expect() -> None:
    """The elements and attributes of the schema that Jenkins and GitLab read, in its order."""
    new = side(measured(100), measured(160, metric="f1"), measured(task="u\x00"))
    judged, _ = judge(Spec(), new, side(measured(160), measured(160, metric="f1"), measured(task="w")))
    root = tree.fromstring(junit(Found(judged=judged, problems=[("t", "it crashed <&>\x1b")])))
    assert root.tag == "testsuites"
    seen = {"failures": 0, "errors": 0, "tests": 0}
    for suite in root:
        assert suite.tag == "testsuite" and {"name", "tests", "failures", "errors"} <= suite.attrib.keys()
        cases = list(suite)
        assert int(suite.attrib["tests"]) == len(cases)
        for case in cases:
            assert case.tag == "testcase" and {"name", "classname"} <= case.attrib.keys()
            assert [child.tag for child in case] in (["failure"], ["error"], ["system-out"])
        for name, tag in (("failures", "failure"), ("errors", "error")):
            assert int(suite.attrib[name]) == sum(case.find(tag) is not None for case in cases)
            seen[name] += int(suite.attrib[name])
        float(suite.attrib["time"])
    assert (seen["failures"], seen["errors"]) == (1, 3)


def test_a_summary_makes_no_markdown_of_its_own() -> None:
    one = Judged(name="a|b", key=Key("<b>", "", "x"), lower=False, verdict="broken", why="`rm` [x](y)\n# z")
    text = markdown(Found(judged=[one], problems=[("", "<script>")]))
    assert "<b>" not in text and "<script>" not in text.replace("\\<script\\>", "")
    (line,) = (line for line in text.splitlines() if "a\\|b" in line)
    assert "\\`rm\\`" in line and line.replace("\\|", "").count("|") == 10


def test_nothing_gated_is_no_pass() -> None:
    assert Found().exit_code == 2 and not result(Found())["passed"]
    assert 'errors="1"' in junit(Found())


def test_a_broken_gate_wins_over_a_fall() -> None:
    fell = Judged(name="t", key=KEY, lower=False, verdict="fail")
    assert Found(judged=[fell]).exit_code == 1
    assert Found(judged=[fell, dataclasses.replace(fell, verdict="missing")]).exit_code == 2


@pytest.mark.parametrize(
    "spec",
    [
        {"suites": [{"name": "a"}, {"name": "a"}]},
        {"suites": [{"name": "a", "command": ["x"], "suite": "y"}]},
        {"suites": [{"name": "a", "options": {"n": 1}}]}, {"default_threshold": -1}, {"passes": 0},
        {"alpha": 0}, {"max_overlap": 2}, {"likeness": 0}, {"suites": [{"name": "a", "wants": "x"}]},
        {"budget": {"wall_seconds": 0}}, {"budget": {"max_step": 1}},
        {"suites": [{}]}, {"default_unit": "points"},
    ],
)  # fmt: skip
def test_specs_that_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        parse(spec, "gate.json")


def test_contamination_by_question_or_by_a_paragraph_of_its_own() -> None:
    how = "\n\nSolve it step by step and write the number last."
    asked = {
        "a": "Ann has 3 apples and buys 4 more." + how,
        "b": "Bob has 5 pears, and he eats one of them." + how,
        "c": "Cid sells nine red balloons today." + how, "d": "hi",
    }  # fmt: skip
    rows = [
        {"question": "ANN has 3 apples, and buys 5 more", "answer": "8"},
        {"messages": [{"role": "user", "content": asked["c"]}]},
        {"text": "Solve it step by step and write the number last."},
        {"text": "bob has five pears"},
    ]
    training = [text for row in rows for text in strings(row)]
    found = overlap(asked, training)
    assert found.seen == ("c",) and found.n == 4 and found.n_training == len(training)
    found = overlap(asked, [*training, "Ann has 3 apples and buys 4 more!", " Hi "])
    assert found.seen == ("a", "c", "d") and found.share == 0.75


def test_contamination_by_most_of_the_words() -> None:
    asked = {"a": "Delete the folder with the old invoices now.", "b": "Play some music in the kitchen."}
    training = ["Hello.\n\nPlease delete the folder with the old invoices!", "Play it in the garden."]
    assert overlap(asked, training).seen == ()
    assert overlap(asked, training, 0.6).seen == ("a",)  # 6 of 8 words
    assert overlap(asked, training, 0.8).seen == ()
    assert overlap(asked, training, 0.3).seen == ("a", "b")  # 3 of 8 words


def test_what_an_example_asks() -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant"}]
    assert question({"messages": turns}) == "u"
    assert question({"request": "r", "id": 1}) == "r" and question({"got": "x"}) == ""
