"""A server that speaks as OpenAI's does, answers what a test says, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

Reply = dict[str, Any] | tuple[int, dict[str, str], Any]  # a body, or (status, headers, body)


class FakeOpenAI:
    """`answer(path, body)` gives the reply. A streamed one is a body with "chunks", sent one by one."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], Reply]) -> None:
        self.answer, self.asked = answer, list[tuple[str, dict[str, Any]]]()
        self.headers: list[dict[str, str]] = []
        self.most, self._now, self.guard = 0, 0, threading.Lock()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._serve({})

            def do_POST(self) -> None:
                self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _serve(self, body: dict[str, Any]) -> None:
                with owner.guard:
                    owner.asked.append((self.path, body))
                    owner.headers.append(dict(self.headers))
                    owner._now += 1
                    owner.most = max(owner.most, owner._now)
                reply = owner.answer(self.path, body)
                with owner.guard:
                    owner._now -= 1
                status, headers, found = reply if isinstance(reply, tuple) else (200, {}, reply)
                if "chunks" in found:
                    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in found["chunks"]]
                    data = "".join([*lines, "data: [DONE]\n\n"]).encode()
                else:
                    data = found.encode() if isinstance(found, str) else json.dumps(found).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextlib.contextmanager
    def serving(self) -> Iterator[FakeOpenAI]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def completion(text: str, **more: Any) -> dict[str, Any]:
    """A body of /v1/completions."""
    return {"choices": [{"text": text, "finish_reason": "stop"}], **_usage(text), **more}


def chat(text: str, **message: Any) -> dict[str, Any]:
    """A body of /v1/chat/completions."""
    said = {"role": "assistant", "content": text, **message}
    return {"choices": [{"message": said, "finish_reason": "stop"}], **_usage(text)}


def _usage(text: str) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": 3, "completion_tokens": len(text.split())}}
