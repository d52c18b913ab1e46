"""The server's gate, its error forms, its own routes and its end, without a socket."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from asgi import FakeDesk, ask, fake_registry, surface
from tinygpt.core.errors import ConfigError
from tinygpt.serve import fields, limits
from tinygpt.serve.app import App, Surface, make_app
from tinygpt.serve.document import ERRORS
from tinygpt.serve.limits import Limits, Settings, read_json
from tinygpt.serve.trace import Folder

CHAT = {"model": "tiny", "messages": []}


def run(work: Any) -> Any:
    """Its result; nothing here takes long, so what does is an error."""

    async def bounded() -> Any:
        return await asyncio.wait_for(work, 10)

    return asyncio.run(bounded())


def app(desk: Any = None, *, settings: Settings | None = None, **more: Any) -> App:
    surfaces = [surface("/v1", "openai"), surface("/api", "ollama")]
    return make_app(desk or FakeDesk(), fake_registry(), settings or Settings(log=False), surfaces, **more)


def test_every_error_has_the_form_of_its_surface() -> None:
    served = app()

    async def go() -> None:
        odd = [
            ("POST", "/v1/chat", b"{no json", 400), ("POST", "/v1/chat", b"\xff\xfe{}", 400),
            ("POST", "/v1/chat", b'{"x": NaN}', 400), ("POST", "/v1/chat", b'{"x": 1e999}', 400),
            ("POST", "/v1/chat", b'{"x": "\\ud800"}', 400), ("POST", "/v1/chat", b"[" * 65 + b"]" * 65, 400),
            ("POST", "/v1/chat", {"model": "other"}, 404), ("POST", "/v1/nothing", b"", 404),
            ("GET", "/v1/chat", b"", 405), ("POST", "/v1/broken", b"{}", 500),
            ("POST", "/v1/chat", CHAT | {"n": 17}, 400),
            ("POST", "/v1/chat", CHAT | {"stop": ["a"] * 33}, 400),
        ]  # fmt: skip
        for method, path, body, status in odd:
            for root, name in (("/v1", "openai"), ("/api", "ollama")):
                reply = await ask(served, method, path.replace("/v1", root), body)
                assert (reply.status, list(reply.json)) == (status, [name]), (path, body, reply)
                assert reply.json[name]["message"]
                param = next((key for key in ("n", "stop") if isinstance(body, dict) and key in body), None)
                assert reply.json[name]["param"] == param
        assert (await ask(served, "GET", "/v1/chat")).headers["allow"] == "POST"
        assert (await ask(served, "GET", "/elsewhere")).json["error"]["type"] == "invalid_request_error"

    run(go())


def test_no_secret_is_in_an_error_or_in_the_log() -> None:
    lines: list[str] = []
    served = app(settings=Settings(log=True), log=lines.append)
    key = "sk-ant-api03-" + "aB3dE5gH7jK9mN1p" * 2

    async def go() -> None:
        for path, body in ((f"/v1/{key}", CHAT), ("/v1/chat", CHAT | {"model": key})):
            reply = await ask(served, "POST", path, body, {"x-request-id": key})
            assert reply.status == 404 and key not in json.dumps(reply.json) and key not in str(reply.headers)
            assert "[SECRET]" in reply.json["openai"]["message"]

    run(go())
    assert len(lines) == 2 and "/v1/[SECRET] 404" in lines[0] and key not in "".join(lines)


def test_brackets_in_texts_are_no_depth() -> None:
    reply = run(ask(app(), "POST", "/v1/chat", CHAT | {"x": '[{"' * 500}))
    assert reply.status == 200


def test_depth_is_that_of_the_value() -> None:
    pieces = (1, None, 'a"[\\', '\\"{', "]]\\\\", [], {}, [[]], {"k{": {}})
    rng = random.Random(0)

    def depth(value: Any) -> int:
        inside = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, inside), default=0) if isinstance(value, dict | list) else 0

    def make(most: int) -> Any:
        if not most or rng.random() < 0.2:
            return rng.choice(pieces)
        inside = [make(most - 1) for _ in range(rng.randrange(4))]
        return inside if rng.random() < 0.5 else {f'{i}\\"[': value for i, value in enumerate(inside)}

    for value in [{"a": make(5)} for _ in range(100)]:
        wanted, body = depth(value), json.dumps(value).encode()
        assert read_json(body, Limits(depth=wanted)) == value
        with pytest.raises(ConfigError, match=f"deeper than {wanted - 1}"):
            read_json(body, Limits(depth=wanted - 1))
    for deep in (b"[" * 65 + b"]" * 65, b'{"a":' * 65 + b"1" + b"}" * 65, b"[" * 100_000):
        with pytest.raises(ConfigError, match="deeper than 64"):
            read_json(deep, Limits())


@pytest.mark.parametrize("name", ("openai", "responses", "anthropic", "ollama"))
def test_a_body_is_parsed_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def counted(body: bytes) -> Any:
        parsed.append(body)
        return json.loads(body)

    monkeypatch.setattr(fields, "parse", counted)
    monkeypatch.setattr(limits, "parse", counted)
    module = importlib.import_module(f"tinygpt.serve.{name}")
    only = Surface(module=module, prefixes=("",))
    served = make_app(FakeDesk(), fake_registry(), Settings(log=False), [only])
    path = {"openai": "/v1/chat/completions", "ollama": "/api/chat", "anthropic": "/v1/messages"}.get(name)
    said = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "input": "hi", "max_tokens": 5}
    body = {key: said[key] for key in said if name != "responses" or key in ("model", "input")}
    assert run(ask(served, "POST", path or "/v1/responses", body)).status == 200
    assert len(parsed) == 1


def test_bodies_are_bounded_in_size_and_time() -> None:
    limits = Limits(body_bytes=100, body_time=0.01)
    served = app(settings=Settings(limits=limits, log=False))

    async def go() -> None:
        too_large = await ask(served, "POST", "/v1/chat", b"x" * 101)
        assert (too_large.status, too_large.headers["connection"]) == (413, "close")
        told = await ask(served, "POST", "/v1/chat", b"", {"content-length": "101"}, slow=True)
        assert told.status == 413
        assert (await ask(served, "POST", "/v1/chat", b"{", slow=True)).status == 408

    run(go())


def test_a_key_opens_and_is_compared_whole() -> None:
    served = app(settings=Settings(keys=("secret-key-1", "secret-key-2"), log=False))

    async def go() -> None:
        for headers, status in (
            ({}, 401), ({"authorization": "Bearer secret-key-1"}, 200), ({"x-api-key": "secret-key-2"}, 200),
            ({"authorization": "bearer secret-key-2"}, 200), ({"authorization": "Bearer secret-key"}, 401),
            ({"authorization": "Basic secret-key-1"}, 401), ({"x-api-key": ""}, 401),
        ):  # fmt: skip
            reply = await ask(served, "POST", "/v1/chat", CHAT, headers)
            assert reply.status == status, headers
        assert (await ask(served, "POST", "/api/chat", CHAT)).headers["www-authenticate"] == "Bearer"
        assert (await ask(served, "GET", "/health")).status == 200
        assert (await ask(served, "GET", "/metrics")).status == 401
        assert (await ask(served, "GET", "/openapi.json")).status == 401

    run(go())


def test_names_and_pages_that_may_use_the_server() -> None:
    served = app(settings=Settings(hosts=("box.lan",), origins=("https://ok.example",), log=False))

    async def go() -> None:
        for host, status in (
            ("127.0.0.1:80", 200), ("localhost", 200), ("[::1]:80", 200), ("192.168.1.5", 200),
            ("BOX.lan:1", 200),
            ("evil.example", 403), ("localhost.evil.example", 403), ("a@localhost", 403), ("box.lan/x", 403),
        ):  # fmt: skip
            reply = await ask(served, "POST", "/v1/chat", CHAT, {"host": host})
            assert (reply.status, reply.headers.get("access-control-allow-origin")) == (status, None), host
        here = {"host": "127.0.0.1:8080"}
        for origin, status in (
            ("https://ok.example", 200), ("http://127.0.0.1:8080", 200), ("http://127.0.0.1:9", 403),
            ("https://evil.example", 403), ("null", 403), ("file://", 403), ("http://", 403),
        ):  # fmt: skip
            reply = await ask(served, "POST", "/v1/chat", CHAT, {**here, "origin": origin})
            allowed = origin if origin == "https://ok.example" else None
            assert (reply.status, reply.headers.get("access-control-allow-origin")) == (status, allowed), (
                origin
            )
        preflight = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
        yes = await ask(served, "OPTIONS", "/v1/chat", b"", {**preflight, "origin": "https://ok.example"})
        assert yes.status == 204 and yes.headers["access-control-allow-headers"] == "x-api-key"
        no = await ask(served, "OPTIONS", "/v1/chat", b"", {**preflight, "origin": "https://evil.example"})
        assert no.status == 403 and "access-control-allow-origin" not in no.headers
        assert (await ask(served, "OPTIONS", "/v1/chat")).headers["allow"]

    run(go())


def test_without_allowed_pages_no_answer_says_so() -> None:
    async def go() -> None:
        reply = await ask(app(), "GET", "/health", b"", {"origin": "https://evil.example"})
        assert reply.status == 200 and not [h for h in reply.headers if h.startswith("access-control")]

    run(go())


def test_a_client_that_leaves_stops_its_work() -> None:
    async def go() -> None:
        for stream in (False, True):
            desk = FakeDesk()
            desk.gate = asyncio.Semaphore(0)
            served = app(desk)
            leave = asyncio.Event()
            task = asyncio.create_task(
                ask(served, "POST", "/v1/chat", CHAT | {"stream": stream}, leave=leave)
            )
            while not desk.jobs:
                await asyncio.sleep(0)
            leave.set()
            await asyncio.wait_for(task, 5)
            assert desk.closed == 1
            assert served.metrics.requests.value(route="/v1/chat", method="POST", status="499") == 1

    run(go())


def test_the_end_lets_streams_say_that_they_are_cut() -> None:
    async def go() -> None:
        desk = FakeDesk(["one", "two", "three"])
        desk.gate = asyncio.Semaphore(1)
        served = app(desk)
        heard = asyncio.Event()
        stream = asyncio.create_task(ask(served, "POST", "/v1/chat", CHAT | {"stream": True}, heard=heard))
        await heard.wait()
        served.drain()
        refused = await ask(served, "POST", "/v1/chat", CHAT)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert (await ask(served, "GET", "/ready")).status == 503
        assert (await ask(served, "GET", "/health")).json["status"] == "ending"
        served.cut()
        lines = (await asyncio.wait_for(stream, 5)).body.decode().splitlines()
        assert lines[0] == "one" and "the server is ending" in lines[-2] and lines[-1] == "end"
        assert desk.closed == 1

    run(go())


def test_busy_is_503_with_the_time_to_come_back() -> None:
    desk = FakeDesk()
    desk.full = True
    reply = run(ask(app(desk), "POST", "/api/chat", CHAT))
    assert (reply.status, reply.headers["retry-after"], list(reply.json)) == (503, "1", ["ollama"])


def test_health_answers_while_models_are_loading() -> None:
    async def go() -> None:
        opened = asyncio.Event()
        served = app(prepare=opened.wait)
        async with served.api.router.lifespan_context(served.api):
            assert (await ask(served, "GET", "/health")).json["status"] == "loading"
            assert (await ask(served, "GET", "/ready")).status == 503
            assert (await ask(served, "HEAD", "/")).status == 200
            opened.set()
            while not served.state.ready:
                await asyncio.sleep(0)
            assert (await ask(served, "GET", "/ready")).json == {"ready": True, "status": "ok"}

    run(go())


def test_a_model_that_cannot_be_opened_ends_the_server() -> None:
    async def go() -> None:
        async def prepare() -> None:
            raise ConfigError("no such model")

        told: list[int] = []
        served = app(prepare=prepare, failed=lambda: told.append(1))
        async with served.api.router.lifespan_context(served.api):
            while not told:
                await asyncio.sleep(0)
            assert (await ask(served, "GET", "/ready")).json["status"] == "failed"
            assert isinstance(served.state.failed, ConfigError)

    run(go())


def test_figures_count_requests_and_drafts() -> None:
    served = app()

    async def go() -> str:
        await ask(served, "POST", "/v1/chat", CHAT)
        await ask(served, "GET", "/../etc\n", headers={"x-request-id": "mine"})
        await ask(served, "BREW", "/v1/broken")
        return (await ask(served, "GET", "/metrics")).body.decode()

    text = run(go())
    assert 'tinygpt_requests_total{method="POST",route="/v1/chat",status="200"} 1' in text
    assert 'tinygpt_requests_total{method="GET",route="other",status="404"} 1' in text
    assert 'tinygpt_requests_total{method="other",route="/v1/broken",status="405"} 1' in text
    assert "tinygpt_drafted_tokens_total 5" in text and "tinygpt_accepted_tokens_total 3" in text
    assert 'tinygpt_request_seconds_bucket{route="/v1/chat",le="+Inf"} 1' in text
    for line in text.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2 and float(line.rsplit(" ", 1)[1]) >= 0


def test_the_log_has_one_line_a_request_and_no_secrets() -> None:
    lines: list[str] = []
    served = app(settings=Settings(keys=("secret-key-1",)), log=lines.append)
    headers = {"authorization": "Bearer secret-key-1", "x-request-id": "my-id"}

    async def go() -> None:
        reply = await ask(served, "POST", "/v1/chat", CHAT | {"x": "private"}, headers)
        assert reply.headers["x-request-id"] == "my-id"
        reply = await ask(served, "POST", "/v1/cha\nt", b"", headers | {"x-request-id": "a\tb"})
        assert reply.headers["x-request-id"] != "a\tb"

    run(go())
    assert len(lines) == 2 and "POST /v1/chat 200" in lines[0] and "id=my-id" in lines[0]
    assert "secret" not in "".join(lines) and "private" not in "".join(lines)


def test_the_openapi_document_says_every_status() -> None:
    found = run(ask(app(), "GET", "/openapi.json")).json
    assert {"/", "/health", "/ready", "/metrics", "/v1/chat", "/api/chat"} <= set(found["paths"])
    for operations in found["paths"].values():
        assert all(set(o["responses"]) - {"200"} == set(map(str, ERRORS)) for o in operations.values())
    forms = [
        found["paths"][path]["post"]["responses"]["400"]["content"] for path in ("/v1/chat", "/api/chat")
    ]
    said = [form["application/json"]["schema"]["$ref"].rpartition("/")[2] for form in forms]
    assert said == ["OpenAIError", "OllamaError"] and set(said) < set(found["components"]["schemas"])
    ids = [o["operationId"] for operations in found["paths"].values() for o in operations.values()]
    assert len(set(ids)) == len(ids)
    json.dumps(found)


def test_traces_are_told_once_where_they_cannot_be_written(tmp_path: Path) -> None:
    from tinygpt.serve.trace import Record

    told: list[str] = []
    folder = Folder(tmp_path / "traces", told.append)
    folder.write(Record("r1", path="/v1/chat"))
    (file,) = (tmp_path / "traces").iterdir()
    assert json.loads(file.read_text())["request_id"] == "r1"
    folder.path = file
    folder.write(Record("r2"))
    folder.write(Record("r3"))
    assert len(told) == 1 and folder.n_lost == 2
