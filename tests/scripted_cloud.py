"""A server that speaks as OpenAI's and Anthropic's do, and does to each request what a test says."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

N_IN, N_OUT = 11, 5  # tokens that every answer tells of


@dataclass
class Reply:
    """What is done to one request.

    pieces: the text, as it streams
    then:   "done"; "cut": the connection closes; "hang": nothing more comes until the client leaves;
            "error": an error of the API, in the stream; "silent": not even a status comes until it leaves;
            "quiet": it ends as if all were said, without the last event
    """

    pieces: tuple[str, ...] = ()
    then: str = "done"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: str = ""
    finish: str = ""
    kind: str = "text/event-stream"


def said(*pieces: str, **more: Any) -> Reply:
    return Reply(pieces=pieces, **more)


def refusing(status: int, message: str = "no", **headers: str) -> Reply:
    """A refusal in the form that both APIs have."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    told = {"error": {"message": message, "type": "some_error"}, "type": "error"}
    return Reply(status=status, headers=named, body=json.dumps(told))


class ScriptedCloud:
    """Replies go out in order; the last one again and again. `left` is set when a client went away while it
    was still answered."""

    def __init__(self, *replies: Reply, models: tuple[str, ...] = ("only",)) -> None:
        self.replies, self.models = list(replies), models
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.left = threading.Event()
        self._guard = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner._answer(self, body)

            def do_GET(self) -> None:
                owner._models(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads, block_on_close = True, False

            def handle_error(self, request: Any, client_address: Any) -> None:
                owner.left.set()

        self._server = Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for path, body in self.asked if path != "/v1/models"]

    def __enter__(self) -> ScriptedCloud:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _seen(self, handler: Any, body: dict[str, Any]) -> None:
        with self._guard:
            self.asked.append((handler.path, body))
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})

    def _models(self, handler: Any) -> None:
        self._seen(handler, {})
        data = json.dumps({"data": [{"id": name} for name in self.models]}).encode()
        self._head(handler, Reply(kind="application/json"), len(data))
        handler.wfile.write(data)

    def _answer(self, handler: Any, body: dict[str, Any]) -> None:
        self._seen(handler, body)
        with self._guard:
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply.then == "silent":
            return self._wait(handler)
        if reply.body:
            data = reply.body.replace("{key}", self._key()).encode()
            self._head(handler, Reply(**{**reply.__dict__, "kind": "application/json"}), len(data))
            handler.wfile.write(data)
            return None
        self._head(handler, reply, None)
        events = anthropic(reply) if handler.path.endswith("/messages") else openai(reply)
        for event in events:
            _chunk(handler, event.encode())
        match reply.then:
            case "hang":
                self._wait(handler)
            case "cut":
                handler.close_connection = True
            case _:
                _chunk(handler, b"")
        return None

    def _key(self) -> str:
        """The key of the last request, as servers repeat it in their errors."""
        told = self.headers[-1]
        return told.get("x-api-key") or told.get("authorization", "").removeprefix("Bearer ")

    def _head(self, handler: Any, reply: Reply, length: int | None) -> None:
        handler.send_response(reply.status)
        handler.send_header("Content-Type", reply.kind)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if length is None:
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()

    def _wait(self, handler: Any) -> None:
        """Until the client leaves, which its closed connection tells."""
        connection: socket.socket = handler.connection
        connection.settimeout(30)
        with contextlib.suppress(ConnectionError):
            if connection.recv(1):
                return
        self.left.set()


def _chunk(handler: Any, data: bytes) -> None:
    handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    handler.wfile.flush()


def openai(reply: Reply) -> Iterator[str]:
    """The events of an answer of OpenAI's chat completions."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _data({**_CHUNK, "choices": [choice]})

    yield ": a comment\n\n"
    yield chunk({"role": "assistant", "content": ""})
    yield from (chunk({"content": piece}) for piece in reply.pieces)
    if reply.then == "error":
        yield _data({"error": {"message": "overloaded", "type": "server_error"}})
    if reply.then not in ("done", "quiet"):
        return
    yield chunk({}, reply.finish or "stop")
    usage = {"prompt_tokens": N_IN, "completion_tokens": N_OUT, "total_tokens": N_IN + N_OUT}
    yield _data({**_CHUNK, "choices": [], "usage": usage})
    if reply.then == "done":
        yield "data: [DONE]\n\n"


_CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def anthropic(reply: Reply) -> Iterator[str]:
    """The events of an answer of Anthropic's messages."""
    message = {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": N_IN - 1, "cache_read_input_tokens": 1,
                                         "cache_creation_input_tokens": 0, "output_tokens": 1},
    }  # fmt: skip
    yield _event("message_start", message=message)
    yield _event("ping")
    yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for piece in reply.pieces:
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
    if reply.then == "error":
        yield _event("error", error={"type": "overloaded_error", "message": "overloaded"})
    if reply.then not in ("done", "quiet"):
        return
    yield _event("content_block_stop", index=0)
    ended = {"stop_reason": reply.finish or "end_turn", "stop_sequence": None}
    yield _event("message_delta", delta=ended, usage={"output_tokens": N_OUT})
    if reply.then == "done":
        yield _event("message_stop")


def _event(type: str, **more: Any) -> str:
    return f"event: {type}\n{_data({'type': type, **more})}"


def _data(found: dict[str, Any]) -> str:
    return f"data: {json.dumps(found)}\n\n"


@contextlib.contextmanager
def two(first: Reply) -> Generator[tuple[ScriptedCloud, ScriptedCloud]]:
    """A server with this reply, in which {other} is the address of a second one that answers."""
    with ScriptedCloud(said("never")) as other:
        for name, value in first.headers.items():
            first.headers[name] = value.replace("{other}", other.url)
        with ScriptedCloud(first) as one:
            yield one, other
