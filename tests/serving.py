"""A live `tinygpt serve` on a tiny chat model, and OpenAI's client of it, for tests of clients."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize

NAME = "tiny"
CONTEXT = 4096  # a byte is a token, and a catalogue of tools is long
PATIENCE = 120.0
HI: Any = [{"role": "user", "content": "hi"}]
SCHEMA: Any = {
    "type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"],
    "additionalProperties": False,
}  # fmt: skip
TOOL: Any = {
    "type": "function", "function": {"name": "light", "description": "Switch it.", "parameters": SCHEMA},
}  # fmt: skip
LONG: Any = [{"role": "user", "content": "endless " * CONTEXT}]


@dataclass(frozen=True)
class Live:
    """A server that answers. `url` has no slash at its end; `log` is what it wrote to stdout and stderr."""

    url: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    model: Path


def tiny_chat_model(folder: Path, seed: int = 3, context: int = CONTEXT) -> Path:
    """A directory `tiny` below `folder`: random weights, a token for each byte, ChatML."""
    config = ModelConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=context, initializer_range=0.25,
    )  # fmt: skip
    tokenizer = ByteTokenizer()
    return checkpoint.save(
        folder / NAME,
        initialize(LM(config), seed),
        write_tokenizer=tokenizer.save,
        ids={"eos": tokenizer.eos_id, "bos": tokenizer.bos_id, "pad": tokenizer.pad_id},
        stop_ids=tokenizer.stop_ids,
    )


@contextlib.contextmanager
def serve(model: Path, folder: Path, *flags: object) -> Generator[Live]:
    """`tinygpt serve MODEL --port 0 FLAGS` until the block ends; it is ready when this yields."""
    log = folder / "serve.log"
    env = {**os.environ, "HOME": str(folder), "TINYGPT_CACHE": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-m", "tinygpt", "serve", str(model), "--port", "0", *map(str, flags)]
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, env=env)
    ended = threading.Event()
    threading.Thread(target=lambda: (process.wait(), ended.set()), daemon=True).start()
    try:
        port = _port(log, ended)
        yield Live(f"http://127.0.0.1:{port}", port, process, log, model)
    finally:
        process.terminate()
        if not ended.wait(20):
            process.kill()
            ended.wait()


def _port(log: Path, ended: threading.Event) -> int:
    """The port that the log names, once /ready there says yes."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        said = log.read_text(encoding="utf-8", errors="replace")
        found = re.search(r"https?://(?:127\.0\.0\.1|localhost):(\d+)", said)
        if found and _ready(int(found[1])):
            return int(found[1])
        if ended.wait(0.05):  # it ended, or it is time to look again
            raise AssertionError(f"the server ended before it was ready:\n{said}")
    raise AssertionError(f"no answer from /ready in {PATIENCE:.0f} s:\n{log.read_text(errors='replace')}")


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=10) as reply:
            return reply.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Generator[Live]:
    """A server for the tests of one file."""
    folder = tmp_path_factory.mktemp("live")
    with serve(tiny_chat_model(folder), folder, "--corrections-dir", folder / "corrections") as running:
        yield running


@pytest.fixture(scope="module")
def client(live: Live) -> Any:
    """OpenAI's own client of the server."""
    return nano.require("openai").OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)


def npm(*packages: str) -> Path:
    """A folder whose node_modules has these packages ("openai@6"), for scripts that node runs. They are
    installed when a test first needs them, and kept for later runs in TINYGPT_TEST_NPM or the folder for
    temporary files. Skips where there is no node or no registry: make can install neither."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    root = Path(os.environ.get("TINYGPT_TEST_NPM") or Path(tempfile.gettempdir()) / "tinygpt-npm")
    folder = root / "-".join(sorted(packages)).replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "installed"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not done.exists():
            words = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder)]
            ran = subprocess.run([*words, *packages], capture_output=True, text=True, timeout=300)
            if ran.returncode:
                pytest.skip(f"npm could not install {packages}: {ran.stderr[-300:]}")
            done.touch()
    return folder


def node(folder: Path, script: Path, *words: str) -> str:
    """What a script writes to stdout; `folder` is from `npm`."""
    copied = folder / f"{os.getpid()}-{script.name}"  # modules are looked for beside the script
    shutil.copy(script, copied)
    try:
        ran = subprocess.run(["node", str(copied), *words], capture_output=True, text=True, timeout=120)
    finally:
        copied.unlink()
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
