"""The judge: both orders, ties, its bias, labels; a verdict that cannot be read is no verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import row_suites
from scripted import ScriptedEndpoint
from serving import tiny_chat_model
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.eval import pooled
from tinygpt.eval.endpoint import GREEDY, Prompt, Reply
from tinygpt.eval.suites import judge
from tinygpt.runs._local_endpoint import LocalEndpoint


class Judge(ScriptedEndpoint):
    """A judge that `choose`s from (first answer, second answer)."""

    def __init__(self, choose: Any) -> None:
        super().__init__(self._say)
        self.choose = choose
        self.held: list[tuple[str, ...]] = []

    def _say(self, prompt: Prompt) -> Any:
        text = prompt[0]["content"]  # type: ignore[index]
        first, _, second = text.partition("Answer A:\n")[2].partition("\n\nAnswer B:\n")
        return self.choose(first, second.partition("\n\n")[0])

    def complete(self, prompts: Any, *, sampling: Any = GREEDY, **more: Any) -> list[Reply]:  # type: ignore[override]
        self.held.append(sampling.choices)
        return super().complete(prompts, **more)


def judged(folder: Path, choose: Any, rows: Any = None, **settings: Any) -> Any:
    config = judge.Config(data=row_suites.write("judge", folder, rows), **settings)
    return judge.score(Judge(choose), judge.load(config), config)


def figures(result: Any) -> dict[str, float]:
    return {row.metric: row.score for row in result.rows}


def by_label(folder: Path) -> Any:
    """Says what the labels say."""
    better = {}
    for row in row_suites.ROWS["judge"](folder):
        a, b = row["response_a"], row["response_b"]
        better[a, b] = {"a": "A", "b": "B", "tie": "TIE"}[row["label"]]
        better[b, a] = {"a": "B", "b": "A", "tie": "TIE"}[row["label"]]
    return lambda first, second: better[first, second]


def test_a_judge_of_the_labels_mind_and_a_biased_one(tmp_path: Path) -> None:
    right = figures(judged(tmp_path, by_label(tmp_path)))
    assert right == {"win_rate": 0.5, "order_agreement": 1.0, "position_bias": 0.0, "label_agreement": 1.0,
                     "label_kappa": 1.0}  # fmt: skip
    for place in ("A", "B"):
        biased = judged(tmp_path, lambda first, second, place=place: place)
        assert figures(biased) == pytest.approx(
            {"win_rate": 0.5, "order_agreement": 0.0, "position_bias": 1.0, "label_agreement": 1 / 3,
             "label_kappa": 0.0}
        )  # fmt: skip
        assert biased.rows[0].settings["outcomes"] == {"tie": 6}
    likes_first = judged(tmp_path, lambda first, second: "A" if first.startswith("first") else "B")
    assert figures(likes_first)["win_rate"] == 1.0 and figures(likes_first)["position_bias"] == 0.0
    row = likes_first.rows[0]
    assert (
        row.n_examples == 6
        and row.interval == (pytest.approx(0.61, abs=0.01), 1.0)
        and row.model_name == "scripted"
    )
    assert row.settings["judge"] == {"name": "scripted", "path": "models/scripted", "model_hash": "0" * 12}
    named = judged(tmp_path, lambda *_: "A", judged="tutor").rows[0]
    assert (named.model_name, named.model_hash) == ("tutor", None)


def test_a_verdict_that_cannot_be_read_is_left_out_and_counted(tmp_path: Path) -> None:
    def choose(first: str, second: str) -> Any:
        if "0" in first:
            return "neither, since both are short"
        return Reply.failed("gone") if first == "second 1" else "A" if first.startswith("first") else "B"

    found = judged(tmp_path, choose)
    row = found.rows[0]
    assert (row.n_examples, row.score, row.n_failed, row.settings["unreadable"]) == (4, 1.0, 1, 1)
    assert [one["readable"] for one in found.examples] == [False, False, True, True, True, True]
    assert found.examples[1]["error"] == "gone" and not found.examples[1]["correct"]
    with pytest.raises(DataError, match="no verdict that can be read; one is 'the first'"):
        judged(tmp_path, lambda *_: "the first")


def test_how_verdicts_are_written(tmp_path: Path) -> None:
    def read(text: str, **settings: Any) -> str | None:
        config = judge.Config(data=tmp_path, **settings)
        message = {"role": "assistant", "content": text}
        return judge.verdict(
            Reply(message=message, text=text, finish_reason="stop", n_tokens=1),
            config.verdicts,
            reasoned=config.reason,
        )

    pair = {"A": "A", " b.": "B", "**Tie**": "TIE", "[[A]]": "A", "The answer is B.": "B", "A and B": None,
            "C": None, "": None, "A is worse than B": None, "Banana": None}  # fmt: skip
    assert {text: read(text) for text in pair} == pair
    rates = {"7": "7", "7/10": "7", "Rating: 10": "10", "11": None, "0": None, "7.5": None, "A": None}
    assert {text: read(text, mode="rate") for text in rates} == rates
    told = {
        "A is better.\nVerdict: B": "B",
        "**Verdict:** tie.": "TIE",
        "B": None,
        "Verdict: A, I think": None,
    }
    assert {text: read(text, reason=True) for text in told} == told
    assert read("so.\nverdict: 4/5", reason=True, mode="rate", high=5) == "4"


def test_ratings_their_mean_and_their_labels(tmp_path: Path) -> None:
    labels = [1, 2, 4, 5, None]
    rows = [{"prompt": f"{i}?", "response": "x", "label": label} for i, label in enumerate(labels)]
    (tmp_path / "rubric.txt").write_text("Short is good.\n")
    config = judge.Config(
        data=row_suites.write("judge", tmp_path, rows), mode="rate", high=5, rubric=tmp_path / "rubric.txt"
    )
    examples = judge.load(config)
    said = {repr(item["messages"]): text for item, text in zip(examples.items, ["1", "3", "4", "4", "2"])}
    asked = ScriptedEndpoint(lambda prompt: said[repr(prompt)])
    asked.complete = lambda prompts, *, sampling, **more: ScriptedEndpoint.complete(asked, prompts, **more)  # type: ignore[method-assign]
    found = judge.score(asked, examples, config)
    assert figures(found) == pytest.approx(
        {"mean_rating": 2.8, "label_agreement": 0.5, "label_spearman": 4.5 / (5 * 4.5) ** 0.5}
    )
    shown = examples.items[0]["messages"][0]["content"]
    assert "Short is good.\n\nRate it from 1 (worst) to 5 (best)" in shown
    assert [row.n_examples for row in found.rows] == [5, 4, 4]


def test_agreement_by_hand() -> None:
    # Cohen 1960: 20 and 15 agreed of 50, 5 and 10 not: p_o 0.7, p_e 0.5.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert pooled.kappa(pairs) == pytest.approx(0.4) and pooled.kappa([("a", "a")] * 3) == 0.0
    assert pooled.spearman([(1, 10), (2, 20), (3, 30)]) == pytest.approx(1.0)
    assert pooled.spearman([(1, 3), (2, 2), (3, 1)]) == pytest.approx(-1.0)
    assert pooled.spearman([(1, 1), (1, 2)]) == 0.0 == pooled.spearman([])
    assert pooled.spearman([(1, 1), (2, 1), (3, 2), (4, 2)]) == pytest.approx(2 / 5**0.5)


def test_a_model_of_this_process_is_held_to_the_words(tmp_path: Path) -> None:
    """A model drawn at random cannot say anything else, unless it may reason."""
    endpoint = LocalEndpoint.open(tiny_chat_model(tmp_path))
    config = judge.Config(data=row_suites.write("judge", tmp_path), limit=2)
    found = judge.score(endpoint, judge.load(config), config)
    texts = [text for one in found.examples for text in one["got"]]
    assert len(texts) == 4 and set(texts) <= set(judge.WORDS) and found.rows[0].settings["unreadable"] == 0
    free = Judge(lambda *_: "Verdict: A")
    reasoned = judge.Config(data=config.data, reason=True)
    judge.score(free, judge.load(reasoned), reasoned)
    assert free.held == [()]


def test_settings_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    for wrong in ({"high": 5}, {"mode": "rate", "low": 10}, {"max_tokens": -1}):
        with pytest.raises(ConfigError):
            judge.Config(data=tmp_path, **wrong)  # type: ignore[arg-type]
    rows = [{"prompt": "?", "response_a": "x", "response_b": "y", "label": "c"}]
    with pytest.raises(DataError, match="label 'c' is no verdict"):
        judge.load(judge.Config(data=row_suites.write("judge", tmp_path, rows)))
    missing = judge.Config(data=row_suites.write("judge", tmp_path), rubric=tmp_path / "none.txt")
    with pytest.raises(DataError, match="cannot read the rubric"):
        judge.load(missing)
