"""What every verifier promises: a score an answer, larger is better, and what cannot be judged is counted."""

from __future__ import annotations

import itertools
import json
import math
import shlex
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import ConfigError, RemoteError
from tinygpt.core.family import Family
from tinygpt.data.tokenizer import byte
from tinygpt.eval.endpoint import Reply
from tinygpt.eval.verifier._candidate import Candidate, Case, Judging
from tinygpt.runs._bon import point

VERIFIERS = Family("tinygpt.eval.verifier")
TOKENIZER = byte.load()


class Scripted:
    """A model that finds an 'e' likely, everything else not, and gives marks by length."""

    name, path, step, model_hash, baseline, context = "scripted", "", None, None, False, 64
    facts: Any = {}
    tokenizer = TOKENIZER

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        e = TOKENIZER.encode("e")[0]
        return [[-0.5 if i == e else -3.0 for i in row[1:]] for row in rows]

    def complete(self, prompts: Sequence[Any], *, max_tokens: int, **_: Any) -> list[Reply]:
        texts = [p[0]["content"].partition("Answer:\n")[2].partition("\n")[0] for p in prompts]
        marks = ["nonsense" if t == "???" else f"Mark: {1 + len(t)}" for t in texts]
        return [Reply(message={}, text=m, finish_reason="stop", n_tokens=1) for m in marks]


def candidate(text: str) -> Candidate:
    return Candidate(text=text, ids=TOKENIZER.encode(text) if text else [])


CASE = Case(prompt="ask", text="ask", ids=TOKENIZER.encode("ask"), expected="eee")
COUNT = f"{shlex.quote(sys.executable)} -c 'import sys; print(sys.stdin.read().count(\"e\"))'"


def settings(name: str, folder: Path) -> dict[str, Any] | None:
    """What makes each verifier like many an 'e'; a new one adds its own."""
    (folder / "corpus.txt").write_text("aske " + "eeee " * 50, encoding="utf-8")
    (folder / "own.py").write_text("def f(answer):\n    return answer.text.count('e')\n", encoding="utf-8")
    return {
        "self": None, "corpus_ppl": {"corpus": folder / "corpus.txt"}, "command": {"command": COUNT},
        "judge": {"judge": "some/model"}, "reward": {"reward_fn": f"{folder / 'own.py'}:f"},
    }[name]  # fmt: skip


def build(kind: str, folder: Path, judging: Judging | None = None, **more: Any) -> Any:
    module, given = VERIFIERS.load(kind), settings(kind, folder)
    judging = judging or Judging(model=Scripted(), open=lambda path: Scripted())
    return module.build(judging) if given is None else module.build(judging, module.Config(**given | more))


@pytest.mark.parametrize("name", VERIFIERS.names())
def test_the_better_answer_has_the_higher_score(name: str, tmp_path: Path) -> None:
    scores = build(name, tmp_path)(CASE, [candidate("eee"), candidate("x"), candidate("eee")])
    assert scores[0] > scores[1] and scores[0] == scores[2]
    assert all(isinstance(s, float) and math.isfinite(s) for s in scores)


@pytest.mark.parametrize("name", ["self", "corpus_ppl"])
def test_an_empty_answer_is_the_worst(name: str, tmp_path: Path) -> None:
    assert build(name, tmp_path)(CASE, [candidate("x"), candidate("")])[1] == -math.inf


def test_likelihoods_are_means_over_the_answer_alone(tmp_path: Path) -> None:
    assert build("self", tmp_path)(CASE, [candidate("ee"), candidate("ex")]) == [-0.5, -1.75]
    learned = build("corpus_ppl", tmp_path, corpus=None, model=tmp_path)(CASE, [candidate("ex")])
    assert learned == pytest.approx([-3.5 / math.log(2) / 2]), "bits a byte"


