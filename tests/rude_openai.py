"""A server that answers each prompt, and is rude first.

It fails, stalls, asks to wait, cuts its answers off, writes what is no JSON, hangs up, and dies."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], str]


class Rude:
    """faults: by prompt, what is done to the first requests of it, one each; then it is answered. dies_after:
    answers after which every connection is closed without a word. port: 0, or the one of a server before."""

    def __init__(
        self,
        answer: Answer,
        faults: dict[str, list[str]] | None = None,
        *,
        dies_after: int | None = None,
        port: int = 0,
    ) -> None:
        self.answer, self.faults, self.dies_after = answer, faults or {}, dies_after
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[tuple[str, float]] = []
        self.enough = threading.Event()  # so many were answered that it dies
        self.let_go = threading.Event()
        self._guard = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner._serve(self, body)

            def do_GET(self) -> None:
                owner._send(self, 200, json.dumps({"data": [{"id": "rude"}]}).encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads, allow_reuse_address, block_on_close = True, True, False

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that was killed, or did not wait

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Rude:
        return self

    def __exit__(self, *_: Any) -> None:
        self.let_go.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def _serve(self, handler: Any, body: dict[str, Any]) -> None:
        prompt = next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")
        with self._guard:
            if self.dies_after is not None and sum(self.answered.values()) >= self.dies_after:
                self.enough.set()
                return self._hang_up(handler)
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            number = self.asked[prompt]
            self.asked[prompt] += 1
            faults = self.faults.get(prompt, [])
            fault = faults[number] if number < len(faults) else ""
            self.times.append((fault, time.monotonic()))
            if not fault:
                self.answered[prompt] += 1
        text = "not what was asked for" if fault == "wrong" else self.answer(body)
        whole = json.dumps(self.reply(text)).encode()
        match fault:
            case "500":
                self._send(handler, 500, b'{"error": {"message": "out of order"}}')
            case "429":
                self._send(handler, 429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0.3"})
            case "no json":
                self._send(handler, 200, b"<html>good day</html>")
            case "no choices":
                self._send(handler, 200, b'{"object": "error"}')
            case "truncated":
                self._send(handler, 200, whole[: len(whole) // 2], {"Content-Length": str(len(whole))})
                self._hang_up(handler)
            case "hangs up":
                self._hang_up(handler)
            case "stalls":
                self.let_go.wait(30)
                self._hang_up(handler)
            case "drips":
                handler.send_response(200)
                handler.end_headers()
                while not self.let_go.wait(0.05):
                    handler.wfile.write(b" ")
            case "400":
                self._send(handler, 400, b'{"error": {"message": "never"}}')
            case _:
                self._send(handler, 200, whole)

    @staticmethod
    def reply(text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 7, "completion_tokens": len(text.split())}
        return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}

    @staticmethod
    def _send(handler: Any, status: int, data: bytes, more: dict[str, str] | None = None) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (more or {})).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    @staticmethod
    def _hang_up(handler: Any) -> None:
        handler.close_connection = True
        handler.connection.close()
