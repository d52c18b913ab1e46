"""`generate`: each row is answered as if alone, in any order, and a break costs nothing that was written."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import serving
from fake_openai import FakeOpenAI, chat, completion
from tinygpt.core.errors import ConfigError, DataError, LockedError, RemoteError
from tinygpt.core.events import Events, MemorySink, Note, Progress
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane
from tinygpt.runs._asking import Config
from tinygpt.runs._openai import Client
from tinygpt.runs.generate import open_engine
from tinygpt.runs.predict import run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving.tiny_chat_model(tmp_path_factory.mktemp("predict"), context=512)


@pytest.fixture(scope="module")
def engine(model: Path) -> Engine:
    return open_engine(model)


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
ROWS: list[Any] = [
    *({"id": i, "prompt": "x" * (1 + 7 * i % 11) + str(i)} for i in range(9)),
    {"id": 9, "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "no"}]},
    {"id": 10, "messages": [{"role": "user", "content": "look"}], "tools": [TOOL]},
    {"id": 11, "prompt": "y" * 600},  # does not fit
    {"id": 12, "other": 1},
]


def _data(folder: Path, rows: list[Any] = ROWS) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _config(model: Path, folder: Path, **more: Any) -> Config:
    data = more.pop("data", None) or _data(folder)
    known = {"max_tokens": 6, "temperature": 1.0, "batch": 4, "stop": ("a",), "seed": 3}
    return Config(**{"model": model, "data": data, "out": folder / "out.jsonl", **known, **more})


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_are_answered_as_if_alone_and_in_their_order(
    model: Path, engine: Engine, tmp_path: Path
) -> None:
    sink = MemorySink()
    found = run(_config(model, tmp_path, n=2), Events(sink))
    assert (found["rows"], found["written"], found["kept"], found["skipped"]) == (13, 22, 0, 3)
    notes = [e.text for e in sink.events if isinstance(e, Note)]
    assert len(notes) == 1 and "line 12: the prompt has 600 tokens" in notes[0]
    progress = [e for e in sink.events if isinstance(e, Progress)]
    assert progress[-1].total == 26 and progress[-1].done == 25  # the bad row counts once
    rows = _read(tmp_path / "out.jsonl")
    assert [(r["id"], r["_output"]["sample"]) for r in rows] == [(i, k) for i in range(11) for k in (0, 1)]
    assert len({r["_output"]["seed"] for r in rows}) == 22
    for row in rows:
        told = row["_output"]
        settings = SampleConfig(temperature=1.0, max_tokens=6, stop=("a",), seed=told["seed"])
        if "prompt" in row:
            ids = engine.encode(row["prompt"])
        else:
            ids = engine.encode_chat(row["messages"][:1], row.get("tools"))
            assert told["message"] == engine.template.parse(row["output"])
        alone = engine.generate_batch([ids], settings, seeds=[told["seed"]])[0]
        assert (row["output"], told["finish_reason"], told["tokens"], told["prompt_tokens"]) == (
            alone.text, alone.finish_reason, len(alone.ids), len(ids),
        )  # fmt: skip


@pytest.mark.parametrize("unordered", [False, True])
def test_a_break_anywhere_is_gone_on_from(model: Path, tmp_path: Path, unordered: bool) -> None:
    whole = _config(model, tmp_path, out=tmp_path / "whole.jsonl", unordered=unordered)
    run(whole, Events())
    lines = (tmp_path / "whole.jsonl").read_bytes()
    expected = sorted(_read(tmp_path / "whole.jsonl"), key=lambda r: r["id"])
    rng, out = random.Random(1), tmp_path / "out.jsonl"
    for _ in range(3):
        cut = rng.randrange(len(lines))
        out.write_bytes(lines[:cut])
        found = run(_config(model, tmp_path, unordered=unordered), Events())
        assert found["kept"] == lines[:cut].count(b"\n") and found["written"] == 11 - found["kept"]
        assert sorted(_read(out), key=lambda r: r["id"]) == expected
    assert unordered or out.read_bytes() == lines
    more = run(_config(model, tmp_path, n=2, unordered=unordered), Events())  # more samples of the same rows
    assert (more["written"], more["kept"]) == (11, 11)


def test_an_interrupt_keeps_what_was_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, steps, step = _config(model, tmp_path, batch=2), [0], Lane.step

    def breaks(lane: Lane) -> None:
        steps[0] += 1
        if steps[0] == 12:
            raise KeyboardInterrupt
        step(lane)

    monkeypatch.setattr(Lane, "step", breaks)
    with pytest.raises(KeyboardInterrupt):
        run(config, Events())
    monkeypatch.undo()
    kept = len(_read(config.out))
    assert 0 < kept < 11 and run(config, Events())["kept"] == kept
    assert [r["id"] for r in _read(config.out)] == list(range(11))


def test_another_input_or_other_settings_are_refused(model: Path, tmp_path: Path) -> None:
    run(_config(model, tmp_path), Events())
    with pytest.raises(DataError, match="other settings, or by another model"):
        run(_config(model, tmp_path, temperature=0.5), Events())
    changed = [{**row, "id": -1} if i == 3 else row for i, row in enumerate(ROWS)]
    config = _config(model, tmp_path)
    _data(tmp_path, changed)
    with pytest.raises(DataError, match="answers another row 4 than the data has"):
        run(config, Events())
    (tmp_path / "out.jsonl").write_text('{"some": "file"}\n')
    with pytest.raises(DataError, match="line 1 is none of this command's"):
        run(_config(model, tmp_path), Events())
    assert (tmp_path / "out.jsonl").read_text() == '{"some": "file"}\n'


def test_rows_are_renamed_and_kept_as_they_were(model: Path, engine: Engine, tmp_path: Path) -> None:
    data = _data(tmp_path, [{"q": {"text": "hello"}, "output": 3}])
    with pytest.raises(ConfigError, match="a column 'output' already"):
        run(_config(model, tmp_path, data=data, map=("prompt=q.text",)), Events())
    config = _config(model, tmp_path, map=("prompt=q.text",), out_field="said", system="be brief", data=data)
    run(config, Events())
    (row,) = _read(config.out)
    asked = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert row["q"] == {"text": "hello"} and row["output"] == 3
    assert row["_said"]["prompt_tokens"] == len(engine.encode_chat(asked))


def test_nothing_to_answer_and_settings_that_make_no_sense_are_errors(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row of .* could be answered: no prompt in the row"):
        run(_config(model, tmp_path, data=_data(tmp_path, [{"a": 1}])), Events())
    data = _data(tmp_path)
    for bad, what in (
        ({"n": 0}, "--n must"),
        ({"n": 2, "temperature": 0.0}, "the same one"), ({"out": tmp_path}, "must name"),
        ({"url": "http://x", "ignore_eos": True}, "--ignore-eos says nothing"), ({"out": data}, "of --data"),
        ({"map": ("prompt",)}, "no new=old"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=what):
            _config(model, tmp_path, **bad)


def test_a_file_has_one_writer(model: Path, tmp_path: Path) -> None:
    from tinygpt.core import lock

    config = _config(model, tmp_path)
    held = lock.only_one(tmp_path / ".out.jsonl.tinygpt.lock", lambda: None)
    with held, pytest.raises(LockedError, match="another process is writing"):
        run(config, Events())


# A server


def _echo(path: str, body: dict[str, Any]) -> Any:
    if path == "/v1/models":
        return {"data": [{"id": "the-model"}]}
    if path == "/v1/completions":
        return completion(f"{body['prompt']} {body['seed']}")
    return chat(body["messages"][-1]["content"], tool_calls=body.get("tools"))


def test_a_server_answers_many_at_once_in_the_order_of_the_rows(tmp_path: Path) -> None:
    with FakeOpenAI(_echo).serving() as server:
        found = run(_config(Path("."), tmp_path, url=server.url, top_k=5), Events())
        assert (found["written"], found["skipped"]) == (12, 1)  # it does not know how much fits
        again = run(_config(Path("."), tmp_path, url=server.url, top_k=5), Events())
    assert (again["written"], again["kept"]) == (0, 12)
    rows = _read(tmp_path / "out.jsonl")
    assert [r["id"] for r in rows] == list(range(12))
    assert rows[3]["output"] == f"{ROWS[3]['prompt']} {rows[3]['_output']['seed']}"
    assert (rows[3]["_output"]["tokens"], rows[3]["_output"]["prompt_tokens"]) == (2, 3)
    assert rows[10]["output"] == "look" and rows[10]["_output"]["message"]["tool_calls"] == [TOOL]
    body = next(b for p, b in server.asked if b.get("prompt") == ROWS[3]["prompt"])
    assert {k: v for k, v in body.items() if k not in ("prompt", "seed")} == {
        "model": "the-model", "max_tokens": 6, "temperature": 1.0, "top_p": 1.0, "top_k": 5, "stop": ["a"],
    }  # fmt: skip


def test_requests_are_made_at_once_but_no_more_than_asked(tmp_path: Path) -> None:
    import threading

    gate = threading.Barrier(3)

    def answer(path: str, body: dict[str, Any]) -> Any:
        gate.wait(10)  # nobody is answered before three have asked
        return completion("x")

    data = _data(tmp_path, [{"prompt": str(i)} for i in range(9)])
    with FakeOpenAI(answer).serving() as server:
        found = run(_config(Path("m"), tmp_path, data=data, url=server.url, batch=3), Events())
    assert found["written"] == 9 and server.most == 3


def test_what_may_pass_is_tried_again_and_what_will_not_is_told() -> None:
    said: list[Any] = [
        (429, {"Retry-After": "7"}, {"error": {"message": "slow down"}}), (503, {}, "busy"),
        (200, {}, "no json"), completion("ok"),
    ]  # fmt: skip
    waits: list[float] = []
    with FakeOpenAI(lambda path, body: said.pop(0)).serving() as server:
        client = Client(server.url, pause=waits.append)
        assert client.post("/completions", {})["choices"][0]["text"] == "ok"
        assert waits[0] == 7.0 and 1 <= waits[1] <= 2 and 2 <= waits[2] <= 4
        said.append((400, {}, {"error": {"message": "temperature is too high"}}))
        with pytest.raises(RemoteError, match="HTTP 400: temperature is too high"):
            client.post("/completions", {})
        said.extend([(500, {"Retry-After": "0"}, "down")] * 3)
        with pytest.raises(RemoteError, match="HTTP 500: down"):
            Client(server.url, tries=3, pause=waits.append).post("/completions", {})
        assert not said and waits[3:] == [0.0, 0.0]
    with pytest.raises(RemoteError, match="does not answer"):
        Client(server.url, tries=1).get("/models")
    assert Client("http://host:1/").url == "http://host:1/v1" and Client("http://h/x").url == "http://h/x"
    with pytest.raises(ConfigError, match="no address of a server"):
        Client("localhost:80")


def test_the_key_of_a_server_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeOpenAI(_echo).serving() as server:
        Client(server.url).model()
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        Client(server.url).model()
    assert [h.get("Authorization") for h in server.headers] == [None, "Bearer secret"]


def test_rows_that_a_server_leaves_out_are_tried_at_the_next_start(tmp_path: Path) -> None:
    down = {"3", "5"}

    def answer(path: str, body: dict[str, Any]) -> Any:
        if body["prompt"] == "bad":
            return 400, {}, {"error": "not this one"}
        return (500, {}, "down") if body["prompt"] in down else completion("fine")

    data = _data(tmp_path, [{"prompt": str(i)} for i in range(8)] + [{"prompt": "bad"}])
    with FakeOpenAI(answer).serving() as server:
        config = _config(Path("m"), tmp_path, data=data, url=server.url, tries=1)
        with pytest.raises(RemoteError, match="2 answers are missing: .*HTTP 500: down"):
            run(config, Events())
        down.clear()
        found = run(config, Events())
        assert (found["written"], found["kept"], found["skipped"]) == (2, 6, 1)
        down |= {str(i) for i in range(100)}
        data = _data(tmp_path, [{"prompt": str(i)} for i in range(60)])
        with pytest.raises(RemoteError, match="10 rows in turn have no answer"):
            run(
                _config(Path("m"), tmp_path, data=data, url=server.url, tries=1, out=tmp_path / "b"), Events()
            )
    with FakeOpenAI(lambda path, body: (401, {}, {"error": {"message": "who are you?"}})).serving() as server:
        with pytest.raises(RemoteError, match="HTTP 401: who are you"):
            run(_config(Path("m"), tmp_path, data=data, url=server.url, out=tmp_path / "c"), Events())
        assert len(server.asked) <= 16
