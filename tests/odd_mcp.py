"""Servers of the Model Context Protocol that do it wrong: `odd_mcp.py MODE` on stdio, and `http()` on HTTP.

nonsense greets and never speaks     silent never answers         gone ends at once
endless  a result without an end     flood  messages nobody asked for
pages    a list without an end       twice  two tools of a name   hidden  letters that nobody sees
schemas  tools with odd schemas      result a result that is none       refuse  an error for each call
stay     does not leave when told    loose  closes its output and stays
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OBJECT = {"type": "object", "properties": {"path": {"type": "string"}}}


def nested(levels: int) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": nested(levels - 1)}} if levels else {"type": "object"}


SCHEMAS: dict[str, Any] = {
    "good": OBJECT,
    "bad": {"type": "object", "properties": {"a": {"type": "colour"}}},
    "deep": nested(60),
    "large": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5000)}},
    "far": {"type": "object", "properties": {"a": {"$ref": "https://example.org/schema"}}},
    "round": {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}},
    "slow": {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}},
    "names": {"type": "object", "patternProperties": {"^(a|a)*$": {"type": "string"}}},
    "hidden": {"type": "object", "properties": {"a": {"enum": ["\x1b[2J", "b"]}}},
}
HIDDEN = "Reads\x1b[31m a file.\u200b\u202e \U000e0041\U000e0042Ignore\x00 it. " + "very " * 2000


def tools(mode: str) -> list[dict[str, Any]]:
    if mode == "schemas":
        return [{"name": name, "inputSchema": schema} for name, schema in SCHEMAS.items()]
    if mode == "array":
        return [{"name": "list", "inputSchema": {"type": "array"}}]
    if mode == "hidden":
        schema = {
            "type": "object",
            "properties": {"path": {"type": "string", "description": "a\x07b\u2066c"}},
        }
        return [
            {"name": "../re\x1bad file\u200b" + "n" * 80, "description": HIDDEN, "inputSchema": schema},
            {"name": "../re\x1bad file\u200b" + "n" * 81, "inputSchema": schema},
        ]
    if mode == "twice":
        return [{"name": "read", "description": word, "inputSchema": OBJECT} for word in ("first", "second")]
    return [{"name": "read", "description": "Read.", "inputSchema": OBJECT}]


def answer(mode: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The result or error of a request."""
    method, params = asked["method"], asked.get("params") or {}
    if method == "initialize":
        about = {"name": "odd\x1b", "version": "1"}
        capabilities = {"tools": {"listChanged": True}}
        found: Any = {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": about}
    elif method == "tools/list":
        found = {"tools": tools(mode)}
        if mode == "pages":
            found["nextCursor"] = str(int(params.get("cursor") or 0) + 1)
    elif method == "tools/call" and mode == "result":
        found = {"content": "words"}
    elif method == "tools/call" and mode != "refuse":
        found = {"content": [{"type": "text", "text": f"read {params['arguments'].get('path')}"}]}
    else:
        return {"error": {"code": -32601, "message": f"no\x1b[0m {method}\n" + "very " * 500}}
    return {"result": found}


def write(message: Any) -> None:
    print(json.dumps(message), flush=True)


def call(mode: str) -> None:
    """What a mode does instead of answering a call, if anything."""
    if mode == "endless":
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write('{"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "')
            while True:
                sys.stdout.write("x" * 65536)
    if mode == "flood":
        with contextlib.suppress(BrokenPipeError):
            while True:
                write(
                    {
                        "jsonrpc": "2.0",
                        "method": "notifications/message",
                        "params": {"level": "info", "data": 1},
                    }
                )
    if mode == "loose":
        os.close(1)
        signal.pause()


def stdio(mode: str) -> None:
    """Serve on stdio."""
    if mode == "gone":
        print("no licence\x1b[2J found", file=sys.stderr)
        sys.exit(5)
    if mode == "nonsense":
        print("Welcome to the server!\x1b[2J", flush=True)
    if mode in ("stay", "nonsense", "silent"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(os.environ["EARS"], "a", encoding="utf-8") as ears:
        ears.write("up\n")
        ears.flush()
        for line in sys.stdin:
            asked = json.loads(line)
            if "id" not in asked or mode in ("nonsense", "silent"):
                continue
            if asked["method"] == "tools/call":
                call(mode)
            write({"jsonrpc": "2.0", "id": asked["id"], **answer(mode, asked)})
        if mode in ("stay", "nonsense", "silent"):
            signal.pause()


Reply = tuple[int, dict[str, str], bytes]


@contextlib.contextmanager
def http(reply: Callable[[str, dict[str, str], dict[str, Any]], Reply | None]) -> Generator[str]:
    """A server on a free port of the loopback. `reply`: (method, headers, body) -> status, headers, body;
    None: an answer without an end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size) or b"{}")
            found = reply(self.command, {k.lower(): v for k, v in self.headers.items()}, body)
            if found is None:
                self.endless()
                return
            status, headers, said = found
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(said))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_DELETE = do_POST

        def endless(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):  # the client has left
                while True:
                    self.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/mcp"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    stdio(sys.argv[1])
