"""The executors: what a program, a function and a request get, and how each is ended."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tinygpt.agent import _process, _request, toolbox
from tinygpt.agent.builtin._job import Place
from tinygpt.agent.tool import Outcome, Refusal, Tool
from tinygpt.agent.workspace import Workspace

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
LIST = {"type": "array", "items": TEXT}
ECHO = [sys.executable, "-c", "import sys; print(sys.argv[1:])"]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def tool(work: Path, properties: Any = None, required: Any = (), **keys: Any) -> Tool:
    schema = {"type": "object", "properties": properties or {}, "required": list(required)}
    path = work.parent / "tools.json"
    path.write_text(json.dumps([{"name": "tool", "parameters": schema, **keys}]))
    return toolbox.load(path, Place(workspace=Workspace(work))).tools[0]


def called(tool: Tool, seconds: float = 20, cancel: Any = None, **arguments: Any) -> Outcome:
    if tool.check is not None:
        tool.check(arguments)
    return tool.call(arguments, seconds, cancel or threading.Event())


def program(code: str) -> list[str]:
    return [sys.executable, "-c", code.replace("{", "{{").replace("}", "}}")]


class Soon:
    """Cancelled as soon as a file is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_set(self) -> bool:
        return self.path.exists()


# argv


def test_arguments_go_to_the_program_as_they_are(work: Path) -> None:
    """The program is run with `-c`, so what follows are its arguments."""
    made = tool(
        work, {"a": TEXT, "n": WHOLE, "flag": {"type": "boolean"}, "rest": LIST}, ["a"],
        _exec_args=[*ECHO, "-n{{x}}", ["--n={n}"], ["--flag", "{flag}"], "x{a}", "--", ["{rest...}"]],
        _text=["a"],
    )  # fmt: skip
    assert called(made, a="$HOME; `id`").stdout == f"{['-n{x}', 'x$HOME; `id`', '--']}\n"
    assert called(made, a="é", n=-3, flag=True, rest=["-r", "b c"]).stdout == (
        f"{['-n{x}', '--n=-3', '--flag', 'true', 'xé', '--', '-r', 'b c']}\n"
    )
    assert called(made, a="", n=None).exit_code == 0


@pytest.mark.parametrize("arguments", [{"a": "-x"}, {"a": "", "b": "-x"}, {"n": -1}, {"rest": ["ok", "--x"]}])
def test_a_value_is_no_option(work: Path, arguments: dict[str, Any]) -> None:
    made = tool(
        work, {"a": TEXT, "b": TEXT, "n": WHOLE, "rest": LIST},
        _exec_args=[*ECHO, ["{a}{b}"], ["{a}"], ["{n}"], ["{rest...}"], ["--", "{b}"]],
    )  # fmt: skip
    with pytest.raises(Refusal) as caught:
        called(made, **arguments)
    assert caught.value.rule == "option-injection"
    assert called(made, b="-x").stdout == "['--', '-x']\n"


def test_what_a_program_gets_of_the_environment(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "secret")
    monkeypatch.setenv("WANTED", "yes")
    monkeypatch.setenv("PATH", f"{work}:relative:{os.environ['PATH']}")
    show = [sys.executable, "-c", "import os, json; print(json.dumps([dict(os.environ), os.getcwd()]))"]
    environment, where = json.loads(called(tool(work, _exec_args=show, _env=["WANTED"])).stdout)
    assert (
        set(environment) <= {"PATH", "HOME", "LANG", "WANTED", "LC_CTYPE"} and environment["WANTED"] == "yes"
    )
    assert str(work) not in environment["PATH"].split(":") and "relative" not in environment["PATH"].split(
        ":"
    )
    assert where == str(work.resolve())


def test_a_workspace_that_was_replaced_starts_nothing(work: Path) -> None:
    made = tool(work, _exec_args=["ls"])
    work.rename(work.parent / "old")
    (work.parent / "elsewhere").mkdir()
    work.symlink_to(work.parent / "elsewhere")
    with pytest.raises(Refusal, match="moved or replaced"):
        called(made)


# Processes

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(f"pid{os.getpid()}", "w").close()
print("begun", flush=True)
while True:
    signal.pause()
"""


def alive(work: Path) -> list[int]:
    found = [int(path.name.removeprefix("pid")) for path in work.glob("pid*")]
    assert len(found) == 2
    end, tick = time.monotonic() + 5, threading.Event()
    while any(map(running, found)) and time.monotonic() < end:  # a signal takes a moment
        tick.wait(0.01)
    return [pid for pid in found if running(pid)]


def running(pid: int) -> bool:
    """A process whose end its new parent has not noticed yet does not run."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.wide
