"""`synthesize` against a server that fails in every way: nothing lost, nothing twice, resumed exactly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.shell import good, process, refused, snapshot, tinygpt
from rude_openai import Rude
from tinygpt.data import rows

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FAULTS = ["500", "429", "no json", "no choices", "truncated", "hangs up", "stalls", "drips", "wrong"]


def _told(body: dict[str, Any]) -> str:
    """An answer that depends on the prompt alone."""
    return json.dumps({"n": len(body["messages"][-1]["content"])})


def _inputs(folder: Path, n: int = 40) -> tuple[Path, list[str]]:
    prompts = [f"question {i} {'x' * (i % 7)}" for i in range(n)]
    path = folder / "inputs.jsonl"
    path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts), encoding="utf-8")
    (folder / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    return path, prompts


def _words(folder: Path, url: str, out: str, *more: object) -> list[object]:
    return [
        "synthesize", "--teacher", url, "--teacher-model", "m", "--inputs", folder / "inputs.jsonl",
        "--schema", folder / "schema.json", "--out", folder / out / "rows.jsonl", "--timeout", 1,
        "--backoff", 0.01, "--json", *more,
    ]  # fmt: skip


def _files(folder: Path) -> dict[str, bytes]:
    """What a command left; nothing hidden may be among it."""
    found = snapshot(folder)
    assert sorted(found) == ["rows.card.json", "rows.card.md", "rows.jsonl"]
    return found


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with inputs and, in calm/, what an undisturbed command makes of them."""
    folder = tmp_path_factory.mktemp("synthesize")
    _, prompts = _inputs(folder)
    with Rude(_told) as server:
        found = good(*_words(folder, server.url, "calm", "--parallel", 1)).json
        assert found["labelled"] == 40 and server.asked == dict.fromkeys(prompts, 1)
    return folder


def test_rows_are_what_sft_reads_in_the_order_of_the_inputs(calm: Path) -> None:
    used, report = rows.read(calm / "calm" / "rows.jsonl", rows.to_messages)
    assert report.n_used == 40 and not report.n_bad
    for i, one in enumerate(used):
        prompt = f"question {i} {'x' * (i % 7)}"
        assert one.messages[0] == {"role": "user", "content": prompt}
        assert json.loads(one.messages[1]["content"]) == {"n": len(prompt)}
    first = json.loads((calm / "calm" / "rows.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["_meta"].pop("endpoint").startswith("127.0.0.1:")
    assert first["_meta"] == {
        "teacher": "m", "input_index": 1, "prompt_tokens": 7, "completion_tokens": 2, "finish_reason": "stop",
    }  # fmt: skip


@pytest.fixture
def same_port(calm: Path) -> int:
    """The port of the undisturbed server: rows name their endpoint."""
    first = json.loads((calm / "calm" / "rows.jsonl").read_text(encoding="utf-8").splitlines()[0])
    return int(first["_meta"]["endpoint"].rpartition(":")[2])


def test_every_fault_is_overcome(calm: Path, same_port: int, tmp_path: Path) -> None:
    prompts = [f"question {i} {'x' * (i % 7)}" for i in range(40)]
    faults = {p: [FAULTS[i % len(FAULTS)], FAULTS[(i // 3) % len(FAULTS)]] for i, p in enumerate(prompts)}
    with Rude(_told, faults, port=same_port) as server:
        words = _words(calm, server.url, "faults", "--parallel", 8, "--retries", 2, "--price-in", 1e6)
        found = good(*words).json
        assert server.answered == dict.fromkeys(prompts, 1), "each is answered once, and none is left"
        assert sum(server.asked.values()) == 120
    wrong = sum(fault == "wrong" for told in faults.values() for fault in told)
    assert wrong and found["cost"] == found["prompt_tokens"] == 7 * (40 + wrong), "wrong answers cost, too"
    assert _files(calm / "faults") == _files(calm / "calm")


def test_a_server_that_dies_half_way(calm: Path, same_port: int) -> None:
    with Rude(_told, dies_after=17, port=same_port) as server:
        words = _words(calm, server.url, "died", "--parallel", 4, "--retries", 1)
        done = process(*words)  # what still tries would end with it
        refused(done, "rows in turn have no answer", hint="--resume")
        first = server.answered
    assert sum(first.values()) == 17 and not (calm / "died" / "rows.jsonl").exists()
    with Rude(_told, port=same_port) as server:
        refused(tinygpt(*words), "holds answers of an interrupted command", hint="--resume")
        refused(tinygpt(*words, "--resume", "--max-tokens", 9), "other settings")
        found = good(*words, "--resume").json
        assert found["kept_from_before"] == 17 and sum(server.asked.values()) == 23
        assert not first & server.asked, "nothing is asked twice"
        refused(tinygpt(*words, "--resume"), "is there already")
    assert _files(calm / "died") == _files(calm / "calm")


@pytest.mark.parametrize("torn", [False, True])
def test_the_command_is_killed_half_way(calm: Path, same_port: int, torn: bool) -> None:
    out = f"killed{torn}"
    with Rude(_told, dies_after=11, port=same_port) as server:
        words = _words(calm, server.url, out, "--parallel", 3, "--retries", 9, "--backoff", 20)
        command = [sys.executable, "-m", "tinygpt", *map(str, words)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            assert server.enough.wait(60)
            os.kill(child.pid, signal.SIGKILL)
        first = server.answered
    part = calm / out / ".rows.jsonl.tinygpt.part"
    kept = part.read_bytes().splitlines()
    assert 9 <= len(kept) <= 12, "settings, and what had come but for the three under way"
    if torn:
        part.write_bytes(b"\n".join(kept)[:-9])
    n = len(kept) - 1 - torn
    with Rude(_told, port=same_port) as server:
        assert good(*words, "--backoff", 0.01, "--resume").json["kept_from_before"] == n
        assert sum(server.asked.values()) == 40 - n and len(first & server.asked) == 11 - n
    assert _files(calm / out) == _files(calm / "calm")
