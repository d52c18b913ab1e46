"""The gate with models: suites of tinygpt in a child, budgets there, the specialist's own gate."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from e2e.shell import Done, refused, tinygpt
from fake_openai import FakeOpenAI, chat
from tinygpt.core.rows import read_rows
from tinygpt.eval.gate.spec import Budget, Suite, parse
from tinygpt.eval.suites import executed_state
from tinygpt.model import checkpoint
from tinygpt.model.lm import LM, initialize
from tinygpt.runs import _pieces
from tinygpt.runs._gate_child import chosen
from tinygpt.runs._gate_files import side

SPECIALIST = Path(__file__).resolve().parents[2] / "specialists" / "file-ops-tiny"


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the specialist's shape that has learned nothing."""
    loaded, tokenizer = _pieces.open_model(SPECIALIST)
    model = initialize(LM(loaded.model.config), 0)
    path = tmp_path_factory.mktemp("untrained") / "model"
    return checkpoint.save(
        path, model, write_tokenizer=tokenizer.save, ids=_pieces.ids(tokenizer), stop_ids=tokenizer.stop_ids
    )


def small(folder: Path, **change: Any) -> Path:
    """The specialist's gate with fewer tasks, so that a test can wait for it."""
    spec = json.loads((SPECIALIST / "eval-gate.json").read_text(encoding="utf-8"))
    spec["suites"][0]["options"] = {"n": 10, "max_tokens": 48}
    spec |= {"model": str(SPECIALIST), "baseline": str(folder / "baseline.jsonl"), **change}
    path = folder / "eval-gate.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


def gate(spec: Path, *words: object) -> tuple[Done, Any]:
    out = spec.parent / "gate-result.json"
    done = tinygpt("eval-gate", "--spec", spec, "--out", out, "--quiet", *words)
    return done, json.loads(out.read_text(encoding="utf-8"))


def test_the_specialist_passes_its_gate_and_an_untrained_model_does_not(
    tmp_path: Path, untrained: Path
) -> None:
    spec = small(tmp_path)
    done, found = gate(spec, "--update-baseline")
    assert done.code == 0 and [one["verdict"] for one in found["suites"]] == ["new"] * 3, done.err
    done, found = gate(spec)
    assert done.code == 0 and found["passed"], done.err
    assert [one["deltaPP"] for one in found["suites"]] == [0.0] * 3
    done, found = gate(spec, "--model", untrained)
    assert done.code == 1 and {one["verdict"] for one in found["suites"]} == {"fail"}, done.out
    assert found["protocol"]["budget"]["max_tokens"] == 160 and found["suites"][0]["lost"]["n"] > 5


def test_the_shipped_gate_is_of_the_suite_as_it_is_today() -> None:
    """Its baseline was measured on the very tasks that the suite asks now, with the settings it gives."""
    spec = parse(json.loads((SPECIALIST / "eval-gate.json").read_text(encoding="utf-8")), "eval-gate.json")
    (suite,) = spec.suites
    assert spec.baseline is not None and suite.suite == "executed_state"
    rows, bad = read_rows(SPECIALIST / spec.baseline)
    assert not bad and [row.subtask for row in rows] == list(suite.subtasks)
    config = chosen(suite, spec.budget, SPECIALIST)
    asked = executed_state.load(config)
    assert {row.data_version for row in rows} == {asked.version}
    measured, bad = side(SPECIALIST / spec.baseline)
    assert not bad and len(measured.records) == len(asked.items) == 600
    for key in measured.scored():
        scores = measured.scores(key, measured.passes(key))
        assert scores is not None and len(scores) == 200
    assert not Path(rows[0].model_path).is_absolute()
    assert all(row.score > 0.8 and row.n_failed == 0 for row in rows)


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({"wall_seconds": 0.001}, "model was opened it was killed: it took longer than"),
        ({"sandbox_ram_mb": 1}, "the budget's sandbox_ram_mb is 1"), ({"max_tokens": 8}, "the budget's is 8"),
        ({"temperature": 0.5}, "temperature 0.0; the budget says 0.5"),
    ],
)  # fmt: skip
def test_budgets_of_suites_of_tinygpt(tmp_path: Path, budget: dict[str, Any], says: str) -> None:
    spec = small(tmp_path, budget=budget)
    text = json.loads(spec.read_text(encoding="utf-8"))
    text["suites"][0]["options"] = {"n": 1, "max_tokens": 9}
    spec.write_text(json.dumps(text), encoding="utf-8")
    done, found = gate(spec, "--update-baseline")
    assert done.code == 2 and says in json.dumps(found["problems"]), found
    assert not (tmp_path / "baseline.jsonl").exists()


