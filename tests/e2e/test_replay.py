"""`tinygpt replay`: trajectories of a model are had again, and those that are not are told."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from desks import TOKENIZER
from e2e.shell import good, refused, tinygpt
from serving import tiny_chat_model
from tinygpt.agent.loop import Agent, Limits
from tinygpt.agent.recorder import Recorder
from tinygpt.data import atraj
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane
from tinygpt.runs import _agent_facts
from tinygpt.runs._agent_writer import LocalWriter
from tinygpt.runs._engine import open_engine
from unit.test_agent_writer import Hands, Silent

N = 100


def record(folder: Path, engine: Engine, path: Path, seed: int, **header: Any) -> None:
    """Two questions and their answers, some of which call tools."""
    facts = _agent_facts.of_model(path, (), engine)
    usual: dict[str, Any] = {"id": f"t{seed:03d}", "model": facts}
    head = atraj.Header(**(usual | header))
    file = atraj.Writer.begin(folder, head, engine.tokenizer.id_to_bytes)
    sampling = SampleConfig(temperature=1.0, seed=1000 * seed)
    writer = LocalWriter(engine, Lane(engine), sampling, Hands.entries, constrained=seed % 10 == 1)
    agent = Agent(
        writer, Hands(), Limits(max_steps=2, max_tokens=12), Silent(), threading.Event(),
        messages=[{"role": "system", "content": "Help."}], show_tools=bool(seed % 3),
        recorder=Recorder(file, writer, Hands.entries if seed % 3 else []),
    )  # fmt: skip
    agent.ask(f"Weather in town {seed}?")
    agent.ask("And the time?")
    file.end(atraj.End(outcome="answered"))


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Engine]:
    """A model, a folder of its trajectories, and its engine."""
    folder = tmp_path_factory.mktemp("traces")
    model = tiny_chat_model(folder)
    engine = open_engine(model)
    for seed in range(N):
        record(folder / "traces", engine, model, seed)
    return model, folder / "traces", engine


def test_a_hundred_traces_replay(traces: tuple[Path, Path, Engine]) -> None:
    model, folder, _ = traces
    found = good("replay", folder, "--model", model, "--json").json
    assert (found["files"], found["compared"], found["equal"], found["different"]) == (N, N, N, 0)
    assert found["tokens"] > 15 * N and found["max_difference"] < 1e-4 and not found["hidden_tokens"]
    assert f"{N} of {N} files equal" in good("replay", folder, "--model", model).out


def test_what_differs_is_told(traces: tuple[Path, Path, Engine], tmp_path: Path) -> None:
    model, folder, _ = traces
    for name in ("t000.atraj", "t001.atraj"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    lines = [json.loads(line) for line in (tmp_path / "t001.atraj").read_text().splitlines()]
    step = next(line["step"] for line in lines[1:] if "logprobs" in line["step"])
    step["logprobs"][-1] -= 0.5
    (tmp_path / "t001.atraj").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = tinygpt("replay", tmp_path, "--model", model)
    assert done.code == 1 and "1 of 2 files differ" in done.err
    assert "t001.atraj: differs by up to 0.5 nats" in done.out
    assert good("replay", tmp_path, "--model", model, "--tolerance", 0.6, "--json").json["equal"] == 2
    step["logprobs"][-1] += 0.5
    step["text"] = "something else"
    (tmp_path / "t001.atraj").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = tinygpt("replay", tmp_path, "--model", model)
    assert done.code == 1 and "is not that of its tokens" in done.out
    lines = [json.loads(line) for line in (folder / "t001.atraj").read_text().splitlines()]
    lines[0]["tools_hash"] = atraj.hash_of([{"name": "another"}])
    (tmp_path / "t001.atraj").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = tinygpt("replay", tmp_path, "--model", model)
    assert done.code == 1 and "the tools are not those of their hash" in done.out


def test_what_is_not_compared_is_counted(traces: tuple[Path, Path, Engine], tmp_path: Path) -> None:
    model, folder, engine = traces
    (tmp_path / "good.atraj").write_bytes((folder / "t002.atraj").read_bytes())
    record(tmp_path, engine, model, 3, id="foreign", model={"hash": "another"})
    record(tmp_path, engine, model, 4, id="rounded", sampling={"kv_bits": 4})
    old = {"version": 1, "id": "x", "steps": [{"role": "user", "content": "hi"}]}
    (tmp_path / "old.atraj").write_text(json.dumps(old))
    (tmp_path / "odd.atraj").write_text("nothing")
    facts = _agent_facts.of_model(model, (), engine)
    bare = atraj.Writer.begin(tmp_path, atraj.Header(id="bare", model=facts))
    bare.step(atraj.Step(role="user", content="hi"))
    bare.close()
    secret = "key sk-proj-" + "a1B2" * 12
    hidden = atraj.Writer.begin(tmp_path, atraj.Header(id="hidden", model=facts), TOKENIZER.id_to_bytes)
    first, second = TOKENIZER.encode("Hello "), TOKENIZER.encode(secret + ".")
    again = [None, *engine.logprobs([[*first, *second]])[0]]
    step = atraj.Step(role="assistant", content=secret, ids=first, logprobs=again[: len(first)])
    hidden.step(step)
    hidden.step(dataclasses.replace(step, n_kept=len(first), ids=second, logprobs=again[len(first) :]))
    hidden.close()
    found = good("replay", tmp_path, "--model", model, "--json").json
    assert (found["files"], found["compared"], found["equal"]) == (7, 2, 2)
    assert found["redacted_in_part"] == 1 and 0 < found["hidden_tokens"] < 10
    told = {Path(one["file"]).stem: one["why"] for one in found["not_compared"]}
    assert told.keys() == {"foreign", "rounded", "old", "odd", "bare"}
    assert told["foreign"] == "of another model (hash)" and "version 1" in told["old"]
    out = good("replay", tmp_path, "--model", model).out
    assert "1 left out: of another model (hash)" in out and "1 of them are redacted" in out


def test_nothing_to_compare_is_an_error(traces: tuple[Path, Path, Engine], tmp_path: Path) -> None:
    model, folder, _ = traces
    other = tiny_chat_model(tmp_path, seed=4)
    refused(tinygpt("replay", folder / "t000.atraj", "--model", other), "none of 1 files", "hash")
    packed = ("--quantize", 8, "--quantize-group", 32)
    refused(tinygpt("replay", folder / "t000.atraj", "--model", model, *packed), "packing")
    refused(tinygpt("replay", tmp_path / "none", "--model", model), "there is no trajectory at")
    refused(tinygpt("replay", folder, "--model", model, "--tolerance", -1), "must not be negative")
