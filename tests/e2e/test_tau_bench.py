"""`eval-tau-bench` through the real command, with clones that write what the harnesses write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fake_tau
from e2e.shell import Done, tinygpt
from fake_openai import FakeOpenAI, Reply, chat
from serving import tiny_chat_model
from tinygpt.core.rows import read_rows
from tinygpt.eval.gate.evidence import Key, Side
from tinygpt.runs import _tau_results

LAYOUTS = {"tau": "retail", "tau2": "telecom"}


def server(name: str, said: Callable[[str], str | None]) -> FakeOpenAI:
    """A server whose model says `said(text)`; None: it fails."""

    def answer(path: str, body: dict[str, Any]) -> Reply:
        if path.endswith("/models"):
            return {"data": [{"id": name}]}
        text = said(body["messages"][-1]["content"])
        return (500, {}, {"error": {"message": "no"}}) if text is None else chat(text)

    return FakeOpenAI(answer)


def run(
    tmp_path: Path, layout: str, agent: Callable[[str], str | None], *words: object, code: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]], Done]:
    """The rows by metric, the records, and how the command ended."""
    root, out = fake_tau.clone(tmp_path / "clone", layout), tmp_path / "rows.jsonl"
    python = fake_tau.interpreter(tmp_path / "python")
    user = server("org/simulator", lambda text: "I want my money back")
    with server("agent", agent).serving() as asked, user.serving() as other:
        done = tinygpt(
            "eval-tau-bench", "--url", asked.url, "--tau-root", root, "--env", LAYOUTS[layout],
            "--user-url", other.url, "--harness-python", python, "--out", out, "--json", *words,
        )  # fmt: skip
    assert done.code == code, done.err
    rows, invalid = read_rows(out)
    assert not invalid
    records = [json.loads(line) for line in out.with_name("rows.examples.jsonl").read_text().splitlines()]
    return {row.metric: row for row in rows}, records, done


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pass_hat_k_of_an_agent_that_is_right_now_and_then(tmp_path: Path, layout: str) -> None:
    def agent(text: str) -> str:
        return "good" if text in ("agent 0 0", "agent 0 1", "agent 1 0") else "bad"

    rows, records, _ = run(tmp_path, layout, agent, "--trials", 2)
    assert {name: row.score for name, row in rows.items()} == {"pass^1": 1.5 / 3, "pass^2": 1 / 3}
    assert len(records) == 6 and {r["run_id"] for r in records} == {row.run_id for row in rows.values()}
    side = Side(rows=[*rows.values()], records=records)
    for row in rows.values():  # the gate takes them, task by task
        scores = side.scores(Key.of(row), [row])
        assert scores is not None and sum(scores.values()) / len(scores) == pytest.approx(row.score)
    assert {r["n_steps"] for r in records} == {2 if layout == "tau" else 1}
    for row in rows.values():
        assert (row.task, row.subtask, row.n_examples, row.n_failed) == ("tau_bench", LAYOUTS[layout], 3, 0)
        assert row.settings["user"]["model"] == "org/simulator" and row.model_name == "agent"
        assert row.harness_version == {"tau": "tau-bench 0.1.0", "tau2": "tau2-bench 1.0.1"}[layout]
    trace = json.loads(Path(records[0]["trace"]).read_text())
    assert trace["task"] == "0" and trace["steps"][-1] == {
        "role": "assistant", "content": "good", "reward": 1.0,
    }  # fmt: skip
    if layout == "tau":
        assert [step.get("tool_call", {}).get("name") for step in trace["steps"]].count("look") == 1
        assert trace["steps"][3]["tool_result"]["stdout"] == "seen"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("said", "score"), [("good", 1.0), ("bad", 0.0)])
def test_a_right_agent_scores_one_and_a_wrong_one_zero(
    tmp_path: Path, layout: str, said: str, score: float
) -> None:
    rows, records, _ = run(tmp_path, layout, lambda text: said, "--limit", 2, "--trials", 5)
    assert {name: row.score for name, row in rows.items()} == {f"pass^{k}": score for k in (1, 2, 3, 4)}
    assert len(records) == 10


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_trial_that_broke_off_is_counted_and_no_success(tmp_path: Path, layout: str) -> None:
    def agent(text: str) -> str | None:
        return None if text == "agent 1 0" else "good"

    rows, records, done = run(tmp_path, layout, agent, code=2)
    assert "1 answers failed to come" in done.err
    assert rows["pass^1"].score == pytest.approx(2 / 3) and rows["pass^1"].n_failed == 1
    assert [r["correct"] for r in records] == [True, False, True] and records[1]["error"]


def test_agent_and_user_may_be_models_of_this_machine(tmp_path: Path) -> None:
    model, root = tiny_chat_model(tmp_path), fake_tau.clone(tmp_path / "clone", "tau")
    done = tinygpt(
        "eval-tau-bench", model, "--tau-root", root, "--user-model", model, "--limit", 1, "--json",
        "--harness-python", fake_tau.interpreter(tmp_path / "python"),
    )  # fmt: skip
    assert done.code == 0, done.err
    (row,) = done.json
    assert row["n_failed"] == 0 and len(row["model_hash"]) == 64
    assert row["settings"]["user"] == {"model": "tiny", "path": str(model), "hash": row["model_hash"]}


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    def refused(*words: object) -> str:
        done = tinygpt("eval-tau-bench", "--url", "http://127.0.0.1:9/v1", *words)
        assert done.code == 2 and len(done.err.splitlines()) == 2, done.err
        return done.err

    assert "is no clone of tau-bench" in refused("--tau-root", tmp_path, "--user-model", "x")
    assert "git clone" in refused("--tau-root", tmp_path, "--user-model", "x")
    root = fake_tau.clone(tmp_path / "clone", "tau")
    assert "nobody plays the user" in refused("--tau-root", root)
    assert "has no 'telecom'" in refused("--tau-root", root, "--user-model", "x", "--env", "telecom")
    two = fake_tau.clone(tmp_path / "two", "tau2")
    assert f"pip install {two}" in refused("--tau-root", two, "--user-model", "x", "--env", "telecom")
    python = fake_tau.interpreter(tmp_path / "python")
    dead = refused("--tau-root", root, "--user-url", "http://127.0.0.1:9/v1", "--harness-python", python)
    assert "does not answer" in dead


def test_pass_hat_is_the_share_of_subsets_that_are_all_right() -> None:
    from itertools import combinations

    for right, k in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (3, 4)]:
        outcomes = [True] * right + [False] * (4 - right)
        subsets = list(combinations(outcomes, k))
        assert _tau_results.pass_hat(right, 4, k) == sum(all(one) for one in subsets) / len(subsets)
