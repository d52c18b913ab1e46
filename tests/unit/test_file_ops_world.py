"""The file-operations world: simulator, tools, generator, held-out sets, judge and baseline."""

import dataclasses
import hashlib
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.core.errors import DataError
from tinygpt.data.world.file_ops import (
    HELD_OUT_SETS,
    TOOLS,
    FileSystem,
    Task,
    check,
    check_disjoint,
    describe,
    execute,
    make_task,
    predict,
    render_state,
    splits,
    system_prompt,
    to_messages,
)
from tinygpt.data.world.file_ops.file_system import PathError
from tinygpt.data.world.file_ops.phrases import TEMPLATES, pool
from tinygpt.data.world.file_ops.plan import HELD_OUT_PAIRS, TOOL_OF, WEIGHTS, pairs_of
from tinygpt.data.world.file_ops.tools import READ_ONLY, run


@pytest.fixture(scope="module")
def made() -> dict[str, list[Task]]:
    return splits(0, n_train=2000, n_held_out=150)


def call(name: str, /, **arguments: object) -> dict:
    return {"name": name, "arguments": arguments}


def state(*paths: str, cwd: str = "/") -> FileSystem:
    """A file system from paths; a trailing slash makes a directory, a file holds its own path."""
    return FileSystem({p.rstrip("/"): None if p.endswith("/") else p + "\n" for p in paths}, cwd)


def errors(fs: FileSystem, *calls: dict) -> list[str | None]:
    return [run(fs, c).error for c in calls]


# --- the simulator ------------------------------------------------------------------------------------------


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


@settings(max_examples=120, deadline=None)
@given(st.lists(_calls() | _ANY, max_size=12))
def test_no_call_raises_or_breaks_the_tree(calls):
    fs = state("/a/b/", "/b", "/c/x.txt")
    for each in calls:
        before = fs.copy()
        outcome = run(fs, each)
        assert list(fs.problems()) == []
        if outcome.error is not None:
            assert fs == before, "a refused call must change nothing"
        render_state(fs), fs.render()


def test_building_in_a_file_is_refused():
    with pytest.raises(PathError):
        FileSystem({"/a": None}, cwd="/b")


# --- tasks --------------------------------------------------------------------------------------------------


def test_gold_reaches_the_expected_state_and_passes(made):
    for task in made["train"] + [t for name in HELD_OUT_SETS for t in made[name]]:
        fs = task.initial.copy()
        assert [run(fs, c).error for c in task.gold] == [None] * len(task.gold)
        assert fs == task.expected and not list(fs.problems())
        verdict = check(task, to_messages(task))
        assert verdict.correct, (task.request, verdict.why)


def test_perturbed_replies_fail(made):
    for task in made["train"][:400]:
        write = call("touch", path="zz_extra.txt")
        if task.kind != "calls":
            assert not check(task, [write]).correct
            assert not check(task, []).correct
            other = "Which one?" if task.kind == "refuse" else "I can't do that here."
            assert not check(task, {"role": "assistant", "content": other}).correct
            continue
        gold = list(task.gold)
        assert not check(task, [*gold, write]).correct, task.request  # extra write
        assert check(task, [call("ls"), *gold]).correct  # extra look
        assert not check(task, [*gold, call("cat", path="nowhere.txt")]).correct  # failing call
        assert not check(task, {"role": "assistant", "content": "Done."}).correct
        for i in range(len(gold)):
            assert not check(task, gold[:i] + gold[i + 1 :]).correct, (task.request, i)  # missing step
            for key, value in gold[i]["arguments"].items():
                if isinstance(value, str) and value not in ("..", "."):  # wrong name or text
                    bad = call(gold[i]["name"], **{**gold[i]["arguments"], key: value[:-1] + "qq"})
                    assert not check(task, gold[:i] + [bad] + gold[i + 1 :]).correct, (task.request, bad)