def test_the_whole_group_ends_at_the_limit_though_it_will_not(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_process, "GRACE", 0.2)
    outcome = called(tool(work, _exec_args=program(STUBBORN)), seconds=1)
    assert outcome.exit_code == _process.LATE and "stopped after 1 seconds" in outcome.stderr
    assert outcome.stdout.startswith("begun") and alive(work) == []


@pytest.mark.wide
def test_a_program_ends_when_the_person_wants_no_more(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_process, "GRACE", 0.2)
    code = "import signal; open('begun', 'w').close(); signal.pause()"
    outcome = called(tool(work, _exec_args=program(code)), cancel=Soon(work / "begun"))
    assert outcome.exit_code == _process.CANCELLED and outcome.seconds < 10


@pytest.mark.wide
def test_what_a_program_leaves_behind_is_ended(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_process, "GRACE", 0.2)
    code = (
        "import os, signal\nr, w = os.pipe()\n"
        "if os.fork() == 0:\n    open(f'pid{os.getpid()}', 'w').close(); os.write(w, b'x'); signal.pause()\n"
        "os.read(r, 1); open(f'pid{os.getpid()}', 'w').close(); print('done')"
    )
    outcome = called(tool(work, _exec_args=program(code)))
    assert (outcome.stdout, outcome.exit_code) == ("done\n", 0) and alive(work) == []


def test_endless_output_is_kept_in_part() -> None:
    code = "import sys\nprint('begin')\nfor _ in range(3000): print('x' * 1000)\nprint('end')"
    outcome = _process.run(
        [sys.executable, "-c", code],
        cwd="/",
        environment={},
        seconds=20,
        cancel=threading.Event(),
        most=10_000,
    )
    assert outcome.stdout.startswith("begin\n") and outcome.stdout.endswith("end\n")
    assert len(outcome.stdout) < 10_100 and outcome.cut == 6 + 3_003_000 + 4 - 10_000
    assert f"[... {outcome.cut} bytes left out ...]" in outcome.stdout


def test_stdin_that_nobody_reads_and_a_missing_program() -> None:
    given: dict[str, Any] = {"cwd": "/", "environment": {}, "seconds": 20, "cancel": threading.Event()}
    assert _process.run([sys.executable, "-c", ""], stdin=b"x" * 1_000_000, **given).exit_code == 0
    assert _process.run(["/no/such/program"], **given).exit_code == _process.MISSING


# Python

OWN = """
import beside

def f(a, *, b=2):
    print("said")
    return {"a": a, "b": b, "beside": beside.X}

def g():
    raise ValueError("no luck")

def h():
    while True:
        pass

def n(**more):
    return None if more else "plain"
"""


def test_a_function_of_the_person(work: Path) -> None:
    (work.parent / "own.py").write_text(OWN)
    (work.parent / "beside.py").write_text("X = 1\n")
    (work / "json.py").write_text("raise SystemExit('the workspace is on the path')\n")
    made = tool(work, {"a": TEXT, "b": WHOLE}, ["a"], _python="own.py:f")
    assert called(made, a="é").stdout == 'said\n{"a": "é", "b": 2, "beside": 1}\n'
    failed = called(tool(work, _python="own.py:g"))
    assert failed.exit_code == 1 and "ValueError: no luck" in failed.stderr
    assert called(tool(work, {"x": TEXT}, _python="own.py:n")).stdout == "plain\n"
    assert called(tool(work, {"x": TEXT}, _python="own.py:n"), x="1").stdout == ""


@pytest.mark.wide
def test_a_function_without_end_is_ended(work: Path) -> None:
    (work.parent / "own.py").write_text(OWN)
    (work.parent / "beside.py").write_text("X = 1\n")
    assert called(tool(work, _python="own.py:h"), seconds=0.5).exit_code == _process.LATE


def test_a_function_is_what_it_was_when_the_tools_were_read(work: Path) -> None:
    (work / "own.py").write_text("def f():\n    return 'old'\n")
    made = tool(work, _python="work/own.py:f")
    (work / "own.py").write_text("def f():\n    return 'new'\n")
    assert called(made).stdout == "old\n"


# HTTP


