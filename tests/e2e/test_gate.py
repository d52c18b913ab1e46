"""The gate through its command: what passes, what fell, and what cannot be said, by exit code."""

from __future__ import annotations

import fcntl
import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from e2e.shell import Done, refused, tinygpt
from gates import Measured, measured, score, write
from tinygpt.core.rows import read_rows
from tinygpt.eval.pooled import kappa

COPY = (
    "import os, shutil; out = os.environ['TINYGPT_EVAL_OUT']; shutil.copy('new.jsonl', out); "
    "shutil.copy('new.examples.jsonl', out.replace('rows.jsonl', 'rows.examples.jsonl'))"
)
SPIN = "import time\nwhile True: time.monotonic()"
LARGE = "x = bytearray(300 << 20); x[::4096] = b'x' * len(x[::4096])\n" + SPIN
ASKED = {"prompt": "how many legs has a spider in the garden?"}


def runs(code: str, *more: str) -> dict[str, Any]:
    """A suite that is a program."""
    return {"suites": [{"name": "t", "command": [sys.executable, "-c", code, *more]}]}


def cut(name: str, letters: int = 40) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:-letters])

    return change


def cut_line(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:-1]))

    return change


def passes(*rights: Any, n: int = 200) -> list[Measured]:
    return [measured(right, n) for right in rights]


def training(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        rows = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "8"}]}]
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return change


@dataclass(frozen=True)
class Case:
    """`old` and `new` are the files, `says` stands in the result; without `run` the candidate is given."""

    code: int
    says: str = ""
    new: Sequence[Measured] = field(default_factory=lambda: [measured(160)])
    old: Sequence[Measured] | None = field(default_factory=lambda: [measured(160)])
    spec: dict[str, Any] = field(default_factory=lambda: {"suites": [{"name": "t"}]})
    args: Sequence[object] = ()
    change: Callable[[Path], None] = lambda folder: None
    run: bool = False


