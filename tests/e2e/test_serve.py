"""The real `tinygpt serve`: it starts, answers, refuses, leaves traces and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from serving import Live, serve, tiny_chat_model

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
    flags = ("--api-key-file", keys, "--trace-dir", tmp_path / "traces", "--max-context", 200)
    shown = {"authorization": "Bearer a-secret-key"}
    with serve(model, tmp_path, *flags, "--quantize", "8", "--quantize-group", "32", "--no-eos-stop") as live:
        assert ask(live, "/health")[1]["status"] == "ok"
        assert ask(live, "/v1/chat/completions", HELLO)[0] == 401
        status, said = ask(live, "/v1/chat/completions", HELLO, shown)
        assert status == 200 and said["usage"]["completion_tokens"] == 6
        long = {"messages": [{"role": "user", "content": "x" * 300}]}
        assert ask(live, "/v1/chat/completions", long, shown)[0] == 400
        assert ask(live, "/api/chat", {**HELLO, "model": "none"}, shown)[0] == 404
        assert "tinygpt_answer_tokens_total 6" in ask(live, "/metrics", None, shown)[1]
        assert ask(live, "/v1/models", None, {"host": "evil.example", **shown})[0] == 403
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(30) == 0
        log = live.log.read_text()
        assert "POST /v1/chat/completions 200" in log and "a-secret-key" not in log and "Traceback" not in log
    found = command("infer-heatmap", tmp_path / "traces", "--json")
    request, refused = json.loads(found.stdout)["requests"]
    assert (refused["status"], refused["tokens"]) == (400, [])
    assert (request["generated_tokens"], len(request["tokens"]), request["model"]) == (6, 6, "tiny")
    assert [span["name"] for span in request["spans"]] == ["read", "queue", "prefill", "decode", "write"]


def test_what_cannot_be_served_is_said_at_once(tmp_path: Path) -> None:
    model = tiny_chat_model(tmp_path)
    for words, said in (
        ((tmp_path / "none",), "there is nothing at"),
        ((model, "--host", "0.0.0.0"), "no key is set"),
        ((model, "--quantize", "7"), "bits a weight"),
        ((model, "--lora", tmp_path / "none"), "there is nothing at"),
        ((model, f"tiny={model}"), "two models are called"),
        ((model, "--keep-alive", "soon"), "is no time"),
        ((model, "--tool-mode", "deferred"), "means nothing without --tools"),
        ((), "no model was given"),
    ):
        found = command("serve", *words, "--port", 0, "--no-lock")
        assert found.returncode == 2 and said in found.stderr, (words, found)
        assert not found.stdout and "Traceback" not in found.stderr


@pytest.mark.parametrize("words", [("--models-dir", "."), ("--models-dir", ".", "--json")])
def test_a_folder_of_models(tmp_path: Path, words: tuple[str, ...]) -> None:
    tiny_chat_model(tmp_path)
    run = [sys.executable, "-m", "tinygpt", "serve", *words, "--port", "0", "--no-lock"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, cwd=tmp_path, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = json.loads(line)["url"] if "--json" in words else line.split()[-1]
        status, listed = ask(Live(url, 0, process, tmp_path, tmp_path), "/v1/models")  # type: ignore[arg-type]
        assert status == 200 and [one["id"] for one in listed["data"]] == ["tiny"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