def test_another_way_to_the_same_end_is_right():
    task = next(
        t for t in (make_task(0, "train", i) for i in range(999)) if t.gold and t.gold[0]["name"] == "mv"
    )
    one = task.gold[0]["arguments"]
    assert task.initial.is_file(task.initial.existing(one["source"])) and len(task.gold) == 1
    copy_then_delete = [call("cp", **one), call("rm", path=one["source"])]
    assert check(task, copy_then_delete).correct
    absolute = {k: task.initial.cwd.rstrip("/") + "/" + v for k, v in one.items()}
    assert check(task, [call("mv", **absolute)]).correct


def test_clarify_must_name_two_candidates(made):
    task = next(t for t in made["train"] if t.kind == "clarify")
    one, two = task.candidates[:2]
    say = [f"Did you mean {one} or {two}?", f"{two}, or rather {one}?"]
    assert all(check(task, {"role": "assistant", "content": s}).correct for s in say)
    bad = [f"{one}?", f"{one} or x{two}?", f"It is {one} or {two}.", ""]
    assert not any(check(task, {"role": "assistant", "content": s}).correct for s in bad)


def test_check_survives_nonsense(made):
    for reply in (
        None,
        3,
        "",
        "hello?",
        [None],
        [[]],
        {"role": "assistant", "tool_calls": "x"},
        [{"role": "user"}],
    ):
        for kind in ("calls", "refuse", "clarify"):
            check(next(t for t in made["train"] if t.kind == kind), reply)


def test_generation_is_fixed_by_the_seed():
    digest = hashlib.sha256()
    for i in range(50):
        task = make_task(0, "train", i)
        digest.update(json.dumps([task.id, to_messages(task), list(task.candidates)]).encode())
    assert digest.hexdigest()[:16] == GOLDEN
    assert make_task(0, "train", 7) == make_task(0, "train", 7) != make_task(1, "train", 7)


GOLDEN = "to be recorded"


def test_splits_are_disjoint_and_a_planted_overlap_is_caught(made):
    train = made["train"]
    for name in HELD_OUT_SETS:
        check_disjoint(train, made[name])
        assert len({t.request for t in made[name]}) == len(made[name]) == 150

    def caught(split: str, planted: Task) -> str:
        with pytest.raises(DataError) as caught:
            check_disjoint(train, [*made[split], planted])
        return str(caught.value)

    two_steps = next(t for t in train if len(t.tools) == 2)
    assert "requests" in caught("names", dataclasses.replace(made["names"][0], request=train[0].request))
    assert "name stems" in caught("names", dataclasses.replace(made["names"][0], initial=train[0].initial))
    known = dataclasses.replace(made["phrases"][0], templates=train[0].templates)
    assert train[0].templates[0] in caught("phrases", known)
    repeated = dataclasses.replace(made["compositions"][0], gold=two_steps.gold)
    message = caught("compositions", repeated)
    assert "tool combinations" in message and repeated.id in message


def test_compositions_hold_a_pair_training_never_has(made):
    seen = {p for t in made["train"] for p in pairs_of(t.tools)}
    assert not seen & HELD_OUT_PAIRS
    for task in made["compositions"]:
        assert pairs_of(task.tools) & HELD_OUT_PAIRS and len(task.gold) >= 2


def test_every_intent_has_phrases_enough_on_both_sides():
    for intent in WEIGHTS:
        ids = {t.id for t in TEMPLATES if t.intent == intent}
        held_out = {t.id for t in TEMPLATES if t.intent == intent and t.held_out}
        assert len(ids) >= 25, intent
        assert 0.12 <= len(held_out) / len(ids) <= 0.3, intent
        assert len({t.style for t in TEMPLATES if t.id in held_out}) >= 3, intent
    for intent in TOOL_OF:
        assert pool(intent, True) and pool(intent, False)


def test_held_out_phrases_differ_in_words_not_only_in_punctuation():
    bare = {}
    for t in TEMPLATES:
        words = "".join(c for c in t.text.lower() if c.isalnum() or c in " {}").split()
        bare.setdefault((t.intent, *words), set()).add(t.held_out)
    assert all(len(sides) == 1 for key, sides in bare.items() if len(key) > 2 and key[0] in WEIGHTS)