def test_bytes_are_counted_as_witten_and_bell_do(tmp_path: Path) -> None:
    """p of a byte with an order of 2, by hand: corpus "abab", after "a" only b was seen."""
    (tmp_path / "c.txt").write_text("abab", encoding="utf-8")
    verify = build("corpus_ppl", tmp_path, corpus=tmp_path / "c.txt", order=2)
    unigram = (2 + 2 / 256) / (4 + 2)
    bigram = (2 + 1 * unigram) / (2 + 1)
    case = Case(prompt="a", text="a", ids=[1])
    assert verify(case, [candidate("b")])[0] == pytest.approx(math.log2(bigram))


@pytest.mark.wide
def test_a_command_says_yes_or_no_or_a_number(tmp_path: Path) -> None:
    judging = Judging(model=Scripted(), open=lambda path: Scripted())
    python = shlex.quote(sys.executable)

    def scores(code: str, **more: Any) -> list[float]:
        line = f"{python} -c {shlex.quote(code)}"
        return build("command", tmp_path, judging, command=line, **more)(
            CASE, [candidate("7"), candidate("x")]
        )

    assert scores("import sys; sys.exit(sys.stdin.read() != '7')") == [1.0, 0.0]
    assert scores("import sys; t = sys.stdin.read(); print('about'); print(-2.5 if t == '7' else t)") == [
        -2.5,
        1.0,
    ]
    assert scores("import os; print(len(os.environ['TINYGPT_PROMPT']))") == [3.0, 3.0]
    assert not judging.n_failed
    assert scores("import threading; threading.Event().wait()", seconds=0.3) == [-math.inf, -math.inf]
    assert judging.n_failed == 2 and "longer than 0.3" in judging.last_error
    with pytest.raises(ConfigError, match="cannot run the verifier no-such"):
        build("command", tmp_path, command="no-such-program")(CASE, [candidate("x")])
    for wrong in ("", "a 'b"):
        with pytest.raises(ConfigError, match="command"):
            build("command", tmp_path, command=wrong)


def test_a_judge_without_a_mark_is_counted(tmp_path: Path) -> None:
    judging = Judging(model=Scripted(), open=lambda path: Scripted())
    scores = build("judge", tmp_path, judging)(CASE, [candidate("ee"), candidate("???")])
    assert scores == [3.0, -math.inf] and judging.n_failed == 1 and "nonsense" in judging.last_error


def test_marks_are_read_from_1_to_10() -> None:
    from tinygpt.eval.verifier.judge import MARK

    def mark(text: str) -> str | None:
        found = MARK.search(text)
        return found.group(1) if found else None

    assert [mark(t) for t in ("10", "7/10", "Mark: 8.", "9.0", "none", "0", "11", "3.5")] == [
        "10", "7", "8", "9", None, None, None, None,
    ]  # fmt: skip


def test_a_judge_behind_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str, dict[str, Any]]] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers["Authorization"], body))
            self.send_response(200 if body["model"] == "m" else 500)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": {"content": "6"}}]}).encode())

        def log_message(self, format: str, *args: Any) -> None:
            seen.count(())

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        assert build("judge", tmp_path, judge=url, name="m")(CASE, [candidate("a")]) == [6.0]
        assert seen[0][:2] == ("/v1/chat/completions", "Bearer secret") and "Answer:\na" in str(
            seen[0][2]["messages"]
        ).replace("\\n", "\n")
        with pytest.raises(RemoteError, match="HTTP 500") as error:
            build("judge", tmp_path, judge=url, name="other")(CASE, [candidate("a")])
        assert "secret" not in str(error.value)
    finally:
        server.shutdown()
        server.server_close()


def test_the_best_of_k_is_the_mean_over_all_choices_of_k() -> None:
    scores, right = [0.3, -1.0, 2.0, 0.9, 0.3], [False, True, False, True, True]
    for k in (1, 2, 3, 5):
        choices = list(itertools.combinations(range(5), k))
        best = [max(c, key=lambda i: scores[i]) for c in choices]
        found = point([(scores, right)], k)
        assert found["score"] == pytest.approx(sum(scores[i] for i in best) / len(best))
        assert 0 <= found["solved"] <= 1
    assert point([(scores, right)], 1)["solved"] == pytest.approx(0.6)
    assert point([(scores, right), ([1.0, 0.0], None)], 1)["score"] == pytest.approx((0.5 + 0.5) / 2)
