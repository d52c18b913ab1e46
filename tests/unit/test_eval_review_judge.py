"""A judge beside the matching of reviews: what it is asked, and what its words and its silence count for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import row_suites
from scripted import ScriptedEndpoint
from tinygpt.core.errors import DataError
from tinygpt.eval.endpoint import Prompt, Reply
from tinygpt.eval.playback import Playback
from tinygpt.eval.suites import review

BUG = {"line": 2, "category": "bug", "description": "division by zero"}
LEAK = {"line": 9, "category": "leak"}
ROWS: list[dict[str, Any]] = [
    # Found in other words, far away, which the matching does not see; the second report is made up.
    {"code": "a\nb / 0", "planted_issues": [BUG], "found_issues": [{"line": 7, "category": "crash"}, LEAK]},
    {"code": "c\nd", "planted_issues": [LEAK], "found_issues": [{"line": 9, "category": "leak"}]},
    {"code": "e", "planted_issues": [BUG], "found_issues": []},
    {"code": "f", "planted_issues": [], "found_issues": ["slow"]},
    {"code": "g", "planted_issues": [], "found_issues": []},
]


def run(folder: Path, answer: Callable[[str], str | Reply], rows: list[dict[str, Any]] = ROWS) -> Any:
    """What the suite makes of given reviews and a judge that says `answer(question)`."""

    def said(prompt: Prompt) -> str | Reply:
        assert isinstance(prompt, list)
        return answer(prompt[0]["content"])

    config = review.Config(data=row_suites.write("review", folder, rows), judge=Path("models/judge"))
    examples, reviewer = review.load(config), Playback(name="given")
    reviewer.answers = [review.predicted(item) for item in examples.items]
    return review.score(reviewer, examples, config, judge=ScriptedEndpoint(said, name="judge"))


def judged(found: Any) -> dict[str, Any]:
    return {row.metric: row for row in found.rows if row.task == "review_judge"}


def right(question: str) -> str:
    """A judge who knows that a crash is the division by zero."""
    asked = question.partition("Does ")[0]
    if "/ 0" in asked:
        made_up = "A reviewer reported:\n- " + json.dumps(LEAK) in asked and "crash" not in asked
        return "NO" if made_up else "YES"
    return "YES"


def test_figures_by_hand(tmp_path: Path) -> None:
    rows = judged(found := run(tmp_path, right))
    # Planted: two of three found (the third has no report); reported: crash and leak are real, two are not.
    assert {name: (row.score, row.n_examples) for name, row in rows.items()} == {
        "recall": (pytest.approx(2 / 3), 3), "precision": (0.5, 4),
        "agreement": (pytest.approx(3 / 5), 5), "kappa": (pytest.approx(0.0 + _kappa()), 5),
    }  # fmt: skip
    assert rows["recall"].interval is not None and rows["recall"].settings["judge"]["name"] == "judge"
    assert rows["recall"].settings["asked"] == 5 and rows["recall"].model_name == "given"
    plain = {row.metric: row.score for row in found.rows if row.task == "review"}
    assert plain["recall"] == pytest.approx(1 / 3), "the matching is what it was"
    for name, row in rows.items():
        mine = [e["scores"][name] for e in found.examples if name in e.get("scores", {}) and "side" in e]
        assert name == "kappa" or sum(mine) / len(mine) == row.score
    assert len({example["id"] for example in found.examples}) == len(found.examples)


def _kappa() -> float:
    """Judge: YES YES NO YES YES; matching: no, no, no, yes, yes."""
    seen, chance = 3 / 5, 4 / 5 * 2 / 5 + 1 / 5 * 3 / 5
    return (seen - chance) / (1 - chance)


def test_what_a_judge_is_shown(tmp_path: Path) -> None:
    asked: list[str] = []
    run(tmp_path, lambda question: asked.append(question) or "NO")
    assert len(asked) == 5, "nothing is asked where a list is empty"
    first = asked[0]
    assert "1: a\n2: b / 0" in first and "division by zero" in first
    assert '"category": "crash"' in first and '"category": "leak"' in first
    assert "Does one of the reports" in first and "Does the report" in asked[1]


def test_key_and_contrary(tmp_path: Path) -> None:
    """A judge who always says what the matching says agrees with it, one who says the contrary never."""
    rows = [ROWS[1], {**ROWS[0], "found_issues": [{"line": 7, "category": "crash"}]}]
    for yes, score in (("c\n2: d", 1.0), ("b / 0", 0.0)):
        found = judged(run(tmp_path, lambda asked, yes=yes: "YES" if yes in asked else "NO", rows))
        assert found["agreement"].score == score and found["kappa"].score == 2 * score - 1
        assert found["recall"].score == found["precision"].score == 0.5


def test_an_error_of_the_judge_is_no_score(tmp_path: Path) -> None:
    def failing(question: str) -> str | Reply:
        return Reply.failed("gone") if "Does one" in question and "/ 0" in question else right(question)

    rows = judged(found := run(tmp_path, failing))
    assert {row.n_failed for row in rows.values()} == {1}
    assert (rows["recall"].score, rows["recall"].n_examples) == (0.5, 2), (
        "the one that did not come is not in it"
    )
    assert rows["agreement"].n_examples == 4
    assert [e["error"] for e in found.examples if e["task"] == "review_judge" and e.get("error")] == ["gone"]
    none = judged(run(tmp_path, lambda _: Reply.failed("gone")))
    assert "agreement" not in none and {row.n_failed for row in none.values()} == {5}


def test_words_that_are_no_verdict_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = judged(run(tmp_path, lambda question: "perhaps" if "/ 0" in question else "YES."))
    assert rows["agreement"].n_examples == 2 and rows["agreement"].settings["unreadable_verdicts"] == 3
    assert rows["recall"].n_examples == 2 and rows["agreement"].n_failed == 0
    with pytest.raises(DataError, match="judge judge gave no verdict that can be read; one is 'perhaps'"):
        run(tmp_path, lambda _: "perhaps")


def test_reviews_that_did_not_come_are_not_judged(tmp_path: Path) -> None:
    rows = [{key: value for key, value in ROWS[0].items() if key != "found_issues"}, ROWS[1]]
    found = run(tmp_path, right, rows)
    assert judged(found)["recall"].n_examples == 1 and found.rows[0].n_failed == 1
