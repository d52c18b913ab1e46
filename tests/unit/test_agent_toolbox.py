"""tools.json: what it may say, and one line for each thing that is wrong with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tinygpt.agent import toolbox
from tinygpt.agent.builtin._job import Place
from tinygpt.agent.toolbox import BY_KEY, EXECUTORS, Toolbox
from tinygpt.agent.workspace import Workspace
from tinygpt.core.errors import ConfigError, TinyGPTError

TEXT = {"type": "string"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "work").mkdir()
    return Place(workspace=Workspace(tmp_path / "work"))


def load(folder: Path, place: Place, found: Any) -> Toolbox:
    path = folder / "tools.json"
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return toolbox.load(path, place)


def entry(properties: Any = None, required: Any = (), **keys: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties or {}, "required": list(required)}
    return {
        "type": "function",
        "function": {"name": "tool", "description": "It.", "parameters": schema},
        **keys,
    }


def test_every_executor_is_there() -> None:
    assert set(BY_KEY.values()) <= set(EXECUTORS.names())


def test_a_key_may_stand_beside_the_function_or_inside(tmp_path: Path, place: Place) -> None:
    beside = entry({"path": TEXT}, ["path"], _exec_args=["ls", "--", "{path}"], _effects=["read"], _timeout=3)
    inside = {"function": {**beside["function"], "name": "other", "_exec_args": ["ls"], "parameters": None}}
    flat = {"name": "third", "_builtin": "read_file"}
    box = load(tmp_path, place, [beside, inside, flat])
    first, second, third = box.tools
    assert (first.effects, first.seconds, first.source) == (frozenset({"read"}), 3.0, "argv")
    assert second.effects == {"execute"} and second.parameters["properties"] == {}
    assert third.name == "third" and third.source == "builtin" and "path" in third.parameters["properties"]
    assert not any(key.startswith("_") for tool in box.tools for key in tool.entry["function"])


def test_what_else_a_function_says_is_kept_for_the_template(tmp_path: Path, place: Place) -> None:
    found = entry(_exec_args=["ls"])
    found["function"]["strict"] = True
    assert load(tmp_path, place, [found]).tools[0].entry["function"]["strict"] is True


def test_servers_are_given_as_they_stand(tmp_path: Path, place: Place) -> None:
    servers = {"files": {"command": "x", "args": ["y"]}}
    box = load(tmp_path, place, {"mcpServers": servers})
    assert box.tools == () and box.servers == servers


def test_built_in_tools_by_name(place: Place) -> None:
    assert [t.name for t in toolbox.load("builtin:write_file,read_file", place).tools] == [
        "write_file",
        "read_file",
    ]
    names = [t.name for t in toolbox.load("builtin", place).tools]
    assert "run_tests" not in names and {"read_file", "run_python"} <= set(names)
    tested = Place(workspace=place.workspace, test_command=("true",))
    assert "run_tests" in [t.name for t in toolbox.load("builtin", tested).tools]


PYTHON = "def f(a, b=1):\n    return a\n\ndef g(*a):\n    pass\n"
A = {"a": TEXT}
FAULTS: list[tuple[Any, str]] = [
    ("{", "tools.json is not JSON"),
    ("7", "holds no tools"),
    ({"tools": {}}, "'tools' must be a list"),
    ({"tool": []}, "holds no tools"),
    ({"tools": [], "mcpServer": {}}, "unknown key 'mcpServer'. Did you mean 'mcpServers'"),
    ({"mcpServers": {"a": "x"}}, "must be an object of objects"),
    ([7], "tools[0] must be an object"),
    ([{"function": {"name": "a b"}, "_builtin": "read_file"}], "an odd one"),
    ([entry()], "tool 'tool' has no executor"),
    ([entry(_exec_args=["ls"], _builtin="read_file")], "has _exec_args and _builtin"),
    ([entry(_exec="ls $path")], "never run"),
    ([entry(_handler="x")], "names no executor"),
    ([entry(_exec_arg=["ls"])], "Did you mean '_exec_args'"),
    ([entry(_exec_args=["ls"], _effects=["writes"])], "Did you mean 'write'"),
    ([entry(_exec_args=["ls"], _timeout=0)], "'_timeout' is 0"),
    ([entry(_exec_args=["ls"], _timeout=True)], "'_timeout' is true"),
    ([entry(_exec_args=["ls"], _env="KEY")], "'_env' must be a list"),
    ([entry(_exec_args=["ls"], _env=["NOT_SET_ANYWHERE"])], "the environment has no NOT_SET_ANYWHERE"),
    ([entry(_exec_args=["ls"], _text=["b"])], "'_text' names 'b'"),
    ([entry(_exec_args=["ls"]), entry(_exec_args=["ls"])], "two tools have the name 'tool'"),
    ([entry(_exec_args=["ls"]) | {"kind": 1}], "unknown key 'kind' beside"),
    ([entry(_exec_args=["ls"]) | {"type": "retrieval"}], "its type is 'retrieval'"),
    ([entry(_exec_args="ls -l")], "must be a list that begins with a program"),
    ([entry(_exec_args=["no-such-program-here"])], "there is no program"),
    ([entry(A, ["a"], _exec_args=["{a}"])], "the program itself cannot be an argument"),
    ([entry(A, ["a"], _exec_args=["ls", "{b}"])], "{b} is no argument of it"),
    ([entry(A, ["a"], _exec_args=["ls"])], "the argument 'a' has no place"),
    ([entry(A, [], _exec_args=["ls", "{a}"])], "'a' may be missing"),
    ([entry(A, ["a"], _exec_args=["ls", "{a"])], "a brace that stands alone"),
    ([entry(A, ["a"], _exec_args=["ls", "--{a}"])], "lets a value choose the option"),
    ([entry(A, ["a"], _exec_args=["ls", "-{a}"])], "lets a value choose the option"),
    ([entry(A, ["a"], _exec_args=["ls", "x{a...}"])], "must stand by itself"),
    ([entry(A, ["a"], _exec_args=["ls", "{a...}"])], "needs a list of plain values"),
    ([entry({"a": {"type": "object"}}, ["a"], _exec_args=["ls", "{a}"])],
        "needs an argument of a plain type"),
    ([entry(_exec_args=["ls", ["-l"]])], "nothing says when to leave it out"),
    ([entry(_exec_args=["work/here.sh"])], "lies in the workspace"),
    ([entry(_python="own.py")], "names no function"),
    ([entry(_python="none.py:f")], "cannot be read"),
    ([entry(_python="own.py:h")], "has no function 'h'"),
    ([entry(_python="own.py:g")], "must take its arguments by name"),
    ([entry(A, [], _python="own.py:f")], "needs 'a'"),
    ([entry({**A, "c": TEXT}, ["a"], _python="own.py:f")], "takes no 'c'"),
    ([entry(_http="http://x")], "must be an object with a 'url'"),
    ([entry(_http={"url": "ftp://x/y"})], "no address of a server"),
    ([entry(_http={"url": "http://x:99999/y"})], "is no address"),
    ([entry(A, ["a"], _http={"url": "http://{a}/y"})], "only stand in the path"),
    ([entry(A, ["a"], _http={"url": "{a}://x/y"})], "only stand in the path"),
    ([entry(A, ["a"], _http={"url": "http://x:{a}/y"})], "{a"),
    ([entry(A, ["a"], _http={"url": "http://x/y?q={a}"})], "only stand in the path"),
    ([entry(_http={"url": "http://me:secret@x/y"})], "user or password"),
    ([entry(A, [], _http={"url": "http://x/{a}"})], "the path needs it"),
    ([entry(_http={"url": "http://x/", "body": {}})], "a GET has no body"),
    ([entry(_http={"url": "http://x/", "method": "STEAL"})], "is not known"),
    ([entry(_http={"url": "http://x/", "header": {}})], "Did you mean 'headers'"),
    ([entry(_http={"url": "http://x/", "headers": {"Host": "y"}})], "cannot be set"),
    ([entry(_http={"url": "http://x/", "headers": {"A": "b\r\nc"}})], "one line of ASCII"),
    ([entry(_http={"url": "http://x/", "headers": {"A": "${KEY}"}})], "${KEY} is not in '_env'"),
    (
        [entry(_http={"url": "http://x/",
            "headers": {"Authorization": "Bearer sk-" + "aB3dE5gH7jK9mN1pQ3sT5vW7"}})],
        "holds a key",
    ),
    ([entry(_builtin="read_files")], "Did you mean 'read_file'"),
    ([entry(A, ["a"], _builtin="read_file")], "parameters of its own"),
    ([{"name": "t", "_builtin": "run_tests"}], "needs the command to run"),
    ([{"name": "t", "_builtin": {"name": "read_file", "command": ["x"]}}], "has no option 'command'"),
    ([{"name": "t", "_builtin": {"name": "run_tests", "command": "pytest '"}}], "cannot be read: No closing"),
    ([entry({"a": True}, ["a"], _exec_args=["ls", "{a...}"])], "needs a list of plain values"),
    ([entry({"a": {"type": ["string", 5]}}, ["a"], _exec_args=["ls", "{a}"])], "got 5, string"),
    ([entry(A, [["a"]], _exec_args=["ls", "{a}"])], "must be a JSON Schema of an object"),
    ('{"mcpServers": {"\\ud800": {"command": "x"}}}', "half of a surrogate pair"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "said"), FAULTS, ids=[said for _, said in FAULTS])
def test_a_fault_is_one_line_with_file_and_tool(tmp_path: Path, place: Place, found: Any, said: str) -> None:
    (tmp_path / "own.py").write_text(PYTHON)
    script = tmp_path / "work/here.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    with pytest.raises(TinyGPTError) as caught:
        load(tmp_path, place, found)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert "tools.json" in caught.value.message and caught.value.exit_code == 2
    if (
        isinstance(found, list)
        and isinstance(found[0], dict)
        and "odd one" not in said
        and "two tools" not in said
    ):
        assert "tool 't" in caught.value.message


@pytest.mark.parametrize("spec", ["builtin:read", "builtin:read_file,read_file", "builtin:run_tests"])
def test_a_wrong_choice_of_built_in_tools(place: Place, spec: str) -> None:
    with pytest.raises(ConfigError):
        toolbox.load(spec, place)


def test_a_missing_file(tmp_path: Path, place: Place) -> None:
    with pytest.raises(TinyGPTError, match=r"nope.json cannot be read.*builtin:NAME"):
        toolbox.load(tmp_path / "nope.json", place)


def test_a_program_is_not_taken_from_the_workspace(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = tmp_path / "work/only-here"
    evil.write_text("#!/bin/sh\necho evil\n")
    evil.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'work'}:.:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(TinyGPTError, match="there is no program 'only-here'"):
        load(tmp_path, place, [entry(_exec_args=["only-here"])])


def test_a_python_program_of_the_person_is_fine(tmp_path: Path, place: Place) -> None:
    assert load(tmp_path, place, [entry(_exec_args=[sys.executable, "-V"])]).tools