def test_the_mix(made):
    facts = describe(made["train"])
    assert set(facts["tools"]) == {t["function"]["name"] for t in TOOLS}
    assert min(facts["tools"].values()) >= 40
    assert 0.05 <= facts["kinds"]["refuse"] / facts["n"] <= 0.11
    assert 0.05 <= facts["kinds"]["clarify"] / facts["n"] <= 0.11
    assert set(facts["steps"]) == {"1", "2", "3"}
    assert facts["request_chars"][0] <= 70 and facts["prompt_chars"][0] <= 160
    assert facts["stems"] > 8000  # names are drawn from a space, not from a list
    for name in ("look_alike", "nested", "vague", "it"):
        assert facts["tags"][name] >= 40


def test_requests_are_clean(made):
    for task in made["train"] + made["phrases"]:
        assert not set("{}\x01\x02~") & set(task.request.replace("~/", "")), task.request
        assert "  " not in task.request and task.request == task.request.strip()
        ending = task.request.removesuffix("cd ..")
        assert not ending.endswith(("..", ",.", "?.", ".?")), task.request


def test_messages_and_prompt():
    task = next(t for t in (make_task(0, "train", i) for i in range(99)) if len(t.gold) == 2)
    system, user, reply = to_messages(task)
    assert system == {"role": "system", "content": system_prompt()} and len(system_prompt()) < 40
    assert user["content"].startswith(task.initial.cwd + ":\n") and user["content"].endswith(task.request)
    assert [c["function"] for c in reply["tool_calls"]] == list(task.gold)
    assert {c["type"] for c in reply["tool_calls"]} == {"function"}


def test_state_listing():
    fs = state("/w/a.txt", "/w/d/b.txt", "/w/d/e/c.txt", "/w/empty/", cwd="/w")
    assert render_state(fs) == "/w:\na.txt\nd/b.txt\nd/e/\nempty/"
    assert render_state(fs, limit=2) == "/w:\na.txt\nd/b.txt\n+2 more"


# --- the baseline -------------------------------------------------------------------------------------------


def test_baseline_is_neither_a_straw_man_nor_perfect(made):
    for name in HELD_OUT_SETS:
        right = sum(check(t, predict(t.request, t.initial)).correct for t in made[name])
        assert 0.45 <= right / len(made[name]) <= 0.9, name


_SNIPPETS = ["delete", "a", "the file", "then", "and", "cd", "..", "mv", '"b"', "1)", ":", "'c", "/", "b/c"]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(_SNIPPETS)).map(" ".join))
def test_baseline_never_raises(request):
    (message,) = predict(request, state("/a", "/b/c", "/d/c"))
    assert message["role"] == "assistant"


def test_baseline_on_plain_requests():
    fs = state("/notes.txt", "/old/", "/docs/a.md", "/x/r.csv", "/y/r.csv")

    def said(request: str) -> list:
        (message,) = predict(request, fs)
        return [c["function"] for c in message.get("tool_calls", [])] or message["content"]

    assert said("delete notes.txt") == [call("rm", path="notes.txt")]
    assert said("please move notes.txt to docs") == [call("mv", source="notes.txt", destination="docs")]
    both = [call("mkdir", path="plans"), call("cat", path="docs/a.md")]
    assert said("create a folder called plans and then show me a.md") == both
    assert said("delete r.csv").endswith("?")
    assert said("what's the weather?").startswith("I can't")


def test_generation_is_fast():
    start = time.perf_counter()
    for i in range(500):
        make_task(3, "train", i)
    assert time.perf_counter() - start < 2.5  # 20,000 in well under a minute even on a busy machine


def test_read_only_tools_change_nothing(made):
    for task in made["train"][:300]:
        fs = task.initial.copy()
        for each in task.gold:
            before = fs.copy()
            run(fs, each)
            assert (fs == before) == (each["name"] in READ_ONLY), each
