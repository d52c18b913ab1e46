"""The file-operations simulator and its tools: like the real commands, never raising on a model's call."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.data.world.file_ops import TOOLS, FileSystem, execute, render_state
from tinygpt.data.world.file_ops.file_system import PathError
from tinygpt.data.world.file_ops.tools import run
from trees import problems, state


def call(name: str, /, **arguments: object) -> dict:
    return {"name": name, "arguments": arguments}


def errors(fs: FileSystem, *calls: dict) -> list[str | None]:
    return [run(fs, c).error for c in calls]


def test_equal_by_outcome_not_by_the_way_there():
    one, two = state("/a/"), state("/a/")
    errors(one, call("mkdir", path="a/b"))
    errors(two, call("cd", path="a"), call("mkdir", path="b"), call("cd", path=".."))
    assert one == two
    errors(two, call("cd", path="a"))
    assert one != two and one.same_tree(two)


def test_a_copy_is_independent():
    one = state("/a")
    two = one.copy()
    errors(two, call("rm", path="a"))
    assert one.is_file("/a") and not two.is_file("/a")


@pytest.mark.parametrize("tool", ["mv", "cp"])
def test_mv_and_cp_like_the_commands(tool):
    def after(source: str, destination: str, *paths: str, **more: object) -> dict[str, str | None] | str:
        fs = state(*paths)
        outcome = run(fs, call(tool, source=source, destination=destination, **more))
        return outcome.error or fs.nodes

    gone = {} if tool == "mv" else None  # what is left of the source
    into = after("a", "d", "/a", "/d/")
    assert into == {"/": None, "/d": None, "/d/a": "/a\n", **({"/a": "/a\n"} if gone is None else {})}
    assert after("a", "b", "/a", "/b")["/b"] == "/a\n"  # onto a file: replaced
    assert after("a", "d", "/a", "/d/a")["/d/a"] == "/a\n"  # into a directory that has one of that name
    assert after("a", "d", "/a", "/d/a/") == "is_a_directory"
    assert after("a", "new/", "/a") == "not_a_directory"
    assert after("a", "no/b", "/a") == "not_found"
    assert after("a", "b/c", "/a", "/b") == "not_a_directory"
    assert after("x", "y", "/a") == "not_found"
    assert after("a", "a", "/a") == "same_file"
    assert after("a", ".", "/a") == "same_file"
    more = {"recursive": True} if tool == "cp" else {}
    assert after("d", "e", "/d/x", "/e/", **more)["/e/d/x"] == "/d/x\n"  # a directory into a directory
    assert after("d", "n", "/d/x", **more)["/n/x"] == "/d/x\n"  # or to a new name
    assert after("d", "a", "/d/x", "/a", **more) == "not_a_directory"
    assert after("d", "d/e", "/d/x", **more) == "into_itself"
    assert after("d/d", ".", "/d/d/x", **more) == "not_empty"  # would replace d by a part of itself


def test_mv_and_cp_of_directories():
    fs = state("/d/x", "/e/d/y")
    assert errors(fs, call("mv", source="d", destination="e")) == ["not_empty"]
    assert errors(fs, call("cp", source="d", destination="e")) == ["is_a_directory"]
    assert errors(fs, call("cp", source="d", destination="e", recursive=True)) == [None]
    assert set(fs.below("/e")) == {"/e/d", "/e/d/x", "/e/d/y"}  # cp -r merges
    assert errors(state("/d/x", cwd="/d"), call("mv", source="/d", destination="/e")) == ["busy"]


def test_rm_rmdir_mkdir():
    fs = state("/d/x", "/e/", "/f")
    bad = [call("rm", path="d"), call("rmdir", path="d"), call("rmdir", path="f"), call("rm", path="no")]
    assert errors(fs, *bad) == ["is_a_directory", "not_empty", "not_a_directory", "not_found"]
    assert errors(fs, call("rm", path="d", recursive=True), call("rmdir", path="e")) == [None, None]
    assert fs == state("/f")
    assert errors(fs, call("mkdir", path="f"), call("mkdir", path="a/b")) == ["exists", "not_found"]
    assert (
        errors(fs, call("mkdir", path="a/b", parents=True), call("mkdir", path="a", parents=True))
        == [None] * 2
    )
    assert errors(fs, call("cd", path="a/b"), call("rm", path="/a", recursive=True)) == [None, "busy"]


def test_reading():
    fs = FileSystem({"/a/t.txt": "one x\ntwo\nthree x\n", "/a/e": "", "/b": None}, "/a")
    assert execute(fs, call("head", path="t.txt", lines=2)) == "one x\ntwo\n"
    assert execute(fs, call("wc", path="t.txt")) == "3 5 18 t.txt"
    assert execute(fs, call("grep", pattern="x", path="t.txt")) == "one x\nthree x"
    assert execute(fs, call("grep", pattern="two")) == "/a/t.txt:two"
    assert execute(fs, call("find", name="*.txt")) == "./t.txt"
    assert execute(fs, call("ls", path="..")) == "a/\nb/"
    assert execute(fs, call("pwd")) == "/a"
    assert execute(fs, call("cat", path="e")) == "(empty file)"
    assert execute(fs, call("tree", path="/")) == "/\n├── a/\n│   ├── e\n│   └── t.txt\n└── b/"
    execute(fs, call("write", path="e", content="hi"))
    execute(fs, call("append", path="e", content="you"))
    assert fs.text_of("e") == "hi\nyou\n"


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        (call("fly"), "unknown_tool", "fly"),
        (call("rm"), "missing_argument", "path"),
        (call("rm", path="a", force=True), "bad_argument", "force"),
        (call("rm", path=3), "bad_argument", "string"),
        (call("head", path="a", lines=0), "bad_argument", "at least 1"),
        (call("head", path="a", lines=True), "bad_argument", "integer"),
        (call("cat", path=""), "bad_name", "valid"),
        (call("cat", path="a/b"), "not_a_directory", "a/b"),
        ({"name": "rm", "arguments": "{oops"}, "bad_argument", "JSON"),
        ({"name": "rm", "arguments": [1]}, "bad_argument", "object"),
        ("rm a", "bad_call", "name"),
        (None, "bad_call", "name"),
    ],
)
def test_bad_calls_are_told_not_raised(bad, kind, words):
    fs = state("/a")
    outcome = run(fs, bad)
    assert outcome.error == kind and words in outcome.text and outcome.text.startswith("error: ")
    assert fs == state("/a")


def test_calls_in_every_shape():
    for shape in (
        {"name": "rm", "arguments": '{"path": "a"}'},
        {"type": "function", "function": {"name": "rm", "arguments": {"path": "a"}}},
    ):
        fs = state("/a")
        assert execute(fs, shape) == "ok" and fs == FileSystem()


def test_tool_entries_are_openai_functions():
    assert len({t["function"]["name"] for t in TOOLS}) == len(TOOLS) >= 12
    for entry in TOOLS:
        assert entry["type"] == "function" and entry["function"]["description"]
        schema = entry["function"]["parameters"]
        assert (
            set(schema["required"]) <= set(schema["properties"]) and schema["additionalProperties"] is False
        )
    json.dumps(TOOLS)


_NAMES = st.sampled_from(
    ["a", "b", "c", "a/b", "a/b/c", "..", ".", "/", "~", "b/../a", "a/", "//a", "x.txt", ""]
)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | _NAMES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def _calls(draw):
    schema = draw(st.sampled_from(TOOLS))["function"]
    keys = schema["parameters"]["properties"]
    values = {k: draw(st.booleans() if v["type"] == "boolean" else _NAMES | _ANY) for k, v in keys.items()}
    return {"name": schema["name"], "arguments": {k: v for k, v in values.items() if draw(st.integers(0, 9))}}


@settings(max_examples=40, deadline=None)
@given(st.lists(_calls() | _ANY, max_size=12))
def test_no_call_raises_or_breaks_the_tree(calls):
    fs = state("/a/b/", "/b", "/c/x.txt")
    for each in calls:
        before = fs.copy()
        outcome = run(fs, each)
        assert list(problems(fs)) == []
        if outcome.error is not None:
            assert fs == before, "a refused call must change nothing"
        render_state(fs), fs.render()


def test_building_in_a_file_is_refused():
    with pytest.raises(PathError):
        FileSystem({"/a": None}, cwd="/b")
