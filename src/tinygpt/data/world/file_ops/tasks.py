"""File tasks as people put them: a seeded generator, its held-out sets, the check that they are held out.

Three held-out sets, each new in its own way:
  names         phrasings known from training, names never seen (true of all three)
  phrases       templates, joints and polite wrappers never seen
  compositions  two or three steps that bring together a pair of tools never seen in one request
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data.world.file_ops.file_system import FileSystem
from tinygpt.data.world.file_ops.intents_it import build
from tinygpt.data.world.file_ops.interface import prompt, reply_of
from tinygpt.data.world.file_ops.names import Namer, stems_in
from tinygpt.data.world.file_ops.phrases import Template, pool, stable_hash
from tinygpt.data.world.file_ops.plan import UNCLEAR, needs_order, pairs_of, steps_for
from tinygpt.data.world.file_ops.scene import Scene
from tinygpt.data.world.file_ops.tools import run
from tinygpt.data.world.file_ops.wording import Voice, word_many, word_one, word_template

HELD_OUT_SETS = ("names", "phrases", "compositions")
REFUSE_SHARE, CLARIFY_SHARE = 0.08, 0.08
PLAIN_REFUSAL = "I can't do that here."


@dataclass(frozen=True, kw_only=True)
class Task:
    """One request, its state, what must come of it. The file systems are read-only: copy before running."""

    id: str
    split: str
    request: str
    initial: FileSystem
    gold: tuple[dict[str, Any], ...]  # {"name", "arguments"} in order; empty when the answer is a text
    expected: FileSystem
    kind: str  # "calls" | "refuse" | "clarify"
    text: str  # the answer in words for "refuse" and "clarify"
    candidates: tuple[str, ...]  # what a clarifying question must name
    templates: tuple[str, ...]  # ids of the phrases used
    tags: tuple[str, ...]  # tool:cat, steps:2, look_alike, nested, vague, it

    @property
    def tools(self) -> tuple[str, ...]:
        """The tools of the gold calls, sorted: the task's composition signature."""
        return tuple(sorted({call["name"] for call in self.gold}))


def make_task(seed: int, split: str, index: int, attempt: int = 0) -> Task:
    """Task `index` of a split: the same arguments give the same task, whatever else is generated."""
    rng = Random(f"{seed}:{split}:{index}:{attempt}")
    held_out_phrases, at = split == "phrases", rng.random()
    # The kind is drawn once; a draw that does not fit together is repeated within it, so shares stay as set.
    if split == "compositions" or at >= REFUSE_SHARE + CLARIFY_SHARE:
        n = rng.choices([1, 2, 3], [0.54, 0.33, 0.13] if split != "compositions" else [0, 0.72, 0.28])[0]
        make = lambda: _calls(rng, split, n, held_out_phrases)  # noqa: E731
    elif at < REFUSE_SHARE:
        make = lambda: _refuse(rng, split, held_out_phrases)  # noqa: E731
    else:
        make = lambda: _clarify(rng, split, held_out_phrases)  # noqa: E731
    while (parts := make()) is None:
        pass
    return Task(id=f"{split}-{seed}-{index:05d}", split=split, **parts)


def _scene(rng: Random, split: str) -> Scene:
    return Scene.start(rng, Namer(rng, held_out=split != "train"), need_parent=rng.random() < 0.3)


def _calls(rng: Random, split: str, n: int, held_out: bool) -> dict[str, Any] | None:
    scene, voice = _scene(rng, split), Voice.draw(rng)
    steps = steps_for(scene, n, new_pair=split == "compositions")
    if steps is None:
        return None
    worded = (
        word_one(steps[0], voice, held_out)
        if len(steps) == 1
        else word_many(steps, voice, held_out, ordered=needs_order(steps))
    )
    if worded is None:
        return None
    scene.furnish()
    gold = tuple(call for step in steps for call in step.calls)
    expected = scene.fs.copy()
    for call in gold:
        outcome = run(expected, call)
        assert outcome.error is None, (worded[0], call, outcome.text)
    tags = {*scene.tags, *(f"tool:{call['name']}" for call in gold), f"steps:{len(gold)}"}
    if any(step.intent.endswith(("_it", "_original")) for step in steps):
        tags.add("it")
    return _parts("calls", scene, worded, tags, gold=gold, expected=expected)


def _refuse(rng: Random, split: str, held_out: bool) -> dict[str, Any]:
    scene, voice = _scene(rng, split), Voice.draw(rng)
    template = rng.choice(pool("refuse", held_out))
    f, d = scene.old_file(vague=False), scene.old_folder(vague=False, nested=0)
    worded = word_template(template, {"f": f, "d": d, "w": f.said.rpartition("/")[2]}, voice, held_out)
    scene.furnish()
    return _parts("refuse", scene, worded, {"refuse"}, text=f"I can't {template.topic} here.")


