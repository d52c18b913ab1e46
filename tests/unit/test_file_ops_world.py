"""The file-operations world: generator, held-out sets, judge and baseline."""

import dataclasses
import hashlib
import json
from collections import Counter
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.core.errors import DataError
from tinygpt.data.world.file_ops import (
    HELD_OUT_SETS,
    TOOLS,
    Task,
    check,
    check_disjoint,
    held_out,
    make_task,
    predict,
    render_state,
    splits,
    system_prompt,
    to_messages,
)
from tinygpt.data.world.file_ops.phrases import pool, templates
from tinygpt.data.world.file_ops.plan import HELD_OUT_PAIRS, TOOL_OF, WEIGHTS, pairs_of
from tinygpt.data.world.file_ops.tasks import stems_of
from tinygpt.data.world.file_ops.tools import READ_ONLY, run
from trees import problems, state


@pytest.fixture(scope="module")
def made() -> dict[str, list[Task]]:
    return splits(0, n_train=600, n_held_out=150)


def call(name: str, /, **arguments: object) -> dict:
    return {"name": name, "arguments": arguments}


# --- tasks --------------------------------------------------------------------------------------------------


def test_gold_reaches_the_expected_state_and_passes(made):
    for task in made["train"] + [t for name in HELD_OUT_SETS for t in made[name]]:
        fs = task.initial.copy()
        assert [run(fs, c).error for c in task.gold] == [None] * len(task.gold)
        assert fs == task.expected and not list(problems(fs))
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
            if gold[i]["name"] != "touch":  # a write that follows would create the file anyway
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


def _refused(task: Task, text: str) -> bool:
    return check(task, {"role": "assistant", "content": text}).correct


def test_a_refusal_says_that_it_cannot_and_what(made):
    task = next(t for t in made["train"] if t.kind == "refuse" and t.text == "I can't send email here.")
    for text in (
        "I can't send email here.",
        "Sorry, I cannot email anything.",
        "I\u2019m unable to send e-mails or email.",
        "I have no tool for that.",
        "Sending mail? No: emailing is outside what I can do.",
    ):
        assert _refused(task, text), text
    for text in (
        "ofofofof",
        '<tool_call>{"name": "rm"',
        'I can\'t do that. <tool_call>{"name": "rm"',
        "Done.",
        "I have sent the email.",
        "I can't can't can't can't can't email email email email.",
        "I can't ofofofof.",
        "I can't check the weather here.",
        "I can't email. " + " ".join(f"word{i}" for i in range(30)),
        f"I can't find {task.initial.cwd}.",
    ):
        assert not _refused(task, text), text


def test_every_refusal_of_the_world_passes_and_no_other_topic_does(made):
    refusals = [t for name in made for t in made[name] if t.kind == "refuse"]
    texts = {t.text for t in refusals}
    assert len(texts) >= 20
    for task in refusals:
        assert _refused(task, task.text) and _refused(task, "I can't do that here.")
    mixed = [_refused(task, text) for task in refusals for text in texts - {task.text}]
    assert sum(mixed) / len(mixed) < 0.1  # "files" and "make" are words of several topics


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


def _digest() -> str:
    tasks = [make_task(0, "train", i) for i in range(50)]
    rows = [[t.id, to_messages(t), list(t.candidates), list(t.templates), list(t.tags)] for t in tasks]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def test_generation_is_fixed_by_the_seed():
    assert _digest() == "2bc57a69a3ea21c2"
    assert make_task(0, "train", 7) == make_task(0, "train", 7) != make_task(1, "train", 7)


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


def test_held_out_sets_do_not_depend_on_the_training_set(made):
    again = held_out(0, 40)
    assert all(again[name] == made[name][:40] for name in HELD_OUT_SETS)


def test_compositions_hold_a_pair_training_never_has(made):
    seen = {p for t in made["train"] for p in pairs_of(t.tools)}
    assert not seen & HELD_OUT_PAIRS
    for task in made["compositions"]:
        assert pairs_of(task.tools) & HELD_OUT_PAIRS and len(task.gold) >= 2


def test_every_intent_has_phrases_enough_on_both_sides():
    for intent in WEIGHTS:
        ids = {t.id for t in templates() if t.intent == intent}
        held_out = {t.id for t in templates() if t.intent == intent and t.held_out}
        assert len(ids) >= 25, intent
        assert 0.12 <= len(held_out) / len(ids) <= 0.3, intent
        assert len({t.style for t in templates() if t.id in held_out}) >= 3, intent
    for intent in TOOL_OF:
        assert pool(intent, True) and pool(intent, False)


def test_held_out_phrases_differ_in_words_not_only_in_punctuation():
    bare = {}
    for t in templates():
        words = "".join(c for c in t.text.lower() if c.isalnum() or c in " {}").split()
        bare.setdefault((t.intent, *words), set()).add(t.held_out)
    assert all(len(sides) == 1 for key, sides in bare.items() if len(key) > 2 and key[0] in WEIGHTS)


def test_the_mix(made):
    tasks = made["train"]
    tags = Counter(tag for t in tasks for tag in t.tags)
    tools = {k[5:]: n for k, n in tags.items() if k.startswith("tool:")}
    assert set(tools) == {t["function"]["name"] for t in TOOLS}
    assert min(tools.values()) >= 12
    kinds = Counter(t.kind for t in tasks)
    assert 0.05 <= kinds["refuse"] / len(tasks) <= 0.11
    assert 0.05 <= kinds["clarify"] / len(tasks) <= 0.11
    assert {k for k in tags if k.startswith("steps:")} == {"steps:1", "steps:2", "steps:3"}
    assert median(len(t.request) for t in tasks) <= 70
    assert median(len(render_state(t.initial)) for t in tasks) <= 160
    # Names are drawn from a space, not from a list.
    assert len(set().union(*(stems_of(t) for t in tasks))) > 4 * len(tasks)
    for name in ("look_alike", "nested", "vague", "it"):
        assert tags[name] >= 12


def test_requests_are_clean(made):
    for task in made["train"] + made["phrases"]:
        assert not set("{}\x01\x02~") & set(task.request.replace("~/", "")), task.request
        assert "  " not in task.request and task.request == task.request.strip()
        ending = task.request.removesuffix("cd ..")
        assert not ending.endswith(("..", ",.", "?.", ".?")), task.request


def test_messages_and_prompt():
    task = next(t for t in (make_task(0, "train", i) for i in range(99)) if len(t.gold) == 2)
    system, user, reply = to_messages(task)
    assert system == {"role": "system", "content": render_state(task.initial)}
    assert user == {"role": "user", "content": task.request}
    assert system_prompt() == "/home:\nbudget.csv\nnotes.md\nold/\nphotos/beach.jpg\nphotos/city.jpg"
    assert [c["function"] for c in reply["tool_calls"]] == list(task.gold)
    assert {c["type"] for c in reply["tool_calls"]} == {"function"}


def test_state_listing():
    fs = state("/w/a.txt", "/w/d/b.txt", "/w/d/e/c.txt", "/w/empty/", cwd="/w")
    assert render_state(fs) == "/w:\na.txt\nd/b.txt\nd/e/\nempty/"
    assert render_state(fs, limit=2) == "/w:\na.txt\nd/b.txt\n+2 more"


# --- the baseline -------------------------------------------------------------------------------------------


@pytest.mark.wide
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


def test_read_only_tools_change_nothing(made):
    for task in made["train"][:300]:
        fs = task.initial.copy()
        for each in task.gold:
            before = fs.copy()
            run(fs, each)
            assert (fs == before) == (each["name"] in READ_ONLY), each
