"""Second steps that say "it": move it there, go into it, delete the original. And one step of any kind.

`LINKS` says which of them may follow which intent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinygpt.data.world.file_ops.file_system import joined, name_of, parent_of
from tinygpt.data.world.file_ops.intents import BUILD, Built, call
from tinygpt.data.world.file_ops.scene import Ref, Scene

LINKS: dict[str, tuple[str, ...]] = {
    "mkdir": ("cd_it", "touch_it", "mkdir_it", "move_into_it", "move_into_it", "copy_into_it"),
    "touch": ("write_it", "append_it"),
    "write_new": ("cat_it", "wc_it"),
    "overwrite": ("cat_it", "wc_it"),
    "append": ("cat_it", "wc_it"),
    "rename": ("move_it", "cat_it"),
    "copy_as": ("rm_original",),
    "cat": ("rm_it", "move_it", "rename_it"),
    "head": ("rm_it", "move_it", "rename_it"),
    "wc": ("rm_it", "move_it", "rename_it"),
    "cd_dir": ("ls_it",),
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing asked for: the intent, what fills its slots, and the calls that do it."""

    intent: str
    slots: dict[str, Any]
    calls: tuple[dict[str, Any], ...]


def _call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def _inside(s: Scene, it: Ref, name: str) -> Ref:
    return s._ref(joined(it.path, name), False, new=True)


def _cd_it(s: Scene, it: Ref) -> Built:
    calls = [call("cd", path=it.said)]
    s.enter(it.path)
    s.inside_new = True
    return {}, calls


def _touch_it(s: Scene, it: Ref) -> Built:
    new = _inside(s, it, s.namer.file())
    return {"n": name_of(new.path)}, [call("touch", path=new.said)]


def _mkdir_it(s: Scene, it: Ref) -> Built:
    new = _inside(s, it, s.namer.folder())
    return {"n": name_of(new.path)}, [call("mkdir", path=new.said)]


def _text_it(tool: str) -> Callable[[Scene, Ref], Built]:
    def make(s: Scene, it: Ref) -> Built:
        text = s.namer.sentence()
        return {"t": text}, [call(tool, path=it.said, content=text)]

    return make


def _into_it(tool: str) -> Callable[[Scene, Ref], Built]:
    def make(s: Scene, it: Ref) -> Built:
        f = s.old_file(nested=0.1)
        return {"f": f}, [call(tool, source=f.said, destination=it.said)]

    return make


def _move_it(s: Scene, it: Ref) -> Built:
    d = s.old_folder(nested=0)
    return {"d": d}, [call("mv", source=it.said, destination=d.said)]


def _rename_it(s: Scene, it: Ref) -> Built:
    name = f"{s.namer.file().rpartition('.')[0]}.{it.path.rpartition('.')[2]}"
    new = s._ref(joined(parent_of(it.path), name), False, new=True)
    return {"N": name}, [call("mv", source=it.said, destination=new.said)]


IT: dict[str, Callable[[Scene, Ref], Built]] = {
    "cd_it": _cd_it,
    "ls_it": lambda s, it: ({}, [call("ls")]),
    "touch_it": _touch_it,
    "mkdir_it": _mkdir_it,
    "write_it": _text_it("write"),
    "append_it": _text_it("append"),
    "move_into_it": _into_it("mv"),
    "copy_into_it": _into_it("cp"),
    "cat_it": lambda s, it: ({}, [call("cat", path=it.said)]),
    "wc_it": lambda s, it: ({}, [call("wc", path=it.said)]),
    "rm_it": lambda s, it: ({}, [call("rm", path=it.said)]),
    "rm_original": lambda s, it: ({}, [call("rm", path=it.said)]),
    "move_it": _move_it,
    "rename_it": _rename_it,
}


def build(intent: str, scene: Scene) -> Step:
    """Make one step in the scene."""
    scene_last, scene.last = scene.last, None
    if intent in IT:
        assert scene_last is not None
        slots, calls = IT[intent](scene, scene_last)
    else:
        slots, calls = BUILD[intent](scene)
    return Step(intent=intent, slots=slots, calls=tuple(calls))
