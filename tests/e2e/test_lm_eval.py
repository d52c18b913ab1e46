"""lm-eval's tasks through the real command: of servers that know the answers, wrong ones, broken ones."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lm_eval_tasks
import nano
from e2e.shell import Done, refused, tinygpt
from fake_openai import FakeOpenAI, Reply, chat
from serving import serve, tiny_chat_model
from tinygpt.core.rows import read_rows

pytestmark = pytest.mark.parity
LIKES = Callable[[str, str], bool]  # whether a server gives this question this answer


@pytest.fixture(scope="module", autouse=True)
def _peer() -> None:
    nano.require("lm_eval")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("model"), context=400)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lm_eval_tasks.write(tmp_path_factory.mktemp("tasks"))


def documents(tasks: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tasks / "rows.jsonl").read_text().splitlines()]


def knowing(tasks: Path, right: bool) -> Callable[[str, dict[str, Any]], Reply]:
    """A server whose tokens are bytes; it likes the key's answers, or all others."""
    docs = {doc["question"]: doc for doc in documents(tasks)}
    answers = {q: {doc["options"][doc["answer"]], "ABCD"[doc["answer"]]} for q, doc in docs.items()}

    def answer(path: str, body: dict[str, Any]) -> Reply:
        if path.endswith("/models"):
            return {"data": [{"id": "fake"}]}
        if path.endswith("/chat/completions"):
            text = body["messages"][-1]["content"]
            return chat(_written(text))
        choices = []
        for index, prompt in enumerate(
            [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
        ):
            text = _text(prompt)
            if body.get("echo"):
                choices.append(_echo(index, prompt, -0.1 if _likes(text) else -3.0))
            else:
                choices.append({"index": index, "text": _written(text), "finish_reason": "stop"})
        return {"choices": choices}

    def _likes(text: str) -> bool:
        question = next((q for q in answers if text.startswith(q)), "")
        said = text.removeprefix(question).removeprefix(" Answer:").strip()
        return (said in answers.get(question, ())) == right

    def _written(text: str) -> str:
        question = next((q for q in docs if q in text), "")
        return docs[question]["written"] if right and question else "nonsense"

    return answer


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else bytes(i for i in prompt if i < 256).decode()


def _echo(index: int, prompt: Any, value: float) -> dict[str, Any]:
    told = [None, *[value] * len(prompt)]  # the last one is of the token that was written
    tops = [None, *[{"x": value}] * len(prompt)]
    return {"index": index, "text": "", "logprobs": {"token_logprobs": told, "top_logprobs": tops}}


def run(words: list[Any], tasks: Path, out: Path, names: str = "own_*", code: int = 0) -> tuple[Any, Any]:
    """The rows and the records of a command that ends with `code`."""
    done: Done = tinygpt(
        "run-lm-eval", *words, "--tasks", names, "--include-path", tasks, "--out", out, "--json"
    )
    assert done.code == code, done.err
    rows, invalid = read_rows(out)
    assert not invalid and json.loads(done.out)[0]["harness_version"].startswith("lm-eval 0.")
    records = [
        json.loads(line) for line in out.with_name(f"{out.stem}.examples.jsonl").read_text().splitlines()
    ]
    return rows, records


@pytest.mark.parametrize("right", [True, False])
def test_the_key_scores_one_and_all_else_zero(right: bool, tasks: Path, model: Path, tmp_path: Path) -> None:
    """own_letter's options are one token each: the last token of a continuation counts."""
    with FakeOpenAI(knowing(tasks, right)).serving() as fake:
        at = ["--url", fake.url, "--tokenizer", model, "--tries", 1]
        rows, records = run(at, tasks, tmp_path / "rows.jsonl", "own_choice,own_letter,own_text")
    assert {(row.task, row.metric) for row in rows} == {
        ("own_choice", "acc"), ("own_choice", "acc_norm"), ("own_letter", "acc"), ("own_text", "exact_match"),
    }  # fmt: skip
    for row in rows:
        assert row.score == right and row.n_examples == 8 and row.n_failed == 0 and row.model_name == "fake"
        assert row.interval == pytest.approx((0.676, 1.0) if right else (0.0, 0.324), abs=1e-3)
        mine = [r for r in records if r["task"] == row.task and row.subtask in r["subtasks"]]
        assert [r["scores"][row.metric] for r in mine] == [float(right)] * 8
        assert {r["run_id"] for r in mine} == {row.run_id}


def test_a_conversation(tasks: Path, tmp_path: Path) -> None:
    with FakeOpenAI(knowing(tasks, True)).serving() as fake:
        at = ["--url", fake.url, "--kind", "chat", "--tries", 1]
        rows, _ = run(at, tasks, tmp_path / "rows.jsonl", "own_text")
        assert rows[0].score == 1.0 and rows[0].settings["backend"] == "local-chat-completions"
        done = tinygpt("run-lm-eval", *at, "--tasks", "own_choice", "--include-path", tasks)
        refused(done, "--kind chat: .* multiple_choice", hint="completions")


def test_what_fails_to_come_is_never_right(tasks: Path, model: Path, tmp_path: Path) -> None:
    good, odd = knowing(tasks, True), documents(tasks)[2]["question"]

    def answer(path: str, body: dict[str, Any]) -> Reply:
        if odd in _text((body.get("prompt") or [""])[0]):
            return 500, {}, {"error": {"message": "out of luck"}}
        return good(path, body)

    out = tmp_path / "rows.jsonl"
    with FakeOpenAI(answer).serving() as fake:
        at = ["--url", fake.url, "--tokenizer", model, "--tries", 1, "--batch", 1]
        rows, records = run(at, tasks, out, "own_choice,own_text", code=2)
        assert {(row.n_failed, row.score) for row in rows} == {(1, 7 / 8)}
        assert [r["finish_reason"] for r in records if "error" in r] == ["error"] * 2
        assert all(set(r["scores"].values()) == {0.0} for r in records if "error" in r)
        run([*at, "--max-errors", 2], tasks, tmp_path / "allowed.jsonl", "own_choice,own_text")
        rows, _ = run([*at, "--max-errors", 1], tasks, tmp_path / "filters.jsonl", "own_filters")
        assert {(row.subtask, row.n_failed) for row in rows} == {("first", 1), ("letters", 1)}
        long = next(doc["long"] for doc in documents(tasks))
        odd = long[:9]
        words = ["run-lm-eval", *at, "--tasks", "own_rolling", "--include-path", tasks]
        refused(tinygpt(*words, "--max-errors", 9), "failed to come, and .*perplexity needs all of them")


def test_broken_servers_give_no_rows(tasks: Path, model: Path, tmp_path: Path) -> None:
    out, good = tmp_path / "rows.jsonl", knowing(tasks, True)
    call = ["run-lm-eval", "--tasks", "own_choice", "--include-path", tasks, "--tokenizer", model]
    call += ["--out", out, "--tries", 1, "--url"]
    with socket.create_server(("127.0.0.1", 0)) as port:
        dead = port.getsockname()[1]
    refused(tinygpt(*call, f"http://127.0.0.1:{dead}"), "does not answer", hint="is the server running?")
    held: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        thread = threading.Thread(target=lambda: held.append(hanging.accept()), daemon=True)
        thread.start()
        refused(tinygpt(*call, f"http://127.0.0.1:{hanging.getsockname()[1]}", "--seconds", 1), "timed out")
        thread.join()
        held[0][0].close()

    def broken(said: Callable[[dict[str, Any]], Reply]) -> Callable[[str, dict[str, Any]], Reply]:
        return lambda path, body: said(body) if path.endswith("/completions") else good(path, body)

    def certain(body: dict[str, Any]) -> Reply:
        return {"choices": [_echo(0, body["prompt"][0], 0.0)]}

    def short(body: dict[str, Any]) -> Reply:
        return {"choices": [_echo(0, body["prompt"][0][1:], -1.0)]}

    wrong: dict[str, Callable[[dict[str, Any]], Reply]] = {
        "HTTP 500": lambda body: (500, {}, {"error": "no"}),
        "no JSON": lambda body: (200, {}, "plain text"),
        "ignores echo": lambda body: {"choices": [{"index": 0, "text": "hi", "logprobs": None}]},
        "perplexity 1.0000": certain,
        "ignores echo$": short,
        "gave no answer": lambda body: {"choices": []},
    }
    for part, said in wrong.items():
        with FakeOpenAI(broken(said)).serving() as fake:
            refused(tinygpt(*call, fake.url), part)
    assert not out.exists() and not out.with_name("rows.examples.jsonl").exists()


def _flat(value: Any) -> list[Any]:
    return [x for one in value for x in _flat(one)] if isinstance(value, list) else [value]


def test_a_served_model_scores_as_in_this_process(tasks: Path, model: Path, tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    with serve(model, tmp_path, "--no-lock") as live:
        asked = {
            "here": [model, "--max-length", 300],
            "there": ["--url", live.url, "--tokenizer", model, "--max-length", 302],
            "asked": ["--url", live.url, "--max-length", 302],
        }
        for name, words in asked.items():
            rows, records = run([*words, "--gen-kwargs", "max_gen_toks=9"], tasks, tmp_path / f"{name}.jsonl")
            found[name] = {(row.task, row.metric): row for row in rows}, [r["got"] for r in records]
    here, texts = found["here"]
    for name in ("there", "asked"):
        for row in found[name][0].values():
            same = here[row.task, row.metric]
            assert row.score == pytest.approx(same.score, rel=1e-4) and row.data_version == same.data_version
            assert row.n_truncated == same.n_truncated
        for got, other in zip(found[name][1], texts, strict=True):
            for one, same in zip(_flat(got), _flat(other), strict=True):
                assert one == (same if isinstance(same, str | bool) else pytest.approx(same, abs=1e-3))
    assert here["own_text", "exact_match"].n_truncated > 0


def test_lm_evals_own_command_line(tasks: Path, model: Path, tmp_path: Path) -> None:
    words = [
        "--model", "tinygpt", "--model_args", f"pretrained={model},max_length=300", "--tasks", "own_choice",
        "--include_path", str(tasks), "--output_path", str(tmp_path), "--batch_size", "4",
    ]  # fmt: skip
    command = [sys.executable, "-m", "tinygpt.cli._lm_eval", *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TQDM_DISABLE": "1"})
    assert done.returncode == 0 and "own_choice" in done.stdout, done.stderr
    (written,) = tmp_path.rglob("results_*.json")
    theirs = json.loads(written.read_text())["results"]["own_choice"]["acc,none"]
    rows, _ = run([model, "--max-length", 300], tasks, tmp_path / "rows.jsonl", "own_choice")
    assert rows[0].score == theirs


def test_what_cannot_be_asked(
    tasks: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = nano.require("lm_eval.tasks").TaskManager  # its own 13,000 files take long to list
    monkeypatch.setattr(
        "lm_eval.tasks.TaskManager", lambda **more: listed(**{**more, "include_defaults": False})
    )

    def call(*words: object) -> Done:
        return tinygpt("run-lm-eval", *words, "--include-path", tasks)

    refused(call(model, "--tasks", "own_chioce"), "no task 'own_chioce'.*own_choice", hint="lm-eval ls tasks")
    refused(call(model, "--tasks", "own_text", "--max-length", 12), "leave no room", hint="max_gen_toks")
    refused(call(model, "--tasks", "own_text", "--gen-kwargs", "num_beams=4"), "num_beams=4")
    for task in ("own_text", "own_choice"):
        said = call(model, "--tasks", task, "--gen-kwargs", "temprature=1")
        refused(said, "no setting 'temprature'. Did you mean 'temperature'")
    refused(call(model, "--tasks", "own_choice", "--gen-kwargs", "top_p=0.9"), "top_p would change nothing")
    refused(call(model, "--tasks", "own_text", "--gen-kwargs", "top_p"), "'top_p' is no setting")
    refused(call(model, "--tasks", "own_choice", "--kind", "chat"), "--kind means nothing without --url")
    refused(call(model, "--tasks", "own_choice", "--hf-model", model), "two models")
    refused(tinygpt("run-lm-eval", model, "--tasks", "a", "--include-path", tmp_path / "no"), "is no folder")
