"""`eval-bfcl` through the real command: with a stand-in for the harness, and with the official one."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bfcl_oracle
import fake_bfcl
from e2e.shell import Done, tinygpt
from fake_openai import FakeOpenAI, Reply, chat
from serving import tiny_chat_model
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.core.rows import read_rows
from tinygpt.runs import _harness, bfcl

Answer = Callable[[str, dict[str, Any]], Reply]


def server(answer: Answer) -> FakeOpenAI:
    def said(path: str, body: dict[str, Any]) -> Reply:
        return {"data": [{"id": "fake"}]} if path.endswith("/models") else answer(path, body)

    return FakeOpenAI(said)


def error(done: Done) -> str:
    """The one line that says why; rows with errors in them are shown before it."""
    assert done.code == 2, done.err
    return next(line for line in done.err.splitlines() if line.startswith("error: "))[len("error: ") :]


def asked(fake: FakeOpenAI) -> list[str]:
    """The examples that a stand-in asked for."""
    found = [body["messages"][0]["content"] for _, body in fake.asked if "messages" in body]
    return [text for text in found if text != "hi"]


def rows_of(out: Path) -> tuple[dict[str | None, Any], list[dict[str, Any]]]:
    rows, invalid = read_rows(out)
    assert not invalid
    records = [json.loads(line) for line in out.with_name("rows.examples.jsonl").read_text().splitlines()]
    return {row.subtask: row for row in rows}, records


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    return fake_bfcl.interpreter(tmp_path / "python")


def run(url: str, fake: Path, out: Path, *words: object) -> Done:
    return tinygpt(
        "eval-bfcl", "--url", url, "--harness-python", fake, "--out", out, "--tries", 1, "--seconds", 5,
        "--json", *words,
    )  # fmt: skip


def test_every_category_is_a_row_and_every_example_a_record(tmp_path: Path, fake: Path) -> None:
    out = tmp_path / "rows.jsonl"
    words = ("--categories", "irrelevance,multi_turn_base", "--limit", 3, "--batch", 2)
    with server(lambda path, body: chat("good")).serving() as live:
        done = run(live.url, fake, out, *words)
    assert done.code == 0, done.err
    rows, records = rows_of(out)
    assert set(rows) == {"irrelevance", "multi_turn_base", None} and len(done.json) == 3
    assert {row.score for row in rows.values()} == {1.0, 0.125} and rows[None].metric == "official_overall"
    assert len(records) == 6 and {r["run_id"] for r in records} == {row.run_id for row in rows.values()}
    for row in rows.values():
        assert row.harness_version == "bfcl-eval 2026.3.23" and row.model_name == "fake"
        assert row.decoding == {"temperature": 0.001, "max_tokens": 4096} and row.batch_size == 2


def test_multi_turn_tasks_are_a_gate(tmp_path: Path, fake: Path) -> None:
    """A suite that is BFCL's multi-turn tasks: judged example by example, its steps within the budget."""
    words = ["--tasks", "multi_turn_base", "--harness-python", str(fake), "--model-name", "m"]
    spec = tmp_path / "eval-gate.json"
    out, good = tmp_path / "result.json", {f"multi_turn_base_{i}" for i in range(5)}

    def answer(path: str, body: dict[str, Any]) -> Reply:
        return chat("good" if body["messages"][0]["content"] in good else "bad")

    def gate(*more: object, steps: int = 1) -> tuple[int, Any]:
        with server(answer).serving() as live:
            argv = [sys.executable, "-m", "tinygpt", "eval-bfcl", "--url", live.url, *words]
            suite = {"name": "files", "task": "bfcl", "subtasks": ["multi_turn_base"]}
            suite |= {"command": [*argv, "--out", "$TINYGPT_EVAL_OUT"]}
            told = {"baseline": "b.jsonl", "suites": [suite], "budget": {"max_steps": steps}}
            spec.write_text(json.dumps(told | {"min_examples": 5}), encoding="utf-8")
            done = tinygpt("eval-gate", "--spec", spec, "--out", out, *more)
        return done.code, json.loads(out.read_text(encoding="utf-8"))

    assert gate("--update-baseline")[0] == 0
    good = set[str]()
    code, found = gate()
    assert code == 1 and found["suites"][0]["lost"]["n"] == 5, found
    assert found["suites"][0]["change"]["how"] == "McNemar's exact test"
    records = [json.loads(line) for line in (tmp_path / "b.examples.jsonl").read_text().splitlines()]
    assert [record["scores"] for record in records] == [{"accuracy": 1.0}] * 5