NOISY = [*range(26, 160), *range(160, 180)]  # 26 lost, 20 won: 3 points less, and it may be chance
CASES = {
    "nothing changed": Case(0, '"pass"'),
    "a clear fall": Case(1, '"fail"', new=[measured(140)]),
    "a rise": Case(0, '"pass"', new=[measured(180)]),
    "a fall within the threshold": Case(0, '"pass"', new=[measured(157)]),
    "a fall beyond it that may be noise": Case(0, "within noise", new=[measured(NOISY)]),
    "noise counts where it is told to": Case(
        1, "which counts here", new=[measured(NOISY)], args=["--strict-noise"]
    ),
    "noise counts where the spec says so": Case(
        1, new=[measured(NOISY)], spec={"strict_noise": True}
    ),
    "a small fall of the same examples is no noise": Case(1, new=[measured(154)]),
    "a higher threshold": Case(0, '"pass"', new=[measured(140)], args=["--threshold", 15]),
    "a threshold of its own": Case(
        1, new=[measured(140)], args=["--threshold", 15], spec={"suites": [{"name": "t", "threshold": 5}]}
    ),
    "the suite has no row": Case(2, "no row of it", new=[measured(task="u")]),
    "no rows at all": Case(2, "no row of it", new=[]),
    "no rows on either side": Case(2, "has no row of the task", new=[], old=[]),
    "a subtask has no row": Case(
        2, "no row of it", new=[measured(subtask="a")], old=[measured(subtask="a"), measured(subtask="b")]
    ),
    "a named subtask is nowhere": Case(
        2, "no row of b", new=[measured(subtask="a")], old=[measured(subtask="a")],
        spec={"suites": [{"name": "t", "subtasks": ["a", "b"]}]},
    ),  # fmt: skip
    "another subtask is not gated": Case(
        0, new=[measured(subtask="a"), measured(100, subtask="b")],
        old=[measured(subtask="a"), measured(subtask="b")],
        spec={"suites": [{"name": "t", "subtasks": ["a"]}]},
    ),  # fmt: skip
    "without suites every task is gated": Case(
        1, new=[measured(), measured(100, task="u")], old=[measured(), measured(task="u")], spec={}
    ),
    "the baseline has no row": Case(2, "baseline has no row", old=[measured(task="u")]),
    "no baseline file": Case(2, "there is no baseline", old=None),
    "fewer examples": Case(2, "199 examples, the baseline 200", new=[measured(160, 199)]),
    "another version of the data": Case(2, "has the version v2", new=[measured(data_version="v2")]),
    "a version that only one side says": Case(2, "has the version v1", old=[measured(data_version=None)]),
    "answers that failed": Case(2, "1 answers failed", new=[measured(n_failed=1)]),
    "answers of the baseline that failed": Case(2, "baseline: 3 answers", old=[measured(n_failed=3)]),
    "a line cut off": Case(2, "not JSON", change=cut("new.jsonl")),
    "a line of the baseline cut off": Case(2, "the baseline: ", change=cut("old.jsonl")),
    "records cut off": Case(2, "new.examples.jsonl:200: not JSON", change=cut("new.examples.jsonl")),
    "records of fewer examples": Case(
        2, "records of 199 examples", change=cut_line("new.examples.jsonl")
    ),
    "records that contradict the row": Case(2, "mean is 0.8, the row's 0.9", new=[measured(160, score=0.9)]),
    "a score that is no number": Case(2, "not an eval row", new=[measured(score=float("nan"))]),
    "two rows of one run": Case(2, "one run has two rows", new=passes(160) * 2),
    "rows of two models": Case(2, "different models", new=[measured(), measured(model_name="k")]),
    "too few examples to tell": Case(2, "cannot say", new=[measured(6, 10)], old=[measured(8, 10)]),
    "few examples, and clear": Case(1, new=[measured(2, 10)], old=[measured(8, 10)]),
    "few examples, and no fall": Case(0, new=[measured(8, 10)], old=[measured(8, 10)]),
    "without records, a clear fall": Case(
        1, "two shares", new=[measured(120, records=False)], old=[measured(records=False)]
    ),
    "without records, noise": Case(
        0, "within noise", new=[measured(150, records=False)], old=[measured(records=False)]
    ),
    "records that were lost": Case(2, "it has none", new=[measured(150, records=False)]),
    "a baseline without its records": Case(
        0, "the baseline has no records", new=[measured(157)], old=[measured(records=False)]
    ),
    "the baseline given as the candidate": Case(
        0, "the baseline's own run", new=[measured(run_id="a")], old=[measured(run_id="a")]
    ),
    "a loss that rose": Case(1, "judged by the threshold", new=[score(2.2)], old=[score(2.0)]),
    "a loss that fell": Case(0, new=[score(1.5)], old=[score(2.0)]),
    "a loss that rose a little": Case(0, new=[score(2.03)], old=[score(2.0)]),
    "a loss has no percentage points": Case(
        2, "no percentage points", new=[score(2.0)], old=[score(2.0)], spec={"default_unit": "pp"}
    ),
    "an absolute threshold": Case(
        1, new=[score(2.05)], old=[score(2.0)],
        spec={"suites": [{"name": "t", "threshold": 0.03, "unit": "absolute"}]},
    ),  # fmt: skip
    "a share that is told in percent": Case(
        2, "between 0 and 1 on one side alone", new=[measured(records=False, score=70.0)]
    ),
    "a reward that is no share": Case(
        0, new=[score(1.2, metric="reward")], old=[score(0.9, metric="reward")],
        spec={"default_unit": "relative"},
    ),
    "more memory": Case(
        1, '"lowerIsBetter"', new=[score(2e9, metric="peak_memory_bytes")],
        old=[score(1e9, metric="peak_memory_bytes")],
    ),
    "a metric that is spelled wrong": Case(
        2, "no row with the metrics acuracy; its rows: - accuracy",
        spec={"suites": [{"name": "t", "metrics": ["acuracy"]}]},
    ),
    "a relative threshold": Case(
        0, new=[measured(152)], spec={"suites": [{"name": "t", "threshold": 6, "unit": "relative"}]}
    ),
    "an interval around each mean": Case(
        0, "within noise", new=[score(5.5, metric="rating", interval=[5.0, 6.0])],
        old=[score(6.0, metric="rating", interval=[5.5, 6.5])],
    ),  # fmt: skip
    "fewer errors are better": Case(
        1, '"lowerIsBetter"', new=[measured(80, metric="error_rate")], old=[measured(40, metric="error_rate")]
    ),
    "a direction of its own": Case(
        1, new=[measured(190)], spec={"suites": [{"name": "t", "direction": "lower"}]}
    ),
    "three passes, a clear fall": Case(1, '"candidateStats"', new=passes(140, 141, 139)),
    "three passes, nothing changed": Case(0, "sign flips", new=passes(160, 161, 159)),
    "a pass is missing": Case(2, "2 rows of 3 passes", new=passes(160, 160), args=["--passes", 3]),
    "a fall and a missing row": Case(
        2, '"fail"', new=[measured(100)], old=[measured(), measured(metric="f1")]
    ),
    "temperatures the budget forbids": Case(
        2, "temperature 0.7", new=[measured(decoding={"temperature": 0.7})],
        args=["--budget", '{"temperature": 0}'],
    ),
    "a temperature that is not said": Case(
        2, "do not say their temperature", new=[measured(decoding={})], spec={"budget": {"temperature": 0.0}}
    ),
    "answers longer than the budget": Case(
        2, "took 65 tokens", new=[measured(record={"n_tokens": 65})], spec={"budget": {"max_tokens": 64}}
    ),
    "another seed than the budget's": Case(
        2, "have the seed 5", new=[measured(decoding={"temperature": 1.0}, seed=5)],
        spec={"budget": {"sampling_seed": 17}},
    ),  # fmt: skip
    "an unknown key": Case(2, "unknown config key", spec={"sweets": []}),
    "an unknown key of a suite": Case(2, "unknown config key", spec={"suites": [{"name": "t", "pp": 1}]}),
    "a key for people": Case(0, spec={"_doc": "hello", "suites": [{"_doc": ["a"], "name": "t"}]}),
    "a suite runs and passes": Case(0, spec=runs(COPY), run=True),
    "a suite runs and fell": Case(1, new=[measured(140)], spec=runs(COPY), run=True),
    "a suite's words know where its rows go": Case(
        0, run=True,
        spec=runs("import shutil, sys; shutil.copy('new.jsonl', sys.argv[1])", "$TINYGPT_EVAL_OUT"),
    ),
    "a suite crashes after its rows": Case(2, "exit code 3", spec=runs(COPY + "; os._exit(3)"), run=True),
    "a suite writes nothing": Case(2, "wrote no rows", spec=runs("pass"), run=True),
    "a suite that is not there": Case(
        2, "cannot start", spec={"suites": [{"name": "t", "command": ["no-such-program"]}]}, run=True
    ),
    "a suite without a command": Case(2, "nothing to run", run=True),
    "a suite that takes too long": Case(
        2, "wall_seconds", spec=runs(SPIN), args=["--budget", '{"wall_seconds": 0.3}'], run=True
    ),
    "a suite that takes too much": Case(
        2, "sandbox_ram_mb", spec=runs(LARGE), args=["--budget", '{"sandbox_ram_mb": 200}'], run=True
    ),
    "examples that were learned": Case(
        2, "are in the training data", spec={"train_data": ["train.jsonl"]},
        new=[measured(record=ASKED)], change=training("How many legs has a spider, in the garden"),
    ),  # fmt: skip
    "examples that were not learned": Case(
        0, '"seen": 0', spec={"train_data": ["train.jsonl"]},
        new=[measured(record=ASKED)], change=training("How many legs has a fly in the garden?"),
    ),  # fmt: skip
    "learned examples that are allowed": Case(
        0, '"seen": 200', spec={"train_data": ["train.jsonl"], "max_overlap": 1.0},
        new=[measured(record=ASKED)], change=training("How many legs has a spider, in the garden"),
    ),  # fmt: skip
    "examples that were learned in nearly these words": Case(
        2, "are in the training data", spec={"train_data": ["train.jsonl"], "likeness": 0.6},
        new=[measured(record=ASKED)], change=training("How many legs has one spider in our garden?"),
    ),  # fmt: skip
    "questions that are not known": Case(
        2, "not say what was asked", spec={"train_data": ["train.jsonl"]}, change=training("a")
    ),
    "the first run": Case(0, '"new"', old=None, args=["--update-baseline"]),
    "a new baseline where it fell": Case(0, '"new"', new=[measured(100)], args=["--update-baseline"]),
    "no new baseline of failed answers": Case(
        2, "answers failed", new=[measured(n_failed=1)], args=["--update-baseline"]
    ),
}  # fmt: skip


