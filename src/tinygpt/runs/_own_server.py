"""Our own server for a model, as a process beside a benchmark that speaks HTTP, and what its rows say."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinygpt.core.errors import RemoteError
from tinygpt.data.tokenizer import hf
from tinygpt.runs import _pieces, _prompt_cache
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._asked import NOWHERE, Asked
from tinygpt.runs._harness import SHOWN, ended_with_us, stop
from tinygpt.runs._openai import Client

LOOK = 0.1  # seconds between two questions whether it is ready
SOON = 20.0  # seconds in which a server tells its models


@dataclass(kw_only=True)
class Subject:
    """Who is measured, as rows say it."""

    name: str
    path: str
    step: int | None = None
    model_hash: str | None = None
    baseline: bool = False
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


def subject_of(asked: Asked) -> Subject:
    """Who is asked: of a model of this machine what its files say, of a server's no more than its name."""
    if asked.url:
        found = Subject(name=asked_name(asked), path=Client(asked.url).url)
    else:
        found = _of_files(asked.model, asked)
    found.name, found.baseline = asked.model_name or found.name, asked.baseline
    found.step = found.step if asked.model_step is None else asked.model_step
    found.facts["batch_size"] = asked.batch
    return found


def asked_name(asked: Asked) -> str:
    """What a given server calls the model; "": its first one, as of our own server."""
    return "" if not asked.url else asked.model_name if asked.model == NOWHERE else str(asked.model)


def _of_files(model: Path, worn: Adapters) -> Subject:
    """What a model's files say of it, without opening it."""
    path = _pieces.model_path(model)
    shares = [f"{w:g}*" for w in worn.adapter_weight] or [""] * len(worn.adapter)
    names = [f"{share}{adapter.name}" for share, adapter in zip(shares, worn.adapter, strict=True)]
    manifest = _pieces.files.peek_json(path / _pieces.files.MANIFEST)
    found = Subject(name="+".join([model.resolve().name, *names]), path=str(model), step=manifest.get("step"))
    found.model_hash = _pieces.checkpoint.identity(path)
    tokenizer = hf.load(path)
    if worn.adapter:
        found.facts["adapter_hash"] = _prompt_cache.worn(worn.adapter, worn.adapter_weight)
        tokenizer = _pieces.asked_as(tokenizer, _pieces.model_path(worn.adapter[-1]))
    template = _pieces.template_of(tokenizer)
    found.facts["template_hash"] = hashlib.sha256(template.source.encode()).hexdigest()
    return found


@contextlib.contextmanager
def served(asked: Asked, log: Path, *, port: int = 0, flags: Sequence[object] = ()) -> Generator[str]:
    """The /v1 that is asked: the given server's, or that of our own with the model, until the block ends."""
    if asked.url:
        yield Client(asked.url).url
        return
    with serving(asked.model, asked, log, port=port, flags=flags) as url:
        yield url


@contextlib.contextmanager
def serving(
    model: Path, worn: Adapters, log: Path, *, port: int = 0, flags: Sequence[object] = ()
) -> Generator[str]:
    """`tinygpt serve MODEL FLAGS` until the block ends, whatever ends it; yields its /v1 once it is ready.
    RemoteError where it ends before."""
    words = [sys.executable, "-m", "tinygpt", "serve", str(model), "--port", str(port), "--no-lock", "--json"]
    words += [word for one in worn.adapter for word in ("--lora", str(one))]
    words += [word for one in worn.adapter_weight for word in ("--lora-weight", str(one))]
    words += ["--force"] * worn.force + [str(flag) for flag in flags]
    env = {key: value for key, value in os.environ.items() if key != "TINYGPT_API_KEY"}
    with log.open("ab") as errors, ended_with_us():
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()  # it listens before it opens the model
            url = json.loads(line)["url"] if line.strip() else ""
            while not (url and _ready(url)):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK)
                    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                    why = next((one for one in reversed(said) if "error:" in one), (said or ["it ended"])[-1])
                    raise RemoteError(f"our server ended before it was ready: {why[:SHOWN]}", hint=str(log))
            yield f"{url}/v1"
        finally:
            stop(process)
            process.stdout.close()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=10) as reply:
            return reply.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def answering(url: str, model: str, seconds: float) -> str:
    """The model's name at a server that has proved to answer; RemoteError where it does not. Benchmarks take
    a dead server for a model that calls nothing."""
    client = Client(url, seconds=min(seconds, SOON), tries=2)
    name = model or client.model()
    client.get("/models")
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "temperature": 0}
    found = Client(url, seconds=seconds, tries=2).post("/chat/completions", body)
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0].get("message"), dict):
        raise RemoteError(f"{client.url}/chat/completions gave no answer: {json.dumps(found)[:200]}")
    if not isinstance(found.get("usage"), dict):
        raise RemoteError(
            f"{client.url}/chat/completions counts no tokens (usage), which the benchmark reads"
        )
    return name