def test_an_answer_that_fails_is_no_right_one_and_is_asked_again(tmp_path: Path, fake: Path) -> None:
    """BFCL itself scores a dead server 100 % on irrelevance and ends with 0."""
    out, words = tmp_path / "rows.jsonl", ("--tasks", "irrelevance", "--limit", 4)

    def now_and_then(path: str, body: dict[str, Any]) -> Reply:
        return (500, {}, {}) if body["messages"][0]["content"].endswith(("1", "2")) else chat("good")

    with server(now_and_then).serving() as live:
        done = run(live.url, fake, out, *words)
        assert error(done) == "2 answers failed to come; the rows say so, and no gate takes them", done.err
        rows, records = rows_of(out)
        assert (rows["irrelevance"].score, rows["irrelevance"].n_failed, rows[None].n_failed) == (0.5, 2, 2)
        assert [r["correct"] for r in records] == [True, False, False, True]
        again = run(live.url, fake, out, *words)
        assert "is there already" in error(again)
        other = run(live.url, fake, out, *words, "--resume", "--temperature", 1)
        assert "made with other settings: temperature" in error(other)
    with server(lambda path, body: chat("good")).serving() as live:
        root = tmp_path / "rows.bfcl" / "asked.json"  # a server elsewhere is another subject
        told = json.loads(root.read_text())
        root.write_text(json.dumps({**told, "subject": [live.url, None, {"batch_size": 8}]}))
        assert run(live.url, fake, out, *words, "--resume").code == 0
        assert sorted(asked(live)) == ["irrelevance_1", "irrelevance_2"]
    assert read_rows(out)[0][-2].score == 1.0


def test_max_errors_allows_some(tmp_path: Path, fake: Path) -> None:
    def not_the_last(path: str, body: dict[str, Any]) -> Reply:
        return (500, {}, {}) if body["messages"][0]["content"].endswith("_4") else chat("good")

    with server(not_the_last).serving() as live:
        done = run(live.url, fake, tmp_path / "rows.jsonl", "--tasks", "irrelevance", "--max-errors", 1)
    assert done.code == 0 and done.json[0]["n_failed"] == 1 and done.json[0]["score"] == 0.8


