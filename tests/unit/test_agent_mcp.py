"""Entries of "mcpServers", and what servers say as data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.agent import _mcp_entry, _mcp_text, mcp
from tinygpt.core.errors import ConfigError

HTTP = {"url": "https://host/mcp"}
PYTHON = {"command": sys.executable}


@pytest.mark.wide
def test_the_package_is_imported_where_it_is_used() -> None:
    heavy = "[m for m in ('mcp', 'anyio', 'httpx2', 'pydantic') if m in sys.modules]"
    program = f"import sys; from tinygpt.agent import mcp\nwith mcp.open({{}}) as o: print({heavy}, o.tools)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[] ()\n"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "it must have 'command' or 'url', and not both"),
        ({**PYTHON, **HTTP}, "it must have 'command' or 'url', and not both"),
        ({**PYTHON, "arg": []}, "unknown key 'arg'. Did you mean 'args'?"),
        ({**HTTP, "env": {}}, "unknown key 'env'"),
        ({**HTTP, "type": "stdio"}, "its type is 'stdio'"),
        ({**PYTHON, "type": "http"}, "its type is 'http'"),
        ({**HTTP, "type": 3}, "its type is 3"),
        ({"command": ["python"]}, "its 'command' must be the name of a program"),
        ({"command": "python -m server"}, "there is no program 'python -m server' on the PATH"),
        ({**PYTHON, "args": "-m server"}, "its 'args' must be a list of texts"),
        ({**PYTHON, "args": ["a\0b"]}, "its 'args' must be a list of texts"),
        ({**PYTHON, "env": {"A": 1}}, "its 'env' must be an object of texts"),
        ({**PYTHON, "env": {"A": "${NO_SUCH_NAME}"}}, "the environment has no NO_SUCH_NAME"),
        ({**PYTHON, "cwd": "no/such/folder"}, "its 'cwd' 'no/such/folder' is no folder"),
        ({"url": "ftp://host"}, "'ftp://host' is no address"),
        ({"url": "https://host:99999/"}, "is no address"),
        ({"url": "https://host/a b"}, "is no address"),
        ({"url": "https://me:secret@host/"}, "its url holds a user or password"),
        ({**HTTP, "headers": {"Host": "other"}}, "the header 'Host' cannot be set"),
        ({**HTTP, "headers": {"Mcp-Session-Id": "1"}}, "the header 'Mcp-Session-Id' cannot be set"),
        ({**HTTP, "headers": {"A": "b\r\nC: d"}}, "the header A must be one line of ASCII text"),
        ({**PYTHON, "effects": ["read"]}, "its 'effects' must be an object of lists"),
        ({**PYTHON, "effects": {"a": "read"}}, "unknown effect"),
        ({**PYTHON, "effects": {"a": ["raed"]}}, "unknown effect 'raed' of 'a'. Did you mean 'read'?"),
    ],
)
def test_an_entry_that_is_none_is_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught, mcp.open({"na\x1bme": given}):
        pytest.fail("it was opened")
    assert caught.value.message.startswith("MCP server 'name': ") and words in caught.value.message
    assert "secret" not in str(caught.value)


def test_values_of_the_environment_are_filled_in_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "abcdef123456")
    headers = {"Authorization": "Bearer ${SOME_KEY}", "X": "plain"}
    entry = _mcp_entry.read("a", {**HTTP, "headers": headers})
    assert entry.headers == {"Authorization": "Bearer abcdef123456", "X": "plain"}
    assert entry.hide("401 for abcdef123456") == "401 for [SOME_KEY]"
    assert "abcdef" not in str(entry.failed("says abcdef123456"))
    assert _mcp_entry.read("a", {"url": "https://host/mcp?key=1", "type": "sse"}).place == "https://host/mcp"
    monkeypatch.setenv("LINE", "a\nb")
    with pytest.raises(ConfigError, match="one line of ASCII"):
        _mcp_entry.read("a", {**HTTP, "headers": {"A": "${LINE}"}})


def test_the_program_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "serve"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _mcp_entry.read("a", {"command": "serve", "args": ["-x"]}).command == (str(program), "-x")
    assert _mcp_entry.read("a", {"command": "./serve", "cwd": str(tmp_path)}).command == (str(program),)
    assert mcp.files({"a": {"command": str(program), "args": ["serve", "-x", "."]}}) == [program]
    assert mcp.files({"a": {"command": "python", "args": ["serve"], "cwd": str(tmp_path)}}) == [program]
    assert mcp.files({"a": {"command": 5, "args": 5, "cwd": 5}}) == []  # what it is, is said later


def test_names_are_those_that_every_endpoint_takes() -> None:
    assert _mcp_text.named("git", "git_log", ()) == "git__git_log"
    assert _mcp_text.named("my server", "read.file/x", ()) == "my_server__read_file_x"
    assert _mcp_text.named("a", "b", {"a__b"}) == "a__b_2"
    assert _mcp_text.named("a", "b", {"a__b", "a__b_2"}) == "a__b_3"
    long = [_mcp_text.named("server", "n" * 80 + end, ()) for end in "ab"]
    assert long[0] != long[1] and {len(name) for name in long} == {64}
    assert len(_mcp_text.named("server", "n" * 80, {_mcp_text.named("server", "n" * 80, ())})) == 64


def test_letters_that_steer_or_hide_are_taken_out() -> None:
    assert _mcp_text.clean("a\x1b[2J\tb\n\u202ec\u200bd\U000e0041\ud800e\x85f", 99) == "a[2J\tb\ncdef"
    assert _mcp_text.clean("x" * 9, 4) == "xxxx [...]"
    assert _mcp_text.line(" a\n\n b\t c ") == "a b c"


def test_patterns_that_may_take_for_ever_are_left_to_the_server() -> None:
    def pattern(text: str) -> Any:
        node = {"type": "object", "properties": {"a": {"type": "string", "pattern": text}}}
        return _mcp_text.schema(node, "a")["properties"]["a"].get("pattern")

    for kept in (r"^[a-z]+$", r"^\d{4}-\d{2}$", "^(read|write)$", "a?b?c?"):
        assert pattern(kept) == kept
    for dropped in ("(a+)+$", "^(a|a)*$", r"\d+\d+$", "(ab){9}", "a{2,}b{3,}"):
        assert pattern(dropped) is None
    with pytest.raises(ValueError, match="may take for ever"):
        _mcp_text.schema({"type": "object", "patternProperties": {"(a+)+": {}}}, "a")


@pytest.mark.wide
def test_effects_are_those_of_the_hints_or_worse() -> None:
    nano.require("mcp.client.client")
    from mcp.types import ToolAnnotations

    def found(away: bool = False, **hints: bool) -> set[str]:
        said = ToolAnnotations.model_validate(hints, by_name=True) if hints else None
        return set(_mcp_text.effects(said, away=away))

    assert found() == {"execute", "network"}
    assert found(idempotent_hint=True) == {"execute", "network"}
    assert found(read_only_hint=True) == {"read", "network"}
    assert found(read_only_hint=True, destructive_hint=True, open_world_hint=False) == {"read"}
    assert found(read_only_hint=True, open_world_hint=False, away=True) == {"read", "network"}
    assert found(read_only_hint=False) == {"write", "delete", "network"}
    assert found(destructive_hint=False, open_world_hint=False) == {"write"}
    assert found(open_world_hint=True) == {"write", "delete", "network"}


@pytest.mark.wide
def test_results_are_text() -> None:
    nano.require("mcp.client.client")
    from mcp.types import CallToolResult

    def text(*content: Any, **more: Any) -> str:
        return _mcp_text.outcome(CallToolResult.model_validate({"content": content, **more})).stdout

    def said(word: str) -> dict[str, str]:
        return {"type": "text", "text": word}

    assert text(said("a"), said("b")) == "a\nb"
    assert text(said("5"), structuredContent={"result": 5}) == "5"
    assert text(said("a"), said("b"), structuredContent={"result": ["a", "b"]}) == "a\nb"
    assert text(said('{"n": 1}'), structuredContent={"n": 1}) == '{"n": 1}'
    assert text(said("words"), structuredContent={"content": "words"}) == "words"
    assert text(said("done"), structuredContent={"n": 1}) == 'done\n{"n": 1}'
    assert text(structuredContent={"n": "ü"}) == '{"n": "ü"}'
    assert text() == ""
    audio = {"type": "audio", "data": "AAAA", "mimeType": "audio/wav\x1b"}
    assert text(audio) == "[audio, audio/wav, 3 bytes, not shown]"
    link = {"type": "resource_link", "name": "a", "uri": "file:///a"}
    assert text(link) == "[resource a: file:///a]"
    inner = {"uri": "file:///a", "text": "words"}
    assert text({"type": "resource", "resource": inner}) == "[resource file:///a]\nwords"
    blob = {"uri": "file:///a", "blob": "AAA="}
    assert text({"type": "resource", "resource": blob}) == "[resource file:///a, data, 2 bytes, not shown]"
    failed = _mcp_text.outcome(CallToolResult.model_validate({"content": [said("no")], "isError": True}))
    assert (failed.exit_code, failed.stderr, failed.stdout) == (1, "no", "")
