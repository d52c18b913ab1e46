"""Whether a reply does what a task asks: its calls run on a copy of the state, the outcome is compared.

Any way that leads to the right tree is right. What must be *shown* counts as shown when a call learns the
same thing, however it was asked. Looking around more than needed is fine; writing more, or a call that fails,
is not. A refusal is a short sentence that says it cannot, and what: an ability of the task's own refusal, a
word of the request, or plainly "that".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tinygpt.data.world.file_ops.file_system import FileSystem
from tinygpt.data.world.file_ops.tasks import Task
from tinygpt.data.world.file_ops.tools import READ_ONLY, read_call, run

MAX_CALLS = 20
MAX_REFUSAL_WORDS = 25
_CANNOT = re.compile(
    r"\b(can't|cannot|can not|could not|couldn't|unable|not able|not possible|isn't possible|impossible"
    r"|no tools?|no way|(don't|do not) (have|know how)|not supported|outside)\b"
)
# A refusal about these names no ability, but says that the request as a whole is out of reach.
_GENERIC = {"that", "this", "tool", "tools", "help"}
_EMPTY = frozenset(
    re.findall(
        r"\S+",
        """the and for from with into our your his her its are was were what who when how why which here there
        please could would should can can't cannot not able unable don't have has had get got you any some""",
    )
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Right or wrong, and one line that says why."""

    correct: bool
    why: str


def check(task: Task, reply: Any) -> Verdict:
    """Judge a reply: an assistant message, a list of messages or of calls. Never raises on model output."""
    calls, text = _read(reply)
    wrong = _answer_problem(task, calls, text) if task.kind != "calls" else _calls_problem(task, calls)
    return Verdict(correct=wrong is None, why=wrong or "ok")


def _read(reply: Any) -> tuple[list[Any], str]:
    """The calls of a reply in order, and its words."""
    if isinstance(reply, str):
        return [], reply
    items = [reply] if isinstance(reply, Mapping) else list(reply) if isinstance(reply, Iterable) else []
    calls: list[Any] = []
    words: list[str] = []
    for item in items:
        if isinstance(item, Mapping) and "role" in item:
            if item["role"] != "assistant":
                continue
            made = item.get("tool_calls") or []
            calls += made if isinstance(made, list) else [made]
            if isinstance(item.get("content"), str):
                words.append(item["content"])
        else:
            calls.append(item)
    return calls, " ".join(words).strip()


def _answer_problem(task: Task, calls: list[Any], text: str) -> str | None:
    """What is wrong with a reply where words are the right answer."""
    if calls:
        return f"called {read_call(calls[0])[0] or 'something'} where it should {task.kind}"
    if not text:
        return "said nothing"
    question = text.endswith("?")
    if "<tool_call" in text:
        return f"wrote a broken call where it should {task.kind}"
    if task.kind == "refuse":
        return "asked back where it should refuse" if question else _refusal_problem(task, text)
    if not question:
        return "did not ask back"
    named = [c for c in task.candidates if _names(text, c)]
    if len(named) < 2:
        return f"the question names {len(named)} of {', '.join(task.candidates)}"
    return None


def _refusal_problem(task: Task, text: str) -> str | None:
    """What keeps a text from being a refusal of this task's request."""
    said = text.lower().replace("\u2019", "'")
    words = said.split()
    if not re.fullmatch(r"[\w\s.,;:?!'\"()/~-]+", said) or 2 * len(set(words)) <= len(words):
        return "is not a sentence"
    if len(words) > MAX_REFUSAL_WORDS:
        return f"refused in {len(words)} words, at most {MAX_REFUSAL_WORDS} are needed"
    if not _CANNOT.search(said):
        return "did not say that it cannot"
    mine, known = (
        _content_words(_CANNOT.sub(" ", said)),
        _content_words(f"{task.text} {task.request}".lower()),
    )
    if _GENERIC & set(re.findall(r"[a-z]+", said)) or any(_akin(a, b) for a in mine for b in known):
        return None
    return "refused something that was not asked"


def _content_words(text: str) -> set[str]:
    """The words that carry meaning; paths are none, or any refusal that repeats a name would do."""
    return set(re.findall(r"(?<![\w./'-])[a-z][a-z']{2,}(?![\w/'-]|\.\w)", text)) - _EMPTY


def _akin(one: str, other: str) -> bool:
    """Whether two words are forms of one: "emails" and "emailing" of "email"."""
    short, long = sorted((one, other), key=len)
    return one == other or (len(short) >= 4 and long.startswith(short[: max(4, len(short) - 2)]))


def _names(text: str, candidate: str) -> bool:
    """Whether a text holds a path as a word of its own ("a.txt" is not in "aa.txt" nor in "b/a.txt")."""
    return re.search(rf"(?<![\w./-]){re.escape(candidate)}(?![\w-]|\.\w|/\w)", text) is not None


def _calls_problem(task: Task, calls: list[Any]) -> str | None:
    """What is wrong with a reply where calls are the right answer."""
    if not calls:
        return f"made no call; expected {', '.join(call['name'] for call in task.gold)}"
    if len(calls) > MAX_CALLS:
        return f"made {len(calls)} calls"
    fs, facts = task.initial.copy(), set()
    for i, call in enumerate(calls, start=1):
        name, before = read_call(call)[0], fs.copy()
        outcome = run(fs, call)
        if outcome.error is not None:
            return f"call {i}: {outcome.text.removeprefix('error: ')}"
        if outcome.fact is not None:
            facts.add(outcome.fact)
        if name not in READ_ONLY and fs == before:
            return f"call {i}: {name} changed nothing"
    wanted, goal = _gold_facts(task), task.expected
    if not fs.same_tree(goal):
        return _difference(fs, goal)
    if fs.cwd != goal.cwd and any(call["name"] == "cd" for call in task.gold):
        return f"ended in {fs.cwd}, expected {goal.cwd}"
    missing = [name for name, fact in wanted if fact not in facts]
    return f"did not show what {missing[0]} was to show" if missing else None


def _gold_facts(task: Task) -> list[tuple[str, Any]]:
    fs = task.initial.copy()
    outcomes = [(call["name"], run(fs, call).fact) for call in task.gold]
    return [(name, fact) for name, fact in outcomes if fact is not None]


def _difference(fs: FileSystem, goal: FileSystem) -> str:
    """The first path in which two trees differ, in words."""
    for path in sorted(fs.nodes.keys() | goal.nodes.keys()):
        if path not in fs.nodes:
            return f"{path} is missing"
        if path not in goal.nodes:
            return f"{path} should not be there"
        if fs.nodes[path] != goal.nodes[path]:
            return f"{path} holds the wrong text"
    return "the trees are equal"
