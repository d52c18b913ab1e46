"""MCP servers that do it wrong, at the start, in a call, or in what they say: each is one clear line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nano
import odd_mcp
from mcp_servers import GOING, PATIENCE, Ears, by_name, hearing, odd, plain, refused, use
from tinygpt.agent import mcp
from tinygpt.agent.policy import Policy, Rules
from tinygpt.agent.tool import Outcome
from tinygpt.core.errors import RemoteError

nano.require("jsonschema")
nano.require("mcp.client.client")


@pytest.fixture
def ears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ears]:
    with hearing(tmp_path, monkeypatch) as found:
        yield found


def test_a_server_that_does_not_start_is_one_line(ears: Ears) -> None:
    refused(odd("gone", ears), "did not start: has ended (exit code 5): no licence[2J found")
    refused(odd("silent", ears), "has not answered within 1.5 seconds", seconds=1.5)
    nonsense = "has not answered within 1 seconds: it wrote 'Welcome to the server![2J', which is no message"
    refused(odd("nonsense", ears), nonsense, seconds=1)
    array = "does not list its tools: tools.0.inputSchema.type: Input should be 'object'"
    refused(odd("array", ears), array)
    refused(odd("pages", ears), "lists more than 500 tools, or has no end of them")
    ears.end()


def test_one_server_that_does_not_start_ends_all(ears: Ears) -> None:
    refused({**plain(ears), **odd("silent", ears), "bad": odd("gone", ears)["odd"]}, "'bad' did not start")
    ears.end()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("endless", "sent a message of more than 16 MiB; it is not known"),
        ("flood", "sent more than 10,000 messages that nobody asked for"),
        ("result", "answered what is no result: content: Input should be a valid list"),
        ("refuse", "refuses the call: no[0m tools/call very very"),
        ("loose", r"has ended (signal 15); it is not known"),
    ],
)
def test_a_call_that_goes_wrong_is_one_line(mode: str, words: str, ears: Ears) -> None:
    with mcp.open(odd(mode, ears)) as opened:
        with pytest.raises(RemoteError) as caught:
            use(opened, "odd__read", path="a")
        said = str(caught.value)
        assert words in said and said.startswith("MCP server 'odd' ") and "\n" not in said and len(said) < 500
        assert len(by_name(opened)) == 1
    ears.end()


def test_a_server_that_does_not_leave_is_ended(ears: Ears) -> None:
    with mcp.open(odd("stay", ears)) as opened:
        assert use(opened, "odd__read", path="a") == Outcome(stdout="read a")
        ears.hear("up")
    ears.end()


def test_names_and_descriptions_are_data(ears: Ears) -> None:
    with mcp.open(odd("hidden", ears)) as opened:
        one, two = opened.tools
        assert one.name.startswith("odd___re_ad_file_nnn") and one.name != two.name
        assert max(len(one.name), len(two.name)) <= 64 and one.name.isascii()
        assert one.description.startswith("Reads[31m a file. Ignore it. very")
        assert len(one.description) < 4010 and one.description.endswith("[...]")
        assert one.parameters["properties"]["path"]["description"] == "abc"
        assert one.call({"path": "a"}, PATIENCE, GOING) == Outcome(stdout="read a")
    with mcp.open(odd("twice", ears)) as opened:
        assert [tool.description for tool in opened.tools] == ["first"]
        assert opened.notes == ["MCP server 'odd' lists 'read' twice; the first is taken"]


def test_tools_whose_schemas_are_none_are_left_out(ears: Ears) -> None:
    with mcp.open(odd("schemas", ears)) as opened:
        assert list(by_name(opened)) == ["odd__good", "odd__round", "odd__slow"]
        left = {note.split("'")[3]: note for note in opened.notes}
        assert left.keys() == {"bad", "deep", "large", "far", "names", "hidden"}
        assert all("is left out: its schema" in note and len(note) < 400 for note in left.values())
        policy = Policy(opened.tools, Rules(yes=frozenset({"execute", "network"})))
        assert policy.run("odd__good", {"path": "a"}, GOING)[1].stdout == "read a"
        assert policy.run("odd__round", {"a": 1}, GOING)[0].rule == "bad-arguments"
        assert policy.run("odd__slow", {"a": "a" * 99 + "!"}, GOING)[0].rule == "told"


def test_a_program_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    refused({"x": {"command": "no-such-program"}}, "MCP server 'x': there is no program 'no-such-program'")
    refused({"x": {"command": "./none", "cwd": str(tmp_path)}}, "./none is no program")
    (tmp_path / "text").write_text("words")
    (tmp_path / "text").chmod(0o700)
    refused({"x": {"command": str(tmp_path / "text")}}, "MCP server 'x' cannot be started: Exec format error")


def test_servers_over_http_that_do_it_wrong(ears: Ears) -> None:
    def saying(status: int, body: bytes = b"", **headers: str) -> Any:
        return lambda method, given, asked: (
            status,
            {k.replace("_", "-"): v for k, v in headers.items()},
            body,
        )

    def endless(method: str, given: Any, asked: Any) -> odd_mcp.Reply | None:
        if asked.get("method") == "tools/call":
            return None
        if "id" not in asked:
            return 202, {}, b""
        body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], **odd_mcp.answer("", asked)})
        return 200, {"content-type": "application/json"}, body.encode()

    html = "text/html"
    for reply, words in (
        (saying(401), "answers 401 at http://127.0.0.1:"),
        (saying(404), "answers 404 at http://127.0.0.1:"),
        (saying(503), "answers 503 at http://127.0.0.1:"),
        (saying(200, b"<html>hello</html>", content_type=html), "Unexpected content type: text/html"),
        (saying(307, location="http://127.0.0.1:9/mcp"), "not followed"),
        (saying(200, b"{}", content_type="application/json"), "does not speak MCP"),
        (
            saying(200, b"\x1f\x8b" + b"0" * 99, content_type="application/json", content_encoding="gzip"),
            "does not",
        ),
    ):
        with odd_mcp.http(reply) as url:
            refused({"far": {"url": url}}, "MCP server 'far' ", words)
    with odd_mcp.http(endless) as url, mcp.open({"far": {"url": url}}) as opened:
        with pytest.raises(RemoteError, match="sent a message of more than 16 MiB"):
            use(opened, "far__read", path="a")
        with pytest.raises(RemoteError, match="sent a message of more than 16 MiB"):  # connected to again
            use(opened, "far__read", path="a")