@contextlib.contextmanager
def serving(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[Any]]]:
    asked: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.command, self.path, dict(self.headers), body))
            answer(self)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def saying(status: int, body: bytes, **headers: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(to: http.server.BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        for name, value in headers.items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(body)

    return answer


def test_a_request_has_its_arguments_in_their_places(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_KEY", "a key")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(saying(200, "gefunden: ü".encode())) as (url, asked):
        made = tool(
            work, {"id": TEXT, "tags": LIST, "n": WHOLE, "note": {"type": "object"}}, ["id"],
            _env=["SERVICE_KEY"],
            _http={
                "method": "POST", "url": f"{url}/v1/{{id}}.json?fixed=a%20b",
                "query": {"tag": "{tags...}", "n": "n{n}"},
                "headers": {"Authorization": "Bearer ${SERVICE_KEY}"},
                "body": {"id": "id {id}", "note": "{note}", "list": ["{n}", 1, None]},
            },
        )  # fmt: skip
        assert made.effects == {"network", "write"}
        assert called(made, id="a/b?é", tags=["x", "y&z"], n=5, note={"k": [1]}).stdout == "gefunden: ü"
        assert called(made, id="1").exit_code == 0
    (method, path, headers, body), (_, second, _, least) = asked
    assert (method, path) == ("POST", "/v1/a%2Fb%3F%C3%A9.json?fixed=a%20b&tag=x&tag=y%26z&n=n5")
    assert headers["Authorization"] == "Bearer a key" and headers["Host"] == url.removeprefix("http://")
    assert json.loads(body) == {"id": "id a/b?é", "note": {"k": [1]}, "list": [5, 1, None]}
    assert second == "/v1/1.json?fixed=a%20b" and json.loads(least) == {"id": "id 1", "list": [1, None]}


def test_a_redirect_on_the_same_host_is_followed(work: Path) -> None:
    def answer(to: http.server.BaseHTTPRequestHandler) -> None:
        again = to.path == "/round"
        saying(302 if to.path != "/end" else 200, b"there", Location="/round" if again else "/end")(to)

    with serving(answer) as (url, asked):
        assert called(tool(work, _http={"url": f"{url}/begin"})).stdout == "there"
        assert "redirects" in called(tool(work, _http={"url": f"{url}/round"})).stderr
        posted = called(tool(work, _http={"url": f"{url}/begin", "method": "POST"}))
        assert (posted.exit_code, posted.stderr) == (1, "HTTP 302 Found")
    assert len(asked) == 2 + _request.HOPS + 1


@pytest.mark.parametrize(
    "where",
    [
        "http://127.0.0.1:{other}/x",
        "https://127.0.0.1:{own}/x",
        "http://localhost:{own}/x",
        "//evil.example/x",
    ],
)
def test_a_redirect_elsewhere_is_refused(work: Path, where: str) -> None:
    def answer(to: http.server.BaseHTTPRequestHandler) -> None:
        own = to.server.server_address[1]
        saying(301, b"", Location=where.format(own=own, other=own + 1))(to)

    with serving(answer) as (url, _), pytest.raises(Refusal) as caught:
        called(tool(work, _http={"url": f"{url}/x"}))
    assert caught.value.rule == "http-redirect"


def test_an_answer_that_is_an_error_long_or_no_text(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_request, "MOST", 1000)
    with serving(saying(404, b"no such thing")) as (url, _):
        outcome = called(tool(work, _http={"url": f"{url}/x"}))
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (1, "no such thing", "HTTP 404 Not Found")
    with serving(saying(200, b"y" * 5000)) as (url, _):
        assert "more than 1000 bytes" in called(tool(work, _http={"url": f"{url}/x"})).stdout
    with serving(saying(200, b"\0\1\2", **{"Content-Type": "image/png"})) as (url, _):
        assert (
            called(tool(work, _http={"url": f"{url}/x"})).stdout
            == "[3 bytes of image/png, which is no text]\n"
        )
    assert "gave no answer" in called(tool(work, _http={"url": f"{url}/x"})).stderr


@pytest.mark.parametrize("how", ["late", "cancelled"])
def test_an_answer_that_never_ends_is_broken_off(work: Path, how: str) -> None:
    ended = threading.Event()

    def answer(to: http.server.BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):  # it is broken off
            to.send_response(200)
            to.end_headers()
            (work / "begun").touch()
            while not ended.wait(0.02):
                to.wfile.write(b"x")

    begun = time.monotonic()
    with serving(answer) as (url, _):
        made = tool(work, _http={"url": f"{url}/x"})
        seconds, cancel = (0.2, None) if how == "late" else (30, Soon(work / "begun"))
        outcome = called(made, seconds=seconds, cancel=cancel)
        ended.set()
    assert outcome.exit_code == (_process.LATE if how == "late" else _process.CANCELLED)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("::1", False),
        ("169.254.169.254", False), ("::ffff:10.0.0.1", False), ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False),
        ("fe80::1%eth0", False), ("0.0.0.0", False), ("100.64.0.1", False), ("224.0.0.1", False),
        ("fd00::1", False),
    ],
)  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    assert _request.public(address) == public


def test_a_private_address_is_reached_where_the_template_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(0, 0, 0, "", ("10.0.0.1", 80))]
    monkeypatch.setattr(_request.socket, "getaddrinfo", lambda *_, **__: found)
    for host, private in (("10.0.0.1", False), ("localhost", False), ("nas.local", True)):
        assert _request.Server(host=host, port=80, tls=False, private=private).addresses() == ["10.0.0.1"]
    with pytest.raises(Refusal, match="nas.local leads to 10.0.0.1"):
        _request.Server(host="nas.local", port=80, tls=False).addresses()
