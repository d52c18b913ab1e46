"""Which steps a task has: how often each intent comes, and which tool pairs training never sees."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement
from random import Random

from tinygpt.data.world.file_ops.intents import BUILD
from tinygpt.data.world.file_ops.intents_it import IT, LINKS, Step, build
from tinygpt.data.world.file_ops.phrases import stable_hash
from tinygpt.data.world.file_ops.scene import Scene

# Rough frequency of the intents; the tools come out within a factor of three of each other.
WEIGHTS: dict[str, float] = {
    "pwd": 2.5,
    "ls_here": 2.0,
    "ls_dir": 2.5,
    "tree_here": 1.6,
    "tree_dir": 2.0,
    "cd_dir": 3.5,
    "cd_up": 1.4,
    "find_name": 3.0,
    "find_ext": 2.0,
    "cat": 4.0,
    "head": 4.0,
    "wc": 3.5,
    "grep_file": 3.0,
    "grep_here": 2.2,
    "mkdir": 4.0,
    "mkdir_nested": 1.4,
    "touch": 4.0,
    "write_new": 3.2,
    "overwrite": 2.4,
    "append": 4.2,
    "rename": 3.6,
    "move": 4.0,
    "move_out": 1.2,
    "copy_as": 2.4,
    "copy_into": 2.6,
    "copy_dir": 1.6,
    "rm": 4.0,
    "rm_dir": 2.0,
    "rmdir": 3.0,
}
_PLURAL = ("cat_two", "mkdir_two", "touch_two", "rm_two", "rm_two", "move_two", "move_two")
_NO_NAMES = frozenset({"pwd", "ls_here", "tree_here", "cd_up"})
_FIT_INSIDE_NEW = ("touch", "mkdir", "write_new", "touch", "mkdir")
UNCLEAR = (  # intents whose main file or directory can be ambiguous
    *(
        "cat",
        "head",
        "wc",
        "grep_file",
        "append",
        "overwrite",
        "rename",
        "move",
        "copy_as",
        "copy_into",
        "rm",
    ),
    *("cd_dir", "ls_dir", "tree_dir", "rm_dir", "copy_dir", "rm", "cat"),
)

TOOL_OF: dict[str, str] = {
    **{name: name.partition("_")[0] for name in (*WEIGHTS, *_PLURAL, *IT)},
    **dict.fromkeys(("rename", "move", "move_out", "move_two", "move_into_it", "move_it", "rename_it"), "mv"),
    **dict.fromkeys(("copy_as", "copy_into", "copy_dir", "copy_into_it"), "cp"),
    **dict.fromkeys(("write_new", "overwrite", "write_it"), "write"),
}
_TOOLS = sorted(set(TOOL_OF.values()))
_INTENTS, _CHANCES = list(WEIGHTS), list(WEIGHTS.values())

Pair = tuple[str, str]


def pairs_of(tools: list[str] | tuple[str, ...]) -> set[Pair]:
    """The unordered tool pairs a request brings together."""
    return {(min(a, b), max(a, b)) for a, b in combinations(tools, 2)}


def _held_out_pairs() -> frozenset[Pair]:
    # "make a folder and move it there" has phrasings of its own, so pairs with such a link stay in training.
    linked = {tuple(sorted((TOOL_OF[a], TOOL_OF[b]))) for a, follow in LINKS.items() for b in follow}
    free = [p for p in combinations_with_replacement(_TOOLS, 2) if p not in linked and p[0] != p[1]]
    free.sort(key=lambda p: stable_hash("pair:" + "+".join(p)))
    return frozenset(free[: len(free) // 5])


HELD_OUT_PAIRS = _held_out_pairs()
_HELD_OUT = sorted(HELD_OUT_PAIRS)


def steps_for(scene: Scene, n: int, new_pair: bool) -> list[Step] | None:
    """`n` steps in a scene, or None when the draw does not fit together (the caller draws again).

    `new_pair`: the steps must bring together a held-out pair of tools; otherwise they must not.
    """
    rng = scene.rng
    steps: list[Step] = []
    wanted = _with_new_pair(rng, n) if new_pair else []
    if n == 2 and not new_pair and rng.random() < 0.15:
        return [build(rng.choice(_PLURAL), scene)]
    while len(steps) < n:
        intent = wanted[len(steps)] if new_pair else _next(rng, scene, steps)
        if not _fits(intent, scene, steps):
            return None
        steps.append(build(intent, scene))
    if bool(pairs_of([TOOL_OF[s.intent] for s in steps]) & HELD_OUT_PAIRS) != new_pair:
        return None
    return steps


def _next(rng: Random, scene: Scene, steps: list[Step]) -> str:
    follow = LINKS.get(steps[-1].intent) if steps else None
    if follow and scene.last is not None and scene.last.form == "exact" and rng.random() < 0.5:
        return rng.choice(follow)
    if scene.inside_new:
        return rng.choice(_FIT_INSIDE_NEW)
    return rng.choices(_INTENTS, _CHANCES)[0]


def _with_new_pair(rng: Random, n: int) -> list[str]:
    tools = list(rng.choice(_HELD_OUT))
    chosen = [rng.choices(*_intents_with(tool))[0] for tool in tools]
    chosen += rng.choices(_INTENTS, _CHANCES, k=n - 2)
    rng.shuffle(chosen)
    return chosen


def _intents_with(tool: str) -> tuple[list[str], list[float]]:
    names = [name for name in _INTENTS if TOOL_OF[name] == tool]
    return names, [WEIGHTS[name] for name in names]


def _fits(intent: str, scene: Scene, steps: list[Step]) -> bool:
    done = [s.intent for s in steps]
    if intent in IT:
        return True
    if intent == "cd_up" and (scene.here == "/" or scene.moved):
        return False
    if intent == "cd_dir" and scene.moved:
        return False  # "go to a and go to b" leaves open whether b is in a
    if scene.inside_new and intent not in _FIT_INSIDE_NEW:
        return False
    return not (
        intent in done and (intent in _NO_NAMES or intent in ("find_ext", "grep_here", "mkdir_nested"))
    )


def needs_order(steps: list[Step]) -> bool:
    """Whether a later step means something else when done first."""
    return any(TOOL_OF[s.intent] == "cd" for s in steps) or any(s.intent in IT for s in steps)


def intents() -> list[str]:
    """Every intent there is, the ones that say "it" included."""
    return [*BUILD, *IT]
