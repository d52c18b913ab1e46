"""The real `tinygpt serve`: it starts, answers, refuses, leaves traces and ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from serving import Live, serve, tiny_chat_model
from tinygpt.core.errors import TinyGPTError
from tinygpt.core.events import Events
from tinygpt.data import atraj
from tinygpt.runs._serve_settings import Config
from tinygpt.runs.serve import run

HELLO = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 6, "temperature": 0}


def ask(live: Live, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(live.url + path, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            text, status = reply.read().decode(), reply.status
    except urllib.error.HTTPError as error:
        text, status = error.read().decode(), error.code
    return status, json.loads(text) if text.startswith("{") else text


def command(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tinygpt", *map(str, words)], capture_output=True, text=True, timeout=120,
        env={**os.environ, **env},
    )  # fmt: skip


def test_it_serves_traces_and_ends(tmp_path: Path) -> None:
    model = tiny_chat_model(tmp_path)
    keys = tmp_path / "keys"
    keys.write_text("a-secret-key\n")
    flags = ("--api-key-file", keys, "--trace-times", tmp_path / "traces", "--max-context", 200)
    flags = (*flags, "--corrections-dir", tmp_path / "corrections")
    shown = {"authorization": "Bearer a-secret-key"}
    with serve(model, tmp_path, *flags, "--quantize", "8", "--quantize-group", "32", "--no-eos-stop") as live:
        assert ask(live, "/health")[1]["status"] == "ok"
        assert ask(live, "/v1/chat/completions", HELLO)[0] == 401
        status, said = ask(live, "/v1/chat/completions", HELLO, shown)
        assert status == 200 and said["usage"]["completion_tokens"] == 6
        long = {"messages": [{"role": "user", "content": "x" * 300}]}
        assert ask(live, "/v1/chat/completions", long, shown)[0] == 400
        assert ask(live, "/api/chat", {**HELLO, "model": "none"}, shown)[0] == 404
        fix = {"intent": "hi", "original": "hm", "corrected": "hello", "model": "tiny"}
        status, kept = ask(live, "/v1/corrections", fix, shown)
        assert status == 200 and kept["ok"] and ask(live, "/v1/corrections", fix)[0] == 401
        status, said = ask(live, "/v1/pace/route", {"user": "hi"}, shown)
        assert (status, said["error"]["type"]) == (404, "invalid_request_error")
        assert "tinygpt_answer_tokens_total 6" in ask(live, "/metrics", None, shown)[1]
        assert ask(live, "/v1/models", None, {"host": "evil.example", **shown})[0] == 403
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(30) == 0
        log = live.log.read_text()
        assert "POST /v1/chat/completions 200" in log and "a-secret-key" not in log and "Traceback" not in log
    (row,) = (tmp_path / "corrections" / "corrections.jsonl").read_text().splitlines()
    assert fix.items() <= json.loads(row).items() and json.loads(row)["id"] == kept["id"]
    found = command("infer-heatmap", tmp_path / "traces", "--json")
    request, refused = json.loads(found.stdout)["requests"]
    assert (refused["status"], refused["tokens"]) == (400, [])
    assert (request["generated_tokens"], len(request["tokens"]), request["model"]) == (6, 6, "tiny")
    assert [span["name"] for span in request["spans"]] == ["read", "queue", "prefill", "decode", "write"]


KEY = "sk-" + "aB3dE5gH7jK9mN1pQ3sT5vW7"


def test_conversations_of_every_surface_are_kept_and_replay(tmp_path: Path) -> None:
    """Each asks, hears, and goes on; a file each, in which no secret is, nor in the log."""
    model, packed = tiny_chat_model(tmp_path), ("--quantize", "8", "--quantize-group", "32")
    hi, more = {"role": "user", "content": f"hi, my key is {KEY}"}, {"role": "user", "content": "more"}
    drawn = {"temperature": 1.5, "max_tokens": 9, "model": "tiny"}
    with serve(model, tmp_path, "--no-lock", "--trace-dir", tmp_path / "traces", *packed) as live:
        said = ask(live, "/v1/chat/completions", {**drawn, "messages": [hi]})[1]
        messages = [hi, said["choices"][0]["message"], more]
        assert ask(live, "/v1/chat/completions", {**drawn, "messages": messages})[0] == 200
        said = ask(live, "/v1/messages", {**drawn, "messages": [hi]})[1]
        messages = [hi, {"role": "assistant", "content": said["content"]}, more]
        assert ask(live, "/v1/messages", {**drawn, "messages": messages})[0] == 200
        body = {"model": "tiny", "temperature": 1.5, "max_output_tokens": 9, "input": [hi]}
        said = ask(live, "/v1/responses", body)[1]
        body = {**body, "input": [more], "previous_response_id": said["id"]}
        assert ask(live, "/v1/responses", body)[0] == 200
        asked = {
            "model": "tiny", "stream": False, "messages": [hi],
            "options": {"temperature": 1.5, "num_predict": 9, "top_k": 7},
        }  # fmt: skip
        said = ask(live, "/api/chat", asked)[1]
        assert ask(live, "/api/chat", {**asked, "messages": [hi, said["message"], more]})[0] == 200
        for path, odd in (
            ("/v1/chat/completions", {"model": KEY, "messages": [hi]}),
            ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": KEY, "content": ""}]}),
            ("/v1/messages", {"model": "tiny", "max_tokens": 1, "messages": [{"role": KEY, "content": ""}]}),
            ("/v1/responses", {"model": "tiny", "input": [{"type": KEY}]}),
            ("/api/chat", {"model": KEY, "messages": [hi]}),
            (f"/v1/{KEY}", {}),
        ):
            status, told = ask(live, path, odd)
            assert status in (400, 404) and KEY not in json.dumps(told) and "[SECRET]" in json.dumps(told)
        files = sorted((tmp_path / "traces").iterdir())
        assert KEY not in live.log.read_text() and len(files) == 4
    for path in files:
        found = atraj.read(path)
        assert [step.role for step in found.steps] == ["user", "assistant"] * 2
        assert found.end is not None and found.end.outcome == "answered" and KEY not in path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600 and found.header.model["packing"]
    done = command("replay", tmp_path / "traces", "--model", model, *packed, "--json")
    assert done.returncode == 2 and "redacted before anything was sampled" in done.stderr


def test_what_was_served_replays(tmp_path: Path) -> None:
    model = tiny_chat_model(tmp_path)
    with serve(model, tmp_path, "--no-lock", "--trace-dir", tmp_path / "traces") as live:
        for i in range(3):
            hi = {"role": "user", "content": f"question {i}"}
            body = {"temperature": 1.2, "max_tokens": 12, "messages": [hi]}
            said = ask(live, "/v1/chat/completions", body)[1]
            more = [hi, said["choices"][0]["message"], {"role": "user", "content": "again"}]
            assert ask(live, "/v1/chat/completions", {**body, "messages": more})[0] == 200
    done = command("replay", tmp_path / "traces", "--model", model, "--json")
    found = json.loads(done.stdout)
    assert (found["files"], found["equal"], found["different"]) == (3, 3, 0)
    assert found["tokens"] > 20 and found["max_difference"] < 1e-4


def test_what_cannot_be_served_is_said_at_once(tmp_path: Path) -> None:
    model = tiny_chat_model(tmp_path)
    for settings, said in (
        ({"model": (str(tmp_path / "none"),)}, "there is nothing at"),
        ({"host": "0.0.0.0"}, "no key is set"),
        ({"quantize": "7"}, "bits a weight"),
        ({"quantize_group": 64}, "means nothing without --quantize"),
        ({"lora": (str(tmp_path / "none"),)}, "there is nothing at"),
        ({"lora": ("a=x", "a=y")}, "two adapters are called"),
        ({"lora": ("a=x",), "lora_weight": (1.0, 2.0)}, "2 numbers for 1 adapters"),
        ({"model": (str(model), f"tiny={model}")}, "two models are called"),
        ({"keep_alive": "soon"}, "is no time"),
        ({"tool_mode": "deferred"}, "means nothing without --tools"),
        ({"wait": True, "lock": False}, "--wait means nothing without --lock"),
        ({"port": 70000}, "at most 65535"),
        ({"model": ()}, "no model was given"),
        ({"draft_model": model, "kv_bits": 8}, "does not go with --draft-model"),
        ({"draft_model": model, "speculate": "ngram"}, "guess the same tokens"),
        ({"kv_limit": -1.0}, "must not be negative"),
        ({"trace_infer": True, "trace_times": tmp_path}, "has a folder of its own"),
    ):
        with pytest.raises(TinyGPTError, match=said):
            run(
                Config(**{"model": (str(model),), "port": 0, "lock": False} | settings),
                Events(),
                print,
                print,
            )
    found = command("serve", model, "--host", "0.0.0.0", "--no-lock")
    assert found.returncode == 2 and "no key is set" in found.stderr and not found.stdout


def test_a_folder_of_models(tmp_path: Path) -> None:
    tiny_chat_model(tmp_path)
    words = [
        sys.executable,
        "-m",
        "tinygpt",
        "serve",
        "--models-dir",
        ".",
        "--port",
        "0",
        "--no-lock",
        "--json",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=tmp_path, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        status, listed = ask(Live(url, 0, process, tmp_path, tmp_path), "/v1/models")  # type: ignore[arg-type]
        assert status == 200 and [one["id"] for one in listed["data"]] == ["tiny"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


SLOW = """
import sys, threading
from tinygpt.__main__ import main
from tinygpt.runs import _served
_served.Models.open = lambda *_: threading.Event().wait()
sys.argv = ["tinygpt", *sys.argv[1:]]
main()
"""


def test_signals_are_heeded_from_the_first_line_and_while_a_model_opens(tmp_path: Path) -> None:
    words = ["serve", str(tiny_chat_model(tmp_path)), "--port", "0", "--no-lock", "--json"]
    started = [sys.executable, "-m", "tinygpt", *words]
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    with subprocess.Popen([sys.executable, "-c", SLOW, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionError):
            while True:  # the model is still opening when nothing listens any more
                socket.create_connection(("127.0.0.1", port), timeout=10).close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130


TOLD = "Answer as briefly as you can, and never begin with an apology. " * 3
TOLD_HI = {**HELLO, "messages": [{"role": "system", "content": TOLD}, *HELLO["messages"]], "max_tokens": 24}


def chat(live: Live, **changes: Any) -> tuple[str, dict[str, Any]]:
    """The text and the usage of an answer."""
    status, said = ask(live, "/v1/chat/completions", TOLD_HI | changes)
    assert status == 200, said
    return said["choices"][0]["message"]["content"], said["usage"]


def test_guesses_change_nothing_and_are_counted(tmp_path: Path) -> None:
    model = tiny_chat_model(tmp_path)
    with serve(model, tmp_path, "--no-lock") as live:
        alone = chat(live)[0]
    for flags in (("--draft-model", model, "--draft-tokens", 3), ("--speculate", "ngram")):
        with serve(model, tmp_path, "--no-lock", *flags) as live:
            assert chat(live)[0] == alone
            figures = ask(live, "/metrics")[1]
            drafted = re.search(r"^tinygpt_drafted_tokens_total (\d+)", figures, re.M)
            assert drafted and int(drafted[1]) > 0, figures


def test_prompts_are_kept_for_the_next_start(tmp_path: Path) -> None:
    model, flags = tiny_chat_model(tmp_path), ("--no-lock", "--prompt-cache-dir", tmp_path / "kept")
    with serve(model, tmp_path, *flags) as live:
        first, usage = chat(live)
        assert usage["prompt_tokens_details"]["cached_tokens"] == 0
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(30) == 0
    with serve(model, tmp_path, *flags) as live:
        again, usage = chat(live)
        assert usage["prompt_tokens_details"]["cached_tokens"] > len(TOLD)
        assert again == first
    with serve(model, tmp_path, *flags, "--kv-bits", "8") as live:  # what was kept is of other caches
        assert chat(live)[1]["prompt_tokens_details"]["cached_tokens"] == 0


def test_answers_wait_for_room(tmp_path: Path) -> None:
    with serve(tiny_chat_model(tmp_path), tmp_path, "--no-lock", "--kv-limit", "0.001") as live:
        assert chat(live)[1]["completion_tokens"] <= 24
        status, said = ask(live, "/v1/chat/completions", {**TOLD_HI, "max_tokens": 3000})
        assert status == 400 and "bytes of caches" in said["error"]["message"]