def gate(folder: Path, case: Case) -> Done:
    write(folder / "new.jsonl", case.new)
    if case.old is not None:
        write(folder / "old.jsonl", case.old)
    spec = {"baseline": "old.jsonl", **case.spec}
    (folder / "gate.json").write_text(json.dumps(spec), encoding="utf-8")
    case.change(folder)
    given = [] if case.run else ["--candidate", folder / "new.jsonl"]
    return tinygpt(
        "eval-gate", "--spec", folder / "gate.json", *given, *case.args, "--out", folder / "result.json"
    )


@pytest.mark.parametrize("name", CASES)
def test_exit_codes(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    done = gate(tmp_path, case)
    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    assert done.code == case.code, f"{done.err}{text}"
    assert case.says in text
    found = json.loads(text)
    assert found["passed"] == (case.code == 0)
    assert found.get("exitCode") == case.code


def test_a_result_of_before_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """What stops the gate half way leaves a result that says so, in each of the files."""
    assert gate(tmp_path, Case(0)).code == 0
    assert json.loads((tmp_path / "result.json").read_text())["passed"]
    files = ["--summary", tmp_path / "s.md", "--junit", tmp_path / "j.xml"]
    assert gate(tmp_path, Case(2, spec={"sweets": 1}, args=files)).code == 2
    found = json.loads((tmp_path / "result.json").read_text())
    assert not found["passed"] and "sweets" in found["problems"][0]["what"]
    assert "sweets" in (tmp_path / "s.md").read_text() and "sweets" in (tmp_path / "j.xml").read_text()


def test_files_that_are_not_the_gates_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "new.jsonl", [measured()])
    rows, other = tmp_path / "new.jsonl", tmp_path / "notes.txt"
    other.write_text("mine")
    base = ["eval-gate", "--candidate", rows, "--baseline"]
    refused(tinygpt(*base, rows, "--out", other), "notes.txt exists and is no result")
    refused(tinygpt(*base, rows, "--out", tmp_path / "r.json", "--summary", rows), "both name")
    refused(tinygpt(*base, rows, "--out", tmp_path), "is a directory")
    records, out = tmp_path / "new.examples.jsonl", ["--out", tmp_path / "r.json"]
    before = records.read_text()
    refused(tinygpt(*base, rows, *out, "--summary", records), "is no result")
    refused(tinygpt(*base, rows, *out, "--junit", other), "notes.txt exists and is no result")
    assert records.read_text() == before and not (tmp_path / "r.json").exists()
    files = [*out, "--summary", tmp_path / "s.md", "--junit", tmp_path / "j.xml"]
    assert [tinygpt(*base, rows, *files).code for _ in range(2)] == [0, 0]
    done = tinygpt(*base, other, "--out", tmp_path / "r.json", "--update-baseline")
    refused(done, "holds no eval row")
    assert other.read_text() == "mine"


