"""A server that answers chat requests with turns by script, streamed, calls included."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG = "(nothing more comes)"


def call(name: str, id: str = "", **arguments: Any) -> dict[str, Any]:
    """A call as a turn may hold it."""
    return {"id": id or f"id-{name}", "name": name, "arguments": json.dumps(arguments)}


class ScriptedTurns:
    """Each turn is a text or a list of calls; HANG holds the connection. `asked` are the requests' bodies;
    without `usage` nothing is told of tokens."""

    def __init__(self, *turns: str | Sequence[dict[str, Any]], usage: bool = True) -> None:
        self.turns, self.asked = list(turns), list[dict[str, Any]]()
        self.hung, self._over = threading.Event(), threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None: ...

            def do_GET(self) -> None:
                self._json({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

            def do_POST(self) -> None:
                owner.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                turn = owner.turns.pop(0)
                if turn == HANG:
                    owner.hung.set()
                    owner._over.wait()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for delta in _deltas(turn):
                    self._event({"choices": [{"index": 0, "delta": delta}]})
                reason = "stop" if isinstance(turn, str) else "tool_calls"
                told = {"usage": {"prompt_tokens": 7, "completion_tokens": 3}} if usage else {}
                self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], **told})
                self.wfile.write(b"data: [DONE]\n\n")

            def _event(self, value: Any) -> None:
                self.wfile.write(f"data: {json.dumps({'model': 'scripted', **value})}\n\n".encode())

            def _json(self, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ScriptedTurns:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


def _deltas(turn: str | Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """In pieces, as servers send them."""
    if isinstance(turn, str):
        return [{"content": turn[:3]}, {"content": turn[3:]}]
    found: list[dict[str, Any]] = []
    for i, one in enumerate(turn):
        head = {
            "index": i,
            "id": one["id"],
            "type": "function",
            "function": {"name": one["name"], "arguments": ""},
        }
        found.append({"tool_calls": [head]})
        text = one["arguments"]
        for part in (text[:4], text[4:]):
            found.append({"tool_calls": [{"index": i, "function": {"arguments": part}}]})
    return found
