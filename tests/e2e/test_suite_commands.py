"""Suites through their commands, against servers: one that knows the answers, a wrong one, broken ones."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import problems
import row_suites
from e2e.shell import refused, tinygpt
from fake_openai import FakeOpenAI, Reply, chat, completion
from serving import serve, tiny_chat_model
from tinygpt.core.family import Family
from tinygpt.core.rows import beside, read_rows
from tinygpt.eval.compare import lower_is_better
from tinygpt.eval.suites import gsm8k, humaneval, judgement, mbpp

DATA = ("--data",)
Answer = Callable[[str, dict[str, Any]], Reply]


def _gsm8k(folder: Path) -> tuple[list[Any], Any, list[dict[str, Any]]]:
    path = folder / "problems.jsonl"
    rows = [{"question": f"{i} and {i}?", "answer": f"{i} + {i}\n#### {2 * i}"} for i in range(7)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--data", path], gsm8k, gsm8k.load(gsm8k.Config(data=path)).items


def _humaneval(folder: Path) -> tuple[list[Any], Any, list[dict[str, Any]]]:
    problems.need_sandbox()
    path = problems.write(folder / "problems.jsonl", problems.HUMANEVAL)
    return ["--data", path], humaneval, humaneval.load(humaneval.Config(data=path)).items


def _mbpp(folder: Path) -> tuple[list[Any], Any, list[dict[str, Any]]]:
    problems.need_sandbox()
    path = problems.write(folder / "problems.jsonl", problems.MBPP)
    words = ["--data", path, "--prompt", "completion"]
    return words, mbpp, mbpp.load(mbpp.Config(data=path, prompt="completion")).items


def _of_rows(suite: str, words: Sequence[str], folder: Path) -> tuple[list[Any], Any, list[dict[str, Any]]]:
    path, module = row_suites.write(suite, folder), Family("tinygpt.eval.suites", verb="score").load(suite)
    return [*words, path], module, module.load(module.Config(data=path)).items


def _judgement(folder: Path) -> tuple[list[Any], Any, list[dict[str, Any]]]:
    config = judgement.Config(data=row_suites.FIXTURES)
    return ["--data", config.data], judgement, judgement.load(config).items


# A suite's command: what it is called with, its file, and its examples.
SUITES = {
    "eval-gsm8k": _gsm8k,
    "eval-humaneval": _humaneval,
    "eval-mbpp": _mbpp,
    "eval-sql": functools.partial(_of_rows, "sql", DATA),
    "eval-router": functools.partial(_of_rows, "router", DATA),
    "eval-review": functools.partial(_of_rows, "review", DATA),
    "eval-escalate": functools.partial(_of_rows, "escalate", DATA),
    "eval-indic": functools.partial(_of_rows, "xquad", ("--task", "indicgenbench", "--indicgen-data")),
    "eval-judgement": _judgement,
    "rerank-eval": functools.partial(_of_rows, "rerank", DATA),
}
# Suites whose figures are no shares of right answers, too: what breaks is the same.
ALL = SUITES | {
    "eval-scaledown": functools.partial(_of_rows, "scaledown", DATA),
    "judge": functools.partial(_of_rows, "judge", DATA),
}
# Figures over all examples, no means of what each has: tests/unit/test_eval_row_suites.py checks them.
POOLED = {"macro_f1", "precision", "recall", "f1"}


def server(answer: Answer) -> FakeOpenAI:
    def said(path: str, body: dict[str, Any]) -> Reply:
        return {"data": [{"id": "fake"}]} if path.endswith("/models") else answer(path, body)

    return FakeOpenAI(said)


def says(text_of: Callable[[Any], Any]) -> Answer:
    """Answers with a text, or with a whole message."""

    def answer(path: str, body: dict[str, Any]) -> Reply:
        text = text_of(body.get("messages") or body["prompt"])
        if path.endswith("/chat/completions"):
            return chat(text) if isinstance(text, str) else chat(**{"text": "", **text})
        return completion(text)

    return answer


@pytest.fixture(params=SUITES)
def given(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, list[Any], Any, list[Any]]]:
    name = request.param
    yield name, *SUITES[name](tmp_path)


@pytest.fixture(params=ALL)
def any_suite(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[str, list[Any], Any, list[Any]]]:
    name = request.param
    yield name, *ALL[name](tmp_path)


def run(name: str, url: str, words: list[Any], out: Path, code: int = 0) -> tuple[list[Any], list[Any]]:
    """The rows and the records of a command that ends with `code`."""
    done = tinygpt(name, "--url", url, *words, "--out", out, "--tries", 1, "--json")
    assert done.code == code, done.err
    rows, invalid = read_rows(out)
    assert not invalid and json.loads(done.out)[0]["task"] == rows[0].task
    records = [json.loads(line) for line in beside(out).read_text().splitlines()]
    return rows, records


def test_the_key_scores_one_and_a_wrong_answer_zero(
    given: tuple[str, list[Any], Any, list[Any]], tmp_path: Path
) -> None:
    name, words, suite, examples = given
    key = {repr(item.get("messages") or item["prompt"]): suite.gold(item) for item in examples}
    for score, text_of in ((1.0, lambda asked: key[repr(asked)]), (0.0, lambda asked: "?")):
        with server(says(text_of)).serving() as fake:
            out = tmp_path / f"{score}" / "rows.jsonl"
            out.parent.mkdir()
            rows, records = run(name, fake.url, words, out)
        assert rows and all(
            row.score == (1 - score if lower_is_better(row.metric) else score) for row in rows
        )
        assert {row.run_id for row in rows} == {record["run_id"] for record in records}
        for row in rows:
            mine = [r for r in records if r["task"] == row.task and row.subtask in r["subtasks"]]
            values = [r["scores"][row.metric] for r in mine if row.metric in r["scores"]]
            if row.metric in POOLED and not values:
                assert len(mine) == row.n_examples
            else:
                assert len(values) == row.n_examples and sum(values) / len(values) == row.score
            assert row.model_name == "fake" and row.n_failed == 0 and row.batch_size == 8


def test_answers_that_fail_are_counted_and_no_success(
    any_suite: tuple[str, list[Any], Any, list[Any]], tmp_path: Path
) -> None:
    """Every third answer is an error: the rows say so, the command does not end well."""
    name, words, suite, examples = any_suite
    key = {repr(item.get("messages") or item["prompt"]): suite.gold(item) for item in examples}
    odd = {repr(item.get("messages") or item["prompt"]) for item in examples[2::3]}

    def answer(path: str, body: dict[str, Any]) -> Reply:
        asked = body.get("messages") or body["prompt"]
        if repr(asked) in odd:
            return 500, {}, {"error": {"message": "out of luck"}}
        return says(lambda asked: key[repr(asked)])(path, body)

    with server(answer).serving() as fake:
        rows, records = run(name, fake.url, [*words, "--batch", 1], tmp_path / "rows.jsonl", code=2)
        assert rows[0].n_failed == len(odd) == sum("error" in r for r in records)
        assert all(not r["correct"] for r in records if "error" in r)
        allowed = [*words, "--batch", 1, "--max-errors", len(odd)]
        run(name, fake.url, allowed, tmp_path / "rows.jsonl")


def _both(text: str, why: str = "stop") -> dict[str, Any]:
    """A body of either route."""
    message = {"role": "assistant", "content": text}
    return {"choices": [{"message": message, "text": text, "finish_reason": why}], "usage": ["odd"]}


def test_broken_servers_give_no_rows(
    any_suite: tuple[str, list[Any], Any, list[Any]], tmp_path: Path
) -> None:
    name, words, _, _ = any_suite
    out = tmp_path / "rows.jsonl"
    call = [name, *words, "--out", out, "--tries", 1, "--url"]
    with socket.create_server(("127.0.0.1", 0)) as port:
        dead = port.getsockname()[1]
    refused(tinygpt(*call, f"http://127.0.0.1:{dead}"), "does not answer", hint="is the server running?")
    held: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        thread = threading.Thread(target=lambda: held.append(hanging.accept()), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        refused(tinygpt(*call, url, "--seconds", 1), "does not answer: timed out")
        thread.join()
        held[0][0].close()
    broken: dict[str, Reply] = {
        "HTTP 500": (500, {}, {"error": "no"}),
        "no JSON": (200, {}, "<html>hello</html>"),
        "gave no answer": {"choices": []},
        "broke off": {**_both("#### 2"), "error": {"message": "overloaded"}},
        "broke off: ": _both("#### 2", "error"),
        "tool calls that are none|without text": {"choices": [{"message": {"tool_calls": "x"}}]},
        "content that is no text|without text": {"choices": [{"message": {"content": ["4"]}}]},
        "nested|recursion": (200, {}, "[" * 100_000),
        "HTTP 401": (401, {}, {"error": {"message": "who are you?"}}),
    }
    for part, said in broken.items():
        with server(lambda path, body, said=said: said).serving() as fake:
            refused(tinygpt(*call, fake.url), part)
    with FakeOpenAI(lambda path, body: (200, {}, "plain text")).serving() as fake:
        refused(tinygpt(*call, fake.url), "/models gave no JSON")
    assert not out.exists() and not out.with_name("rows.examples.jsonl").exists()


def test_an_answer_that_comes_drop_by_drop_is_given_up(tmp_path: Path) -> None:
    """The time of an answer is that of the whole, and none is left half read."""
    words = [*_gsm8k(tmp_path)[0], "--tries", 1, "--seconds", 1]
    done = threading.Event()

    class Drops(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(json.dumps({"data": [{"id": "slow"}]}).encode(), 0)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._say(json.dumps(_both("#### 2")).encode(), 0.2)

        def _say(self, data: bytes, pause: float) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):  # the client went away, as it should
                for one in [data] if not pause else [bytes([b]) for b in data]:
                    self.wfile.write(one)
                    done.wait(pause)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Drops) as drops:
        thread = threading.Thread(target=drops.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{drops.server_port}"
        refused(tinygpt("eval-gsm8k", "--url", url, *words), "was not whole after 1 s")
        done.set()
        drops.shutdown()
        thread.join()


def test_a_model_that_a_server_does_not_list_is_told(tmp_path: Path) -> None:
    words = _gsm8k(tmp_path)[0]
    with server(lambda path, body: _both("#### 4")).serving() as fake:
        assert "lists no model 'other'" in tinygpt("eval-gsm8k", "other", "--url", fake.url, *words).err
        assert "lists no model" not in tinygpt("eval-gsm8k", "fake", "--url", fake.url, *words).err


def test_examples_have_ids_of_their_own(tmp_path: Path) -> None:
    path = problems.write(tmp_path / "twice.jsonl", [*problems.HUMANEVAL, problems.HUMANEVAL[0]])
    with server(lambda path, body: _both("pass")).serving() as fake:
        refused(tinygpt("eval-humaneval", "--url", fake.url, "--data", path), "two examples have the id")


def test_half_a_pair_of_utf_16_is_no_question(tmp_path: Path) -> None:
    data = tmp_path / "odd.jsonl"
    data.write_text('{"question": "a\\ud800?", "answer": "#### 4"}\n')
    with server(lambda path, body: _both("#### 4")).serving() as fake:
        refused(tinygpt("eval-gsm8k", "--url", fake.url, "--data", data), r"surrogate pair: .*ud800")


def test_half_a_pair_of_utf_16_is_an_answer(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    with server(lambda path, body: _both("\ud800 #### 2")).serving() as fake:
        assert tinygpt("eval-gsm8k", "--url", fake.url, *_gsm8k(tmp_path)[0], "--out", out).code == 0
    assert "\ud800" in json.loads(beside(out).read_text().splitlines()[0])["got"]


def test_a_judge_of_another_machine(tmp_path: Path) -> None:
    """A judge that knows the labels, and one that always says A."""
    words, suite, examples = _of_rows("judge", DATA, tmp_path)
    key = {repr(item["messages"]): suite.gold(item) for item in examples}
    for name, text_of in (("right", lambda asked: key[repr(asked)]), ("biased", lambda asked: "A")):
        with server(says(text_of)).serving() as fake:
            rows, _ = run("judge", fake.url, words, tmp_path / f"{name}.jsonl")
        found = {row.metric: row.score for row in rows}
        right = float(name == "right")
        assert found["label_agreement"] == pytest.approx(right or 1 / 3) and found["win_rate"] == 0.5
        assert found["position_bias"] == 1 - right and found["order_agreement"] == right


def test_answers_of_a_file_are_scored_without_a_model(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"gold_tool": "a", "predicted_tool": t} for t in ("a", "a", "b", "a")]
    given, out = row_suites.write("router", tmp_path, rows), tmp_path / "rows.jsonl"
    done = tinygpt("eval-router", "--predictions", given, "--out", out, "--model-name", "rules", "--baseline")
    assert done.code == 0, done.err
    found, invalid = read_rows(out)
    assert not invalid and found[0].score == 0.75 and found[0].model_name == "rules" and found[0].baseline
    assert found[0].protocol == {"predictions": str(given)}
    row_suites.write("router", tmp_path, [*rows, {"gold_tool": "a"}])
    again = tinygpt("eval-router", "--predictions", given, "--out", out)
    assert again.code == 2 and "1 answers failed to come" in again.err
    assert read_rows(out)[0][-1].n_failed == 1
    call = ("eval-router", "--predictions", given)
    refused(tinygpt(*call, "--data", given), "--predictions brings its own rows", hint="leave out --data")
    for name in ("--max-tokens", "--max-errors"):
        refused(tinygpt(*call, name, 9), f"no model is asked, {name} says nothing")
    refused(tinygpt(*call, "--url", "http://127.0.0.1:1"), "no model is asked", hint="leave out the model")
    refused(tinygpt("eval-router", tmp_path, *call[1:]), "no model is asked", hint="leave out the model")


def test_options_have_the_likelihoods_of_a_server_that_echoes(tmp_path: Path) -> None:
    """A server that finds the right options likely, and one that finds them unlikely."""
    data = row_suites.write("milu", tmp_path)
    gold = {f"{i}?": "ABCD"[i % 4] for i in range(6)}
    for right, score in ((-0.1, 1.0), (-9.0, 0.0)):

        def answer(path: str, body: dict[str, Any], right: float = right) -> Reply:
            text = bytes(body["prompt"]).decode()
            value = right if text.endswith(f" {gold[text.partition('?')[0] + '?']}") else -3.0
            logprobs = [None, *[value] * (len(text) - 1)]
            choice = {"text": text, "finish_reason": "length", "logprobs": {"token_logprobs": logprobs}}
            return {"choices": [choice]}

        with server(answer).serving() as fake:
            out = tmp_path / f"{score}" / "rows.jsonl"
            out.parent.mkdir()
            found, _ = run("eval-milu", fake.url, ["--data", data, "--tokenizer", "byte"], out)
        assert {row.score for row in found} == {score} and {row.n_failed for row in found} == {0}
    with server(lambda path, body: completion("x")).serving() as fake:
        call = ("eval-milu", "--url", fake.url, "--data", data)
        refused(tinygpt(*call), "does not show its tokens", hint="--tokenizer")
        refused(tinygpt(*call, "--tokenizer", "byte"), "does not tell the log-probabilities")


def test_a_served_model_scores_as_in_this_process(tmp_path: Path) -> None:
    model, words = tiny_chat_model(tmp_path), _gsm8k(tmp_path)[0]
    (tmp_path / "held.txt").write_text("some text to be predicted\n" * 9)
    losses = ["--corpus", tmp_path / "held.txt", "--set", "options.heldout_loss.context=48"]
    found: dict[str, list[Any]] = {}
    with serve(model, tmp_path, "--no-lock") as live:
        for name, who in (("here", [model]), ("there", ["--url", live.url, "--tokenizer", model])):
            out = tmp_path / f"{name}.jsonl"
            assert tinygpt("eval", *who, *losses, "--out", out).code == 0
            at = ("--prompt", "completion", "--max-tokens", 8, "--out", out)
            assert tinygpt("eval-gsm8k", *who[: 2 if name == "there" else 1], *words, *at).code == 0
            found[name] = [row.score for row in read_rows(out)[0]]
            found[name] += [
                json.loads(line).get("got")
                for line in (tmp_path / f"{name}.examples.jsonl").read_text().splitlines()
            ]
    assert found["here"][:5] == pytest.approx(found["there"][:5], rel=1e-4)
    assert found["here"][5:] == found["there"][5:] and len(set(found["here"][5:])) > 3


def test_embeddings_of_a_server_score_as_in_this_process(tmp_path: Path) -> None:
    model = tiny_chat_model(tmp_path)
    words = ("--data", row_suites.beir(tmp_path / "beir"), "--data", row_suites.write("sts", tmp_path))
    found: dict[str, list[Any]] = {}
    with serve(model, tmp_path, "--no-lock") as live:
        for name, who in (("here", [model]), ("there", ["--url", live.url])):
            done = tinygpt("eval-mteb", *who, *words, "--out", tmp_path / f"{name}.jsonl")
            assert done.code == 0, done.err
            found[name] = [
                (row.subtask, row.metric, row.score) for row in read_rows(tmp_path / f"{name}.jsonl")[0]
            ]
    assert found["here"] == found["there"] and len(found["here"]) == 3
    call = ("eval-mteb", *words, "--tries", 1, "--out", tmp_path / "none.jsonl", "--url")
    for said in ({"data": []}, {"data": [{"embedding": "?"}] * 3}, (500, {}, {"error": "no"})):
        with server(lambda path, body, said=said: said).serving() as fake:
            refused(
                tinygpt(*call, fake.url), "HTTP 500" if isinstance(said, tuple) else "no vector for each text"
            )
    assert not (tmp_path / "none.jsonl").exists()


def test_losses_want_a_server_that_echoes(tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text("some text to be predicted\n")
    call = ("eval", "--corpus", tmp_path / "held.txt", "--tokenizer", "byte", "--tries", 1)
    window = ("--set", "options.heldout_loss.context=16")
    with server(lambda path, body: completion("x")).serving() as fake:
        refused(tinygpt(*call, "--url", fake.url, *window), "does not tell the log-probabilities")
    for value in (0.0, 0.5):

        def sure(path: str, body: dict[str, Any], value: float = value) -> Reply:
            told = {"token_logprobs": [None, *[value] * (len(body["prompt"]) - 1)]}
            return {"choices": [{"text": "", "finish_reason": "length", "logprobs": told}]}

        with server(sure).serving() as fake:
            refused(tinygpt(*call, "--url", fake.url, *window), "says that every token is certain")
    with server(lambda path, body: completion("x")).serving() as fake:
        refused(tinygpt(*call, "--url", fake.url), "the context of fake is not known")