def test_the_baseline_that_is_written_is_enough_to_compare_examples(tmp_path: Path) -> None:
    case = Case(0, new=[measured(record={"got": "a long answer"}), measured(task="u")], old=None)
    assert gate(tmp_path, replace(case, args=["--update-baseline"])).code == 0
    records = [json.loads(line) for line in (tmp_path / "old.examples.jsonl").read_text().splitlines()]
    assert len(records) == 200 and records[0].keys() == {"run_id", "id", "task", "subtasks", "scores"}
    assert [row.task for row in read_rows(tmp_path / "old.jsonl")[0]] == ["t"]
    write(tmp_path / "new.jsonl", [measured(154)])
    words = ["--spec", tmp_path / "gate.json", "--out", tmp_path / "result.json"]
    done = tinygpt("eval-gate", *words, "--candidate", tmp_path / "new.jsonl", "--json")
    assert done.code == 1 and done.json["suites"][0]["change"]["how"] == "McNemar's exact test"


def test_a_baseline_keeps_weights_and_the_parts_of_pooled_figures(tmp_path: Path) -> None:
    """A loss is a mean over tokens, kappa none over examples: both are compared with what the gate wrote."""
    run, parts = "r", [("a", "b")[i % 3 == 0] for i in range(40)]
    loss = score(2.5, 40, run_id=run)
    pairs = [(part, "a") if i % 5 else ("b", part) for i, part in enumerate(parts)]
    agreed = score(kappa(pairs), 40, metric="kappa", run_id=run)
    records = [
        {"run_id": run, "id": i, "task": "t", "subtasks": [None], "got": "x",
         "scores": {"loss": 1.0 + 2 * (i % 2)}, "weights": {"loss": 1 + 2 * (i % 2)},
         "pooled": {"kappa": {"how": "kappa", "part": list(pair)}}}
        for i, pair in enumerate(pairs)
    ]  # fmt: skip
    case = Case(0, new=[loss, Measured(agreed.row, records)], old=None)
    assert gate(tmp_path, replace(case, args=["--update-baseline"])).code == 0
    kept = [json.loads(line) for line in (tmp_path / "old.examples.jsonl").read_text().splitlines()]
    assert kept[0].keys() == {"run_id", "id", "task", "subtasks", "scores", "weights", "pooled"}
    done = gate(tmp_path, case)
    found = {one["metric"]: one for one in json.loads((tmp_path / "result.json").read_text())["suites"]}
    assert done.code == 0 and found["loss"]["change"]["how"] == "sign flips", done.out
    assert found["kappa"]["change"]["how"] == "approximate randomisation"