def _clarify(rng: Random, split: str, held_out: bool) -> dict[str, Any] | None:
    scene, voice = _scene(rng, split), Voice.draw(rng)
    scene.ambiguous = True
    step = build(rng.choice(UNCLEAR), scene)
    worded = word_one(step, voice, held_out)
    if worded is None or scene.candidates == ():
        return None
    scene.furnish()
    *most, last = scene.candidates
    question = f"Which one: {', '.join(most)} or {last}?"
    return _parts("clarify", scene, worded, {"clarify"}, text=question, candidates=scene.candidates)


def _parts(
    kind: str, scene: Scene, worded: tuple[str, list[Template]], tags: set[str], **more: Any
) -> dict[str, Any]:
    request, templates = worded
    return {
        "kind": kind,
        "request": request,
        "initial": scene.fs,
        "expected": scene.fs,
        "gold": (),
        "text": "",
        "candidates": (),
        "templates": tuple(dict.fromkeys(t.id for t in templates)),
        "tags": tuple(sorted(tags)),
        **more,
    }


def to_messages(task: Task) -> list[dict[str, Any]]:
    """The task as a conversation to learn from: system, user, assistant.

    One refusal in three names no ability. A model that is not sure what it is asked for then says just that,
    instead of naming whichever ability comes to mind.
    """
    plain = task.kind == "refuse" and stable_hash(task.id) % 3 == 0
    return [*prompt(task.request, task.initial), reply_of(task.gold, PLAIN_REFUSAL if plain else task.text)]


# --- splits -------------------------------------------------------------------------------------------------


def held_out(seed: int, n: int) -> dict[str, list[Task]]:
    """The three held-out sets of `n` tasks each; they depend on the seed alone, not on any training set.

    Requests without a name in them ("where am I?") read the same everywhere, so they occur in training only,
    except in `phrases`, whose words are new.
    """
    made: dict[str, list[Task]] = {}
    seen: set[str] = set()
    for split in HELD_OUT_SETS:
        made[split] = []
        for i in range(n):
            attempt = 0
            while (task := make_task(seed, split, i, attempt)).request in seen or not (
                split == "phrases" or _names_something(task)
            ):
                attempt += 1
            seen.add(task.request)
            made[split].append(task)
    return made


def splits(seed: int, n_train: int, n_held_out: int) -> dict[str, list[Task]]:
    """`train` and the held-out sets of `n_held_out` tasks each, checked to be disjoint."""
    made = held_out(seed, n_held_out)
    kept_apart = {t.request for tasks in made.values() for t in tasks}
    train = []
    for i in range(n_train):
        attempt = 0
        while (task := make_task(seed, "train", i, attempt)).request in kept_apart:
            attempt += 1
        train.append(task)
    for tasks in made.values():
        check_disjoint(train, tasks)
    return {"train": train, **made}


def _names_something(task: Task) -> bool:
    return any(stem in task.request for stem in stems_of(task))


def stems_of(task: Task) -> set[str]:
    """Every name stem in a task: of its state before and after, and of the names in its calls."""
    names = {part for fs in (task.initial, task.expected) for path in fs.nodes for part in path.split("/")}
    for call in task.gold:
        values = [call["arguments"].get(key, "") for key in ("path", "source", "destination", "name")]
        names.update(part for value in values for part in value.split("/"))
    return {stem for name in names for stem in stems_in(name)}


def check_disjoint(train: Iterable[Task], held_out: Iterable[Task]) -> None:
    """Refuse held-out tasks that share with training what must be new; DataError lists what they share."""
    train, held_out = list(train), list(held_out)
    phrases = [t for t in held_out if t.split == "phrases"]
    compositions = [t for t in held_out if t.split == "compositions"]
    shared = {
        "requests": {t.request for t in train} & {t.request for t in held_out},
        "name stems": _all(stems_of(t) for t in train) & _all(stems_of(t) for t in held_out),
        "templates": _all(t.templates for t in train) & _all(t.templates for t in phrases),
        "tool combinations": {t.tools for t in train} & {t.tools for t in compositions},
    }
    known = _all(pairs_of(t.tools) for t in train)
    shared["tasks without a new tool pair"] = {t.id for t in compositions if pairs_of(t.tools) <= known}
    found = [
        f"{len(what)} {name}: {', '.join(map(repr, sorted(what)[:3]))}"
        for name, what in shared.items()
        if what
    ]
    if found:
        raise DataError(
            "training and held-out tasks overlap in " + "; ".join(found),
            hint="make both with splits(seed, n_train, n_held_out), from one seed",
        )


def _all(sets: Iterable[Iterable[Any]]) -> set[Any]:
    return {item for each in sets for item in each}
