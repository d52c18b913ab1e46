"""A small in-memory file system: directories, text files and a current directory.

The whole tree is one dict from absolute path to text (None for a directory), so a copy costs microseconds and
two trees are equal exactly when they hold the same paths and the same texts, whatever calls led there. The
verbs behave like the commands of the same name; what they refuse, they refuse with a `PathError` of a fixed
kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

# What a path operation can refuse, and how it says so.
ERRORS = {
    "not_found": "no such file or directory",
    "not_a_directory": "not a directory",
    "is_a_directory": "is a directory",
    "exists": "already exists",
    "not_empty": "directory not empty",
    "into_itself": "cannot put a directory inside itself",
    "same_file": "source and destination are the same file",
    "busy": "cannot remove or move the current directory or one above it",
    "bad_name": "not a valid name",
}


class PathError(Exception):
    """A refused path operation: `kind` is a key of ERRORS, `path` is what the caller typed."""

    def __init__(self, kind: str, path: str) -> None:
        super().__init__(f"{path}: {ERRORS[kind]}")
        self.kind, self.path = kind, path


def parent_of(path: str) -> str:
    """The directory that holds an absolute path ("/" for "/a")."""
    return path.rpartition("/")[0] or "/"


def name_of(path: str) -> str:
    """The last part of an absolute path ("" for "/")."""
    return path.rpartition("/")[2]


def joined(directory: str, name: str) -> str:
    """An absolute directory and one name, as an absolute path."""
    return f"/{name}" if directory == "/" else f"{directory}/{name}"


class FileSystem:
    """A tree of directories and text files, plus the current directory. Mutable; `copy()` is cheap."""

    __slots__ = ("cwd", "nodes")

    def __init__(self, nodes: Mapping[str, str | None] | None = None, cwd: str = "/") -> None:
        self.nodes: dict[str, str | None] = {"/": None}
        for path, text in (nodes or {}).items():
            self.plant(path, text)
        self.cwd = cwd
        if not self.is_dir(cwd):
            raise PathError("not_a_directory", cwd)

    def copy(self) -> FileSystem:
        """An independent copy."""
        other = FileSystem.__new__(FileSystem)
        other.nodes, other.cwd = dict(self.nodes), self.cwd
        return other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileSystem) and self.nodes == other.nodes and self.cwd == other.cwd

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"FileSystem({dict(sorted(self.nodes.items()))!r}, cwd={self.cwd!r})"

    def same_tree(self, other: FileSystem) -> bool:
        """Equal files and directories; the current directory may differ."""
        return self.nodes == other.nodes

    def plant(self, path: str, text: str | None) -> None:
        """Put a file (text) or directory (None) at an absolute path, with parents. For building states."""
        here = parent_of(path)
        while here not in self.nodes:
            self.nodes[here] = None
            here = parent_of(here)
        self.nodes[path] = text

    # --- looking --------------------------------------------------------------------------------------------

    def resolve(self, path: str) -> str:
        """The absolute path of what was typed; `.`, `..`, `~` (the root) and `//` are worked out by text."""
        if not path or "\0" in path or "\n" in path:
            raise PathError("bad_name", repr(path))
        if path == "~" or path.startswith("~/"):
            path = "/" + path[1:]
        parts: list[str] = [] if path.startswith("/") else [p for p in self.cwd.split("/") if p]
        for part in path.split("/"):
            if part == "..":
                parts = parts[:-1]
            elif part not in ("", "."):
                if len(part) > 255:
                    raise PathError("bad_name", part[:20] + "...")
                parts.append(part)
        return "/" + "/".join(parts)

    def is_dir(self, path: str) -> bool:
        return path in self.nodes and self.nodes[path] is None

    def is_file(self, path: str) -> bool:
        return self.nodes.get(path) is not None

    def children(self, path: str) -> list[str]:
        """Names directly in a directory, sorted."""
        prefix = path if path == "/" else path + "/"
        n = len(prefix)
        return sorted(p[n:] for p in self.nodes if len(p) > n and p.startswith(prefix) and "/" not in p[n:])

    def below(self, path: str) -> list[str]:
        """Every absolute path under a directory, itself left out, sorted."""
        prefix = path if path == "/" else path + "/"
        return sorted(p for p in self.nodes if p.startswith(prefix) and p != path)

    def text_of(self, path: str) -> str:
        """The text of the file at a typed path."""
        text = self.nodes[self.existing(path)]
        if text is None:
            raise PathError("is_a_directory", path)
        return text

    def existing(self, path: str) -> str:
        """Resolve a typed path that must exist."""
        found = self.resolve(path)
        if found not in self.nodes:
            # `a.txt/b` is a different mistake from `nowhere/b`.
            kind = "not_a_directory" if any(self.is_file(p) for p in _ancestors(found)) else "not_found"
            raise PathError(kind, path)
        if path.endswith("/") and self.is_file(found):
            raise PathError("not_a_directory", path)
        return found

    def directory(self, path: str) -> str:
        """Resolve a typed path that must be a directory."""
        found = self.existing(path)
        if self.is_file(found):
            raise PathError("not_a_directory", path)
        return found

    def _creatable(self, path: str) -> str:
        """Resolve a typed path whose parent must be a directory."""
        found = self.resolve(path)
        parent = parent_of(found)
        if parent not in self.nodes:
            raise PathError("not_found", path)
        if self.is_file(parent):
            raise PathError("not_a_directory", path)
        return found

    # --- changing -------------------------------------------------------------------------------------------

    def change_directory(self, path: str) -> None:
        self.cwd = self.directory(path)

    def make_directory(self, path: str, parents: bool = False) -> None:
        """mkdir; with `parents`, mkdir -p: missing parents are made and an existing directory is fine."""
        found = self.resolve(path)
        if parents:
            for place in [*reversed(list(_ancestors(found))), found]:
                if self.is_file(place):
                    raise PathError("not_a_directory" if place != found else "exists", path)
            self.plant(found, None)
            return
        found = self._creatable(path)
        if found in self.nodes:
            raise PathError("exists", path)
        self.nodes[found] = None

    def touch(self, path: str) -> None:
        """An empty file; an existing file or directory is left alone."""
        found = self._creatable(path)
        if path.endswith("/") and not self.is_dir(found):
            raise PathError("not_a_directory", path)
        self.nodes.setdefault(found, "")

    def write(self, path: str, text: str, append: bool = False) -> None:
        """Put one text into a file, replacing or after what it holds; like echo, it ends the line."""
        found = self._creatable(path)
        if self.is_dir(found) or path.endswith("/"):
            raise PathError("is_a_directory", path)
        line = text if text.endswith("\n") else text + "\n"
        self.nodes[found] = (self.nodes.get(found) or "") + line if append else line

    def remove(self, path: str, recursive: bool = False) -> None:
        found = self.existing(path)
        if self.is_dir(found):
            if not recursive:
                raise PathError("is_a_directory", path)
            self._refuse_busy(found, path)
            for place in self.below(found):
                del self.nodes[place]
        del self.nodes[found]

    def remove_directory(self, path: str) -> None:
        found = self.directory(path)
        self._refuse_busy(found, path)
        if self.children(found):
            raise PathError("not_empty", path)
        del self.nodes[found]

    def move(self, source: str, destination: str) -> None:
        """mv: into an existing directory, onto a file, or to a new name."""
        src, dst = self._pair(source, destination)
        if self.is_dir(src):
            self._refuse_busy(src, source)
            if self.is_dir(dst) and self.children(dst):
                raise PathError("not_empty", destination)
        for place in [src, *self.below(src)] if self.is_dir(src) else [src]:
            self.nodes[dst + place[len(src) :]] = self.nodes.pop(place)

    def duplicate(self, source: str, destination: str, recursive: bool = False) -> None:
        """cp, with `recursive` cp -r: a directory copied onto one of the same name is merged into it."""
        found = self.existing(source)
        if self.is_dir(found) and not recursive:
            raise PathError("is_a_directory", source)
        src, dst = self._pair(source, destination)
        copied = {
            dst + p[len(src) :]: self.nodes[p] for p in [src, *(self.below(src) if self.is_dir(src) else [])]
        }
        for place, text in copied.items():
            if place in self.nodes and (self.nodes[place] is None) != (text is None):
                raise PathError("is_a_directory" if text is not None else "not_a_directory", destination)
        self.nodes.update(copied)

    def _pair(self, source: str, destination: str) -> tuple[str, str]:
        """Where mv and cp really read and write, after the rules they share."""
        src, dst = self.existing(source), self.resolve(destination)
        if self.is_dir(dst):
            if src == "/":
                raise PathError("into_itself", source)
            dst = joined(dst, name_of(src))
        else:
            dst = self._creatable(destination)
            if destination.endswith("/") and (self.is_file(src) or self.is_file(dst)):
                raise PathError("not_a_directory", destination)
        if self.is_dir(src) and (dst == src or dst.startswith(src + "/") or src == "/"):
            raise PathError("into_itself", destination)
        if src == dst:
            raise PathError("same_file", source)
        if dst in self.nodes and self.is_dir(src) != self.is_dir(dst):
            raise PathError("not_a_directory" if self.is_dir(src) else "is_a_directory", destination)
        if src.startswith(dst + "/"):  # cp -r a/b/a .  would replace a by a part of itself
            raise PathError("not_empty", destination)
        return src, dst

    def _refuse_busy(self, found: str, typed: str) -> None:
        if found == "/" or self.cwd == found or self.cwd.startswith(found + "/"):
            raise PathError("busy", typed)

    # --- showing --------------------------------------------------------------------------------------------

    def render(self, path: str = "/") -> str:
        """The tree as `tree` draws it, directories marked with a slash."""
        lines = [path]

        def draw(directory: str, indent: str) -> None:
            names = self.children(directory)
            for i, name in enumerate(names):
                last, full = i == len(names) - 1, joined(directory, name)
                slash = "/" if self.is_dir(full) else ""
                lines.append(f"{indent}{'└── ' if last else '├── '}{name}{slash}")
                if self.is_dir(full):
                    draw(full, indent + ("    " if last else "│   "))

        if self.is_dir(path):
            draw(path, "")
        return "\n".join(lines)


def _ancestors(path: str) -> Iterator[str]:
    while path != "/":
        path = parent_of(path)
        yield path