def children() -> list[int]:
    """The processes of gates that this one runs."""
    told = subprocess.run(
        ["ps", "-axww", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=True
    )
    lines = (line.split(None, 2) for line in told.stdout.splitlines())
    return [int(pid) for pid, parent, what in lines if int(parent) == os.getpid() and "_gate_child" in what]


@pytest.mark.parametrize(
    ("asked", "budget", "says"),
    [
        ("stall", {"wall_seconds": 8},
         "bad: it was killed: it took longer than the budget's wall_seconds, 8"),
        ("allocate", {"sandbox_ram_mb": 250},
         r"bad: it was killed: it took \d+ MiB; the budget's sandbox_ram_mb is 250"),
        ("die", {}, "bad: it ended with signal 9: a machine that is out of memory does that"),
    ],
)  # fmt: skip
def test_a_suite_of_tinygpt_is_ended_and_the_next_one_goes_on(
    tmp_path: Path, asked: str, budget: dict[str, Any], says: str
) -> None:
    """A suite that stalls, takes all memory or is killed breaks the gate, in one line; nothing of it goes on,
    and the suite after it is measured all the same."""
    held, seen = threading.Event(), list[int]()

    def answer(path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/models"):
            return {"data": [{"id": "fake"}]}
        words = body["messages"][-1]["content"].split()
        if words[0] == "stall":
            seen.extend(children())
            held.wait(60)
        elif words[0] == "die":
            for child in children():
                os.kill(child, signal.SIGKILL)
        return chat(f"#### {2 * int(words[0])}" if words[0].isdigit() else "")

    for name, first in {"bad.jsonl": asked, "good.jsonl": "7"}.items():
        rows = [{"question": f"{first} and {first}?", "answer": "#### 14"}]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    bad: dict[str, Any] = {"name": "bad", "suite": "gsm8k", "options": {"data": "bad.jsonl"}}
    if asked == "allocate":
        bad = {"name": "bad", "suite": "sort_6", "options": {"n": 1_000_000_000}}
    suites = [bad, {"name": "good", "task": "gsm8k", "suite": "gsm8k", "options": {"data": "good.jsonl"}}]
    spec = tmp_path / "eval-gate.json"
    with FakeOpenAI(answer).serving() as server:
        told = {"baseline": "b.jsonl", "suites": suites, "model": "fake", "url": server.url, "budget": budget}
        spec.write_text(json.dumps(told))
        done, found = gate(spec, "--update-baseline")
        held.set()
    assert done.code == 2 and not (tmp_path / "b.jsonl").exists(), done.err
    (line,) = (line for line in done.out.splitlines() if line.startswith("problem: bad: "))
    assert re.fullmatch(f"problem: {says}", line), line
    assert {one["candidateScore"] for one in found["suites"] if one["name"] == "good"} == {1.0}, done.out
    assert found["spent"]["good"]["peakMb"] > 20 and found["spent"]["bad"]["seconds"] > 0
    assert not children() and (asked != "stall" or seen)


def test_a_budget_shortens_answers_that_no_option_lengthens(tmp_path: Path) -> None:
    spec = small(tmp_path, budget={"max_tokens": 5})
    text = json.loads(spec.read_text(encoding="utf-8"))
    text["suites"][0]["options"] = {"n": 1}
    spec.write_text(json.dumps(text), encoding="utf-8")
    assert gate(spec, "--update-baseline")[0].code == 0
    assert read_rows(tmp_path / "baseline.jsonl")[0][0].settings["max_tokens"] == 5


def test_each_pass_draws_other_answers() -> None:
    """Where answers are drawn; the tasks are the same in each pass."""
    drawn = Suite(name="h", suite="humaneval", options={"data": "h.jsonl", "temperature": 0.8})
    budget = Budget(sampling_seed=17)
    seeds = [chosen(drawn, budget, Path("at"), number).seed for number in range(3)]
    assert seeds == [17, 18, 19] and chosen(drawn, budget, Path("at")).data == Path("at/h.jsonl")
    own = dataclasses.replace(drawn, options={**drawn.options, "seed": 4})
    assert chosen(own, budget, Path(), 1).seed == 5
    tasks = Suite(name="s", suite="sort_6")
    assert chosen(tasks, budget, Path(), 1) == chosen(tasks, budget, Path())


def test_tasks_of_the_suite_are_found_in_training_data(tmp_path: Path) -> None:
    asked = executed_state.load(executed_state.Config(n=10, max_tokens=48)).items
    rows = [{"messages": item["messages"]} for item in asked[3:5]]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "run").mkdir()
    ran = {"command": "sft", "config": {"data": [str(tmp_path / "train.jsonl")]}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(ran), encoding="utf-8")
    for training in ("train.jsonl", "run"):
        done, found = gate(small(tmp_path, train_data=[training]), "--update-baseline")
        assert done.code == 2 and found["contamination"]["file-ops"]["ids"] == [i["id"] for i in asked[3:5]]
    assert (
        gate(small(tmp_path, train_data=["train.jsonl"], max_overlap=0.1), "--update-baseline")[0].code == 0
    )


def test_a_package_stays_whole_when_its_baseline_is_made_anew(tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(SPECIALIST, package)
    spec = json.loads((package / "eval-gate.json").read_text(encoding="utf-8"))
    spec["suites"][0]["options"] = {"n": 1, "max_tokens": 9}
    (package / "eval-gate.json").write_text(json.dumps(spec), encoding="utf-8")
    refused(tinygpt("validate", package), "eval-gate.json is not the file that was locked")
    words = ["eval-gate", "--spec", package / "eval-gate.json", "--out", tmp_path / "r.json"]
    assert tinygpt(*words, "--update-baseline").code == 0
    assert tinygpt("validate", package).code == 0


def test_files_of_suites_and_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite's files are seen from the gate's folder, whatever the folder one stands in; a server is asked
    as a model is, and where it is not there nothing passes."""
    problems = [{"question": f"{i} and {i}?", "answer": f"#### {2 * i}"} for i in range(4)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    suite = {"name": "gsm8k", "suite": "gsm8k", "options": {"data": "problems.jsonl"}}
    spec = tmp_path / "eval-gate.json"
    told = {"baseline": "baseline.jsonl", "suites": [suite], "model": "fake"}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def answer(path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/models"):
            return {"data": [{"id": "fake"}]}
        asked = body["messages"][-1]["content"]
        return chat(f"#### {2 * int(asked.split()[0])}")

    with FakeOpenAI(answer).serving() as server:
        spec.write_text(json.dumps({**told, "url": server.url}))
        done, found = gate(Path("..") / spec.name, "--update-baseline")
        assert done.code == 0 and [one["candidateScore"] for one in found["suites"]] == [1.0, 1.0], done.err
        assert gate(spec)[0].code == 0
    done, found = gate(spec)
    assert done.code == 2 and not found["passed"] and "does not answer" in done.err


def test_a_gate_without_a_model_says_so(tmp_path: Path) -> None:
    done, _ = gate(small(tmp_path, model=None), "--update-baseline")
    assert done.code == 2 and "no model to ask" in done.err