def test_the_gate_is_found_in_the_folder_or_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "new.jsonl", [measured(100)])
    refused(tinygpt("eval-gate", "--candidate", "new.jsonl"), "no eval-gate.json here")
    block = {"baseline": "old.jsonl", "default_threshold": 90}
    write(tmp_path / "old.jsonl", [measured(160)])
    (tmp_path / "tinygpt.project.json").write_text(json.dumps({"name": "x", "eval": block}))
    assert tinygpt("eval-gate", "--candidate", "new.jsonl").code == 0
    (tmp_path / "eval-gate.json").write_text(json.dumps({"baseline": "old.jsonl"}))
    assert tinygpt("eval-gate", "--candidate", "new.jsonl").code == 1
    assert json.loads((tmp_path / "gate-result.json").read_text())["failedCount"] == 1


def test_passes_have_their_own_seeds_and_budget(tmp_path: Path) -> None:
    """Each pass is told its number, seed and budget, and its rows must have that seed."""
    code = (
        "import json, os; told = {k: v for k, v in os.environ.items() if k.startswith('TINYGPT_EVAL_')}; "
        "print(json.dumps(told), file=open('told.jsonl', 'a')); row = json.load(open('new.jsonl')); "
        "row |= {'run_id': told['TINYGPT_EVAL_PASS'], 'seed': int(told['TINYGPT_EVAL_SEED'])}; "
        "print(json.dumps(row), file=open(told['TINYGPT_EVAL_OUT'], 'w'))"
    )
    hot = measured(decoding={"temperature": 0.8, "top_p": 1.0})
    budget = {"temperature": 0.8, "sampling_seed": 17, "sandbox_cpus": 1, "infra_patches": ["none"]}
    case = Case(0, new=[hot], spec=runs(code) | {"passes": 3, "budget": budget}, run=True)
    if sys.platform == "darwin":  # no way to keep to fewer processors there: it is refused
        case = replace(
            case, spec=case.spec | {"budget": {k: budget[k] for k in ("temperature", "sampling_seed")}}
        )
    done = gate(tmp_path, case)
    assert done.code == 0, done.out
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert [one["TINYGPT_EVAL_SEED"] for one in told] == ["17", "18", "19"]
    assert [one["TINYGPT_EVAL_PASS"] for one in told] == ["0", "1", "2"]
    assert {one["TINYGPT_EVAL_PASSES"] for one in told} == {"3"}
    assert json.loads(told[0]["TINYGPT_EVAL_BUDGET"])["temperature"] == 0.8
    found = json.loads((tmp_path / "result.json").read_text())
    assert (
        found["suites"][0]["candidateStats"]["n"] == 3 and found["protocol"]["budget"]["sampling_seed"] == 17
    )


def test_nothing_of_a_killed_suite_goes_on(tmp_path: Path) -> None:
    """Its children end with it: the lock that one of them holds can be taken afterwards."""
    hold = "import fcntl, time; f = open('lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n"
    child = hold + "end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    parent = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); p.wait()"
    done = gate(tmp_path, Case(2, spec=runs(parent) | {"budget": {"wall_seconds": 2}}, run=True))
    assert done.code == 2 and "wall_seconds" in done.out
    with (tmp_path / "lock").open("w") as file:
        taken = threading.Thread(target=lambda: fcntl.flock(file, fcntl.LOCK_EX), daemon=True)
        taken.start()
        taken.join(timeout=20)
        assert not taken.is_alive()