def test_broken_servers_give_no_rows(tmp_path: Path, fake: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    no_usage = {"choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]}
    broken: dict[str, Answer] = {
        "HTTP 500": lambda path, body: (500, {}, {"error": {"message": "no"}}),
        "no JSON": lambda path, body: (200, {}, "hello"),
        "gave no answer": lambda path, body: {"text": "plain"},
        "counts no tokens": lambda path, body: no_usage,
    }
    out = tmp_path / "rows.jsonl"
    assert "does not answer" in error(run(dead, fake, out, "--tasks", "irrelevance"))
    for why, answer in broken.items():
        with server(answer).serving() as live:
            done = run(live.url, fake, out, "--tasks", "irrelevance")
        assert why in error(done), done.err
    with socket.socket() as silent:  # takes connections, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        assert error(run(url, fake, out, "--tasks", "irrelevance", "--seconds", 0.2))
    assert not out.exists()


def test_our_own_server_is_started_asked_and_ended(tmp_path: Path, fake: Path) -> None:
    model = tiny_chat_model(tmp_path)
    words = ("--tasks", "simple_python", "--limit", 2, "--max-tokens", 2, "--json")
    root = tmp_path / "kept"
    done = tinygpt("eval-bfcl", model, "--harness-python", fake, "--bfcl-root", root, *words)
    assert done.code == 0, done.err
    assert done.json[0]["model_name"] == "tiny" and len(done.json[0]["model_hash"]) == 64
    log, url = (root / "serve.log").read_text(), json.loads((root / "settings.json").read_text())["url"]
    assert log.count("/v1/chat/completions") == 3, "the question whether it answers, and two examples"
    port = int(url.split(":")[2].split("/")[0])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_model_that_cannot_be_served_is_one_line(tmp_path: Path, fake: Path) -> None:
    model = tiny_chat_model(tmp_path)
    tools = tmp_path / "tools.json"
    tools.write_text("{}")
    done = tinygpt("eval-bfcl", model, "--tools", tools, "--harness-python", fake, "--tasks", "irrelevance")
    assert "our server ended before it was ready: error:" in error(done), done.err


# The official harness. It is made once for all sessions of tests, as `eval-bfcl` makes it.


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = os.environ.get("TINYGPT_TEST_HARNESS") or str(Path(tempfile.gettempdir()) / "tinygpt-harness")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYGPT_CACHE", cache)
        try:
            return _harness.python_of(bfcl.HARNESS, None, Events())
        except ConfigError as error:
            pytest.skip(f"{error}")


def played(official: Path, out: Path, asked: dict[str, list[str]], *words: object, **how: Any) -> Done:
    """The command against an oracle that knows these examples."""
    oracle = bfcl_oracle.Oracle(bfcl_oracle.examples(official, asked), **how)
    with oracle.serving():
        return run(oracle.url, official, out, "--tasks", ",".join(asked), "--batch", 1, *words)


ASKED = {
    "simple_python": ["simple_python_0", "simple_python_1"],
    "simple_java": ["simple_java_0", "simple_java_1"],
    "simple_javascript": ["simple_javascript_0", "simple_javascript_1"],
    "parallel_multiple": ["parallel_multiple_0", "parallel_multiple_1"],
    "irrelevance": ["irrelevance_0", "irrelevance_1"],
    "live_relevance": ["live_relevance_0-0-0", "live_relevance_1-1-0"],
    "multi_turn_base": ["multi_turn_base_0", "multi_turn_base_1"],
    "multi_turn_miss_func": ["multi_turn_miss_func_0", "multi_turn_miss_func_1"],
}


@pytest.mark.parametrize(("right", "score"), [(True, 1.0), (False, 0.0)])
def test_references_score_one_and_their_opposite_zero(
    official: Path, tmp_path: Path, right: bool, score: float
) -> None:
    out = tmp_path / "rows.jsonl"
    done = played(official, out, ASKED, "--limit", 2, right=right)
    assert done.code == 0, done.err
    rows, records = rows_of(out)
    assert set(rows) == {*ASKED, None} and len(records) == 2 * len(ASKED)
    assert {name: row.score for name, row in rows.items() if name} == dict.fromkeys(ASKED, score)
    assert all(bool(r["error_type"]) != right for r in records)
    steps = {r["id"]: r["n_steps"] for r in records}
    assert steps["irrelevance_0"] == 1 and (not right or steps["multi_turn_base_0"] > 4), steps
    states = list((tmp_path / "rows.bfcl" / "result").rglob("*multi_turn_base_result.json"))
    assert "final_report.pdf" in states[0].read_text(), "its simulated files are in the log"


def test_what_the_official_runner_could_not_ask_is_lost(official: Path, tmp_path: Path) -> None:
    out, few = tmp_path / "rows.jsonl", {"irrelevance": ASKED["irrelevance"]}
    done = played(
        official, out, few, "--limit", 2, "--mode", "prompt", native=False, lost=frozenset({"irrelevance_1"})
    )
    assert "1 answers failed to come" in error(done)
    rows, records = rows_of(out)
    assert (rows["irrelevance"].score, rows["irrelevance"].n_failed) == (0.5, 1)
    assert "no answer today" in records[1]["error"] and not records[1]["correct"]


# How environments are made, shown on a package of our own.


def wheel(folder: Path, name: str) -> Path:
    """A package that needs no index."""
    import zipfile

    path = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    return path


def test_an_environment_is_made_once_and_a_torn_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYGPT_CACHE", str(tmp_path / "cache"))
    listed = tmp_path / "requirements.txt"
    listed.write_text(f"# one\n{wheel(tmp_path, 'tinyharness')}\n")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    harness = _harness.Harness("tiny", "tinyharness", listed, (version,))
    with monkeypatch.context() as patch:  # a killed process leaves some of it
        patch.setattr(_harness, "_make", lambda _, folder, *rest: folder.joinpath("rest").mkdir(parents=True))
        python = _harness.python_of(harness, None, Events())
    assert _harness.python_of(harness, None, Events()) == python
    assert _harness.version_of(harness, python) == "1.0"
    done = python.parent.parent / _harness.DONE
    assert not done.with_name("rest").exists()
    made = done.stat().st_mtime_ns
    assert _harness.python_of(harness, None, Events()) == python and done.stat().st_mtime_ns == made

    listed.write_text(f"{tmp_path}/absent-1.0-py3-none-any.whl\n")
    with pytest.raises(ConfigError, match="the installation of tiny failed") as caught:
        _harness.python_of(harness, None, Events())
    assert f"-r {listed}" in caught.value.hint
    nobody = _harness.Harness("tiny", "tinyharness", listed, ("2.6",))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="needs Python 2.6"):
        _harness.python_of(nobody, None, Events())
