"""What can be asked for: each intent plants what it needs in a scene and gives the calls that serve it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygpt.data.world.file_ops.file_system import joined, parent_of
from tinygpt.data.world.file_ops.scene import Ref, Scene


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    """A call as {"name", "arguments"}."""
    return {"name": name, "arguments": arguments}


Built = tuple[dict[str, Any], list[dict[str, Any]]]  # what fills the slots, the calls
BUILD: dict[str, Callable[[Scene], Built]] = {}


def _intent(name: str) -> Callable[[Callable[[Scene], Built]], Callable[[Scene], Built]]:
    def keep(build: Callable[[Scene], Built]) -> Callable[[Scene], Built]:
        BUILD[name] = build
        return build

    return keep


# --- looking ------------------------------------------------------------------------------------------------

BUILD["pwd"] = lambda s: ({}, [call("pwd")])
BUILD["ls_here"] = lambda s: ({}, [call("ls")])
BUILD["tree_here"] = lambda s: ({}, [call("tree")])


@_intent("ls_dir")
def _ls_dir(s: Scene) -> Built:
    d = s.old_folder(empty=None if s.rng.random() < 0.3 else False)
    return {"d": d}, [call("ls", path=d.said)]


@_intent("tree_dir")
def _tree_dir(s: Scene) -> Built:
    d = s.old_folder(empty=False)
    return {"d": d}, [call("tree", path=d.said)]


@_intent("cd_dir")
def _cd_dir(s: Scene) -> Built:
    d = s.old_folder()
    calls = [call("cd", path=d.said)]
    s.enter(d.path)
    s.last = d
    return {"d": d}, calls


@_intent("cd_up")
def _cd_up(s: Scene) -> Built:
    s.enter(parent_of(s.here))
    return {}, [call("cd", path="..")]


@_intent("find_name")
def _find_name(s: Scene) -> Built:
    name, place = s.namer.file(text=False), s.plain_folder()
    if s.rng.random() < 0.6:  # deeper than the listing shows: that is what find is for
        place = joined(place, s.namer.folder())
    s.fs.plant(joined(place, name), s.text())
    return {"w": name}, [call("find", name=name)]


@_intent("find_ext")
def _find_ext(s: Scene) -> Built:
    extension = s.namer.extension()
    for place in [s.here, s.plain_folder()][: s.rng.choice([1, 2, 2])]:
        s.fs.plant(joined(place, f"{s.namer.stem()}.{extension}"), s.text())
    return {"x": extension}, [call("find", name=f"*.{extension}")]


# --- reading ------------------------------------------------------------------------------------------------


@_intent("cat")
def _cat(s: Scene) -> Built:
    s.last = f = s.old_file()
    return {"f": f}, [call("cat", path=f.said)]


@_intent("cat_two")
def _cat_two(s: Scene) -> Built:
    f, g = s.old_file(nested=0, vague=False), s.old_file(nested=0, vague=False)
    return {"f": f, "g": g}, [call("cat", path=f.said), call("cat", path=g.said)]


@_intent("head")
def _head(s: Scene) -> Built:
    n, said = s.namer.number()
    s.last = f = s.old_file(lines=n + 2)  # longer than what is asked for, so the number matters
    return {"f": f, "k": said}, [call("head", path=f.said, lines=n)]


@_intent("wc")
def _wc(s: Scene) -> Built:
    s.last = f = s.old_file()
    return {"f": f}, [call("wc", path=f.said)]


@_intent("grep_file")
def _grep_file(s: Scene) -> Built:
    pattern, f = s.namer.pattern(), s.old_file(lines=2)
    for path in _same_words(s, f):
        s.fs.nodes[path] = f"{s.namer.sentence()} {pattern}\n{s.fs.nodes[path]}"
    return {"f": f, "p": pattern}, [call("grep", pattern=pattern, path=f.said)]


def _same_words(s: Scene, f: Ref) -> list[str]:
    return [joined(s.here, c) for c in s.candidates] or [f.path]


@_intent("grep_here")
def _grep_here(s: Scene) -> Built:
    pattern = s.namer.pattern()
    for place in [s.here, s.plain_folder()][: s.rng.choice([1, 2, 2])]:
        s.fs.plant(joined(place, s.namer.file()), f"{s.text(1)}{pattern} {s.namer.sentence()}\n")
    return {"p": pattern}, [call("grep", pattern=pattern)]


# --- making and writing -------------------------------------------------------------------------------------


@_intent("mkdir")
def _mkdir(s: Scene) -> Built:
    s.last = n = s.new_folder()
    return {"n": n}, [call("mkdir", path=n.said)]


@_intent("mkdir_two")
def _mkdir_two(s: Scene) -> Built:
    n, m = s.new_folder(place=0), s.new_folder(place=0)
    return {"n": n, "m": m}, [call("mkdir", path=n.said), call("mkdir", path=m.said)]


@_intent("mkdir_nested")
def _mkdir_nested(s: Scene) -> Built:
    path = "/".join(s.namer.folder() for _ in range(s.rng.choice([2, 2, 2, 3])))
    return {"N": path}, [call("mkdir", path=path, parents=True)]


@_intent("touch")
def _touch(s: Scene) -> Built:
    s.last = n = s.new_file()
    return {"n": n}, [call("touch", path=n.said)]


@_intent("touch_two")
def _touch_two(s: Scene) -> Built:
    n, m = s.new_file(place=0), s.new_file(place=0)
    return {"n": n, "m": m}, [call("touch", path=n.said), call("touch", path=m.said)]


@_intent("write_new")
def _write_new(s: Scene) -> Built:
    s.last = n = s.new_file(place=0.12)
    text = s.namer.sentence()
    return {"n": n, "t": text, "T": text}, [call("write", path=n.said, content=text)]


@_intent("overwrite")
def _overwrite(s: Scene) -> Built:
    s.last = f = _file_to_change(s)
    text = s.namer.sentence()
    return {"f": f, "t": text, "T": text}, [call("write", path=f.said, content=text)]


@_intent("append")
def _append(s: Scene) -> Built:
    s.last = f = _file_to_change(s)
    text = s.namer.sentence()
    return {"f": f, "t": text, "T": text}, [call("append", path=f.said, content=text)]


def _file_to_change(s: Scene) -> Ref:
    # A file elsewhere is named with its place: "add a line to x.txt" could as well mean a new x.txt here.
    f = s.old_file(nested=0.15)
    if f.form == "bare" and not s.candidates:
        f.form = "exact"
    return f


# --- moving, copying, deleting ------------------------------------------------------------------------------


@_intent("rename")
def _rename(s: Scene) -> Built:
    folder = not s.ambiguous and s.rng.random() < 0.25
    f = s.old_folder(nested=0) if folder else s.old_file(nested=0.12)
    name = s.namer.folder() if folder else f"{s.namer.file().rpartition('.')[0]}.{f.path.rpartition('.')[2]}"
    new = s._ref(joined(parent_of(f.path), name), folder, new=True)
    s.last = None if folder else new
    return {"f": f, "N": name}, [call("mv", source=f.said, destination=new.said)]


@_intent("move")
def _move(s: Scene) -> Built:
    f = s.old_folder() if not s.ambiguous and s.rng.random() < 0.15 else s.old_file(text=False)
    d = s.old_folder(nested=0, vague=f.form == "exact")
    return {"f": f, "d": d}, [call("mv", source=f.said, destination=d.said)]


@_intent("move_two")
def _move_two(s: Scene) -> Built:
    f, g = s.old_file(nested=0, vague=False, text=False), s.old_file(nested=0, vague=False, text=False)
    d = s.old_folder(nested=0)
    calls = [call("mv", source=f.said, destination=d.said), call("mv", source=g.said, destination=d.said)]
    return {"f": f, "g": g, "d": d}, calls


@_intent("move_out")
def _move_out(s: Scene) -> Built:
    d = s.old_folder(nested=0, empty=True, vague=False)
    name = s.namer.file(text=False)
    s.fs.plant(joined(d.path, name), s.text())
    s.taken.add(joined(s.here, name))
    return {"w": name, "d": d}, [call("mv", source=f"{d.said}/{name}", destination=".")]


@_intent("copy_as")
def _copy_as(s: Scene) -> Built:
    f = s.old_file(nested=0)
    # with the copy said to be here, a source elsewhere would leave open where "here" is
    new = s._ref(
        joined(s.here, f"{s.namer.file().rpartition('.')[0]}.{f.path.rpartition('.')[2]}"), False, new=True
    )
    s.last = f
    return {"f": f, "N": new.said}, [call("cp", source=f.said, destination=new.said)]


@_intent("copy_into")
def _copy_into(s: Scene) -> Built:
    folder = not s.ambiguous and s.rng.random() < 0.12
    f = s.old_folder(nested=0) if folder else s.old_file(text=False)
    d = s.old_folder(nested=0, vague=f.form == "exact")
    more = {"recursive": True} if folder else {}
    return {"f": f, "d": d}, [call("cp", source=f.said, destination=d.said, **more)]


@_intent("copy_dir")
def _copy_dir(s: Scene) -> Built:
    d = s.old_folder(empty=False, nested=0)
    new = s._ref(joined(s.here, s.namer.folder()), True, new=True)
    return {"d": d, "N": new.said}, [call("cp", source=d.said, destination=new.said, recursive=True)]


@_intent("rm")
def _rm(s: Scene) -> Built:
    f = s.old_file(text=False)
    return {"f": f}, [call("rm", path=f.said)]


@_intent("rm_two")
def _rm_two(s: Scene) -> Built:
    f, g = s.old_file(nested=0, vague=False, text=False), s.old_file(nested=0, vague=False, text=False)
    return {"f": f, "g": g}, [call("rm", path=f.said), call("rm", path=g.said)]


@_intent("rm_dir")
def _rm_dir(s: Scene) -> Built:
    d = s.old_folder(empty=False)
    return {"d": d, "D": d}, [call("rm", path=d.said, recursive=True)]


@_intent("rmdir")
def _rmdir(s: Scene) -> Built:
    d = s.old_folder(empty=True)
    return {"d": d, "D": d}, [call("rmdir", path=d.said)]
