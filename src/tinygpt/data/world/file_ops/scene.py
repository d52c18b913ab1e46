"""A scene under construction: the state a request needs, built name by name while its steps are chosen.

A builder asks for "an old file" or "a new folder" and gets a `Ref`; the scene plants what must exist
beforehand, keeps what must not exist free, and follows the steps (`cd` moves `here`). Afterwards it is filled
up with other files, among them ones whose names resemble those that matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from tinygpt.data.world.file_ops.file_system import FileSystem, joined, name_of, parent_of
from tinygpt.data.world.file_ops.names import AFFIXES, Namer


@dataclass(kw_only=True)
class Ref:
    """A file or directory as it is spoken of.

    By its exact name ("exact"), by a part of it ("stem", "stem_ext"), or by the name of something in a
    subdirectory, without saying so ("bare").
    """

    path: str  # absolute
    said: str  # relative to where the user is at that step; what a call uses
    folder: bool
    form: str = "exact"
    new: bool = False
    words: str = ""  # the part that is said when form is a stem
    extension: str = ""


@dataclass(kw_only=True)
class Scene:
    """The initial state, where the user is at this step, and what the request is about."""

    rng: Random
    namer: Namer
    fs: FileSystem
    here: str
    moved: bool = False  # after a cd the prompt's listing no longer shows what is here
    inside_new: bool = False  # in a directory made by this very request: nothing can be there yet
    ambiguous: bool = False  # the next old file or directory shall be ambiguous
    candidates: tuple[str, ...] = ()
    last: Ref | None = None  # what "it" would mean in the next step
    taken: set[str] = field(default_factory=set)
    refs: list[Ref] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    lines: set[str] = field(default_factory=set)

    @classmethod
    def start(cls, rng: Random, namer: Namer, need_parent: bool) -> Scene:
        """An empty current directory: the root, or one or two levels down."""
        depth = rng.choices([0, 1, 2], [0.45, 0.45, 0.1])[0] or int(need_parent)
        cwd = "".join("/" + namer.folder() for _ in range(depth)) or "/"
        return cls(rng=rng, namer=namer, fs=FileSystem({cwd: None}, cwd=cwd), here=cwd)

    # --- what builders ask for ------------------------------------------------------------------------------

    def relative(self, path: str) -> str:
        """An absolute path as said from here."""
        prefix = self.here.rstrip("/") + "/"
        return path[len(prefix) :] if path.startswith(prefix) else path

    def _ref(self, path: str, folder: bool, **more: object) -> Ref:
        ref = Ref(path=path, said=self.relative(path), folder=folder, **more)  # type: ignore[arg-type]
        self.taken.add(path)
        self.refs.append(ref)
        return ref

    def text(self, lines: int | None = None) -> str:
        """A file's text: lines that no other file has, so what was read tells which file was read."""
        n = lines or self.rng.choice([1, 1, 2, 3])
        drawn: list[str] = []
        while len(drawn) < n:
            line = self.namer.sentence()
            if line not in self.lines:
                self.lines.add(line)
                drawn.append(line + "\n")
        return "".join(drawn)

    def old_file(
        self, lines: int | None = None, nested: float = 0.22, vague: bool = True, text: bool = True
    ) -> Ref:
        """A file that exists; sometimes in a subdirectory, sometimes spoken of by a part of its name."""
        if self.ambiguous:
            return self._ambiguous_file(lines, text)
        rng, at = self.rng, self.rng.random()
        if not self.moved and at < nested:
            path = joined(self.plain_folder(), self.namer.file(text))
            ref = self._ref(path, False, form="bare" if vague and rng.random() < 0.25 else "exact")
            self.tags.add("nested")
        elif not self.moved and vague and at > 0.86:
            ref = self._vague_file()
        else:
            ref = self._ref(joined(self.here, self.namer.file(text)), False)
        self.fs.plant(ref.path, self.text(lines))
        return ref

    def _vague_file(self) -> Ref:
        """A file spoken of as "the lumo file": nothing else here fits those words."""
        stem, extension = self.namer.stem(), self.namer.extension()
        self.tags.add("vague")
        at = self.rng.random()
        if at < 0.3:
            other = self.namer.extension()
            if other != extension:
                self.fs.plant(joined(self.here, f"{stem}.{other}"), self.text())
                path = joined(self.here, f"{stem}.{extension}")
                return self._ref(path, False, form="stem_ext", words=stem, extension=extension)
        if at < 0.6:
            second = self.namer.stem(short=True)
            path = joined(self.here, f"{stem}{self.rng.choice('_-')}{second}.{extension}")
            return self._ref(path, False, form="stem", words=f"{stem} {second}" if at < 0.45 else stem)
        return self._ref(joined(self.here, f"{stem}.{extension}"), False, form="stem", words=stem)

    def _ambiguous_file(self, lines: int | None, text: bool) -> Ref:
        """Two or three files that fit the words equally well."""
        self.ambiguous = False
        rng, n = self.rng, self.rng.choice([2, 2, 2, 2, 3])
        at = rng.random()
        if at < 0.36:
            name = self.namer.file(text)
            paths = [joined(joined(self.here, self.namer.folder()), name) for _ in range(n)]
            ref = self._ref(paths[0], False, form="bare")
        else:
            stem = self.namer.stem()
            if at < 0.7:
                extensions: set[str] = set()
                while len(extensions) < n:
                    extensions.add(self.namer.extension())
                paths = [joined(self.here, f"{stem}.{e}") for e in sorted(extensions)]
            else:
                extension, joint = self.namer.extension(), rng.choice("_-")
                paths = [
                    joined(self.here, f"{stem}{joint}{self.namer.stem(short=True)}.{extension}")
                    for _ in range(n)
                ]
            ref = self._ref(paths[0], False, form="stem", words=stem)
        for path in paths:
            self.fs.plant(path, self.text(lines))
            self.taken.add(path)
        self.candidates = tuple(self.relative(p) for p in sorted(paths))
        return ref

    def old_folder(self, empty: bool | None = None, nested: float = 0.1, vague: bool = True) -> Ref:
        """A directory that exists, empty, filled or whatever comes."""
        rng = self.rng
        if self.ambiguous or (not self.moved and vague and rng.random() < 0.06):
            return self._vague_folder(empty)
        parent = self.here
        if not self.moved and rng.random() < nested:
            parent = self.plain_folder()
            self.tags.add("nested")
        ref = self._ref(joined(parent, self.namer.folder()), True)
        self.fs.plant(ref.path, None)
        self._fill(ref.path, empty)
        return ref

    def _vague_folder(self, empty: bool | None) -> Ref:
        """A directory spoken of by the first of its two stems, ambiguous when the scene wants it so."""
        stem, joint = self.namer.stem(), self.rng.choice("_-")
        n = self.rng.choice([2, 2, 2, 3]) if self.ambiguous else 1
        paths = [joined(self.here, f"{stem}{joint}{self.namer.stem(short=True)}") for _ in range(n)]
        for path in paths:
            self.fs.plant(path, None)
            self._fill(path, empty)
            self.taken.add(path)
        if self.ambiguous:
            self.candidates = tuple(self.relative(p) for p in sorted(paths))
        else:
            self.tags.add("vague")
        self.ambiguous = False
        return self._ref(paths[0], True, form="stem", words=stem)

    def _fill(self, folder: str, empty: bool | None) -> None:
        if empty is False or (empty is None and self.rng.random() < 0.4):
            for _ in range(self.rng.choice([1, 1, 2])):
                self.fs.plant(joined(folder, self.namer.file()), self.text())

    def plain_folder(self) -> str:
        """The path of a directory here that is only a place: one already there, or a new one."""
        known = [p for p in self.places if parent_of(p) == self.here]
        if known and self.rng.random() < 0.3:
            return self.rng.choice(known)
        path = joined(self.here, self.namer.folder())
        self.fs.plant(path, None)
        self.places.append(path)  # no step removes or renames these
        return path

    def new_file(self, place: float = 0.2) -> Ref:
        """A file that does not exist yet, here or in a subdirectory."""
        return self._new(self.namer.file(), False, place)

    def new_folder(self, place: float = 0.2) -> Ref:
        """A directory that does not exist yet, here or in a subdirectory."""
        return self._new(self.namer.folder(), True, place)

    def _new(self, name: str, folder: bool, place: float) -> Ref:
        parent = self.here
        if not self.moved and self.rng.random() < place:
            parent = self.plain_folder()
            self.tags.add("nested")
        return self._ref(joined(parent, name), folder, new=True)

    def enter(self, path: str) -> None:
        """The user is now in another directory."""
        self.here, self.moved = path, True

    # --- filling up -----------------------------------------------------------------------------------------

    def visible(self) -> int:
        """How many entries the prompt's listing has."""
        n = 0
        for name in self.fs.children(self.fs.cwd):
            path = joined(self.fs.cwd, name)
            n += max(1, len(self.fs.children(path))) if self.fs.is_dir(path) else 1
        return n

    def furnish(self) -> None:
        """Add look-alikes of the names that matter and other files, up to a handful of entries."""
        rng, wanted = self.rng, self.rng.choice([2, 3, 3, 4, 4, 5, 5, 6, 7])
        for ref in self.refs:
            if (
                ref.form == "exact"
                and parent_of(ref.path) == self.fs.cwd
                and rng.random() < (0.15 if ref.new else 0.35)
            ):
                self._add_look_alike(ref)
        while self.visible() < wanted:
            at = rng.random()
            if at < 0.62:
                path, text = joined(self.fs.cwd, self.namer.file(text=False)), self.text(1)
            elif at < 0.82:
                path, text = joined(self.fs.cwd, self.namer.folder()), None
            else:
                folder = joined(self.fs.cwd, self.namer.folder())
                path, text = joined(folder, self.namer.file()), self.text(1)
            self.fs.plant(path, text)

    def _add_look_alike(self, ref: Ref) -> None:
        name, rng = name_of(ref.path), self.rng
        base, dot, extension = name.rpartition(".")
        text = None if ref.folder else self.text(1)
        if not dot:
            base = name
        tail = "" if ref.folder else f".{extension}"
        choice = rng.random()
        if choice < 0.35 and not ref.folder:
            other = f"{base}.{self.namer.extension()}"
        elif choice < 0.6:
            other = f"{base}{rng.choice(['', '_', '-'])}{rng.randrange(2, 10)}{tail}"
        elif choice < 0.85 or ref.folder or ref.new:
            other = f"{base}_{rng.choice(AFFIXES)}{tail}"
        else:  # the same name one level down
            other = f"{self.namer.folder()}/{name}"
        path = joined(parent_of(ref.path), other)
        if path not in self.taken and path not in self.fs.nodes:
            self.fs.plant(path, text)
            self.tags.add("look_alike")
