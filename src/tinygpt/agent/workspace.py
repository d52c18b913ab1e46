"""The one folder that tools may touch, opened component by component so that no name leads out of it.

A path is relative and has no "..". Each component is opened below the one before it (openat) and never
through a link (O_NOFOLLOW), so what was checked is what is used: swapping a folder for a link between two
steps makes the call fail, it does not redirect it. Only regular files with one name are opened; a file that
has a second name (a hard link) may be somebody else's, and is refused both ways. A file is replaced by a
rename beside it, so that readers see the old text or the new.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import re
import stat
import unicodedata
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tinygpt.agent.tool import Refusal
from tinygpt.core.errors import ConfigError

LONGEST, DEEPEST = 1024, 64  # bytes of a path, and its components
# Names that are neither read nor written, wherever they lie: keys, and what a version control system runs.
HIDDEN = (
    ".env", ".env.*", ".envrc", ".netrc", "_netrc", ".npmrc", ".pypirc", ".pgpass", ".git-credentials",
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
    "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "credentials.json",
    ".git", ".hg", ".svn",
)  # fmt: skip
SHOWN = (".env.example", ".env.sample", ".env.template")
WORK = ".tinygpt-agent-tmp-"  # what a file is called while it is written
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_APART = re.compile(r"[=:,;@\s]+")  # what stands between a path and what an option or an address says of it
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """What a folder holds. kind: "file", "folder", "link" or "other"; size in bytes."""

    path: str
    kind: str
    size: int = 0


class Workspace:
    """A folder, held open: renaming it or putting another in its place does not move the workspace."""

    def __init__(self, root: Path) -> None:
        try:
            self.root = root.resolve(strict=True)
            self.fd = os.open(self.root, _FOLDER)
        except OSError as error:
            raise ConfigError(
                f"the workspace {root} cannot be opened: {error.strerror or error}", hint="name a folder"
            ) from error
        self._kept: set[Parts] = set()
        self._secret: set[Parts] = set()

    def close(self) -> None:
        os.close(self.fd)

    def protect(self, path: Path) -> None:
        """A file that no tool may change, as the list of tools itself, or a folder with all that it holds.
        One outside is so anyhow."""
        self._kept |= self._place(path)

    def hide(self, path: Path) -> None:
        """A file that no tool may see, as the key of a server."""
        self._secret |= self._place(path)

    def _place(self, path: Path) -> set[Parts]:
        """A path of the person's in components; none where it lies outside, or is the workspace itself."""
        real = path.resolve()
        if real == self.root or not real.is_relative_to(self.root):
            return set()
        return {tuple(map(_folded, real.relative_to(self.root).parts))}

    def holds(self, path: Path) -> bool:
        """Whether a path of the person's leads into the workspace."""
        return path.resolve().is_relative_to(self.root)

    def here(self) -> str:
        """The folder's path, for a program that starts there. Refusal where another lies there now."""
        try:
            same = os.path.samestat(os.stat(self.root), os.fstat(self.fd))
        except OSError:
            same = False
        if not same:
            raise Refusal("path-outside", "the workspace was moved or replaced, so nothing is started in it")
        return str(self.root)

    # What a path may be

    def parts(self, path: str, *, write: bool = False) -> Parts:
        """The components of a path, () for the workspace itself. Refusal says what is wrong with it."""
        found = self._inside(path)
        if any(unicodedata.category(c) == "Cc" for c in path):
            raise Refusal("path-form", f"the path {path!r} has control characters")
        if len(path.encode("utf-8", "surrogateescape")) > LONGEST or path.count("/") >= DEEPEST:
            raise Refusal("path-form", f"a path has at most {LONGEST} bytes and {DEEPEST} components")
        if write and _below(found, self._kept):
            raise Refusal("path-kept", f"'{path}' is part of this run itself: it may be read, not changed")
        return found

    def check(self, path: str, *, write: bool = False) -> None:
        """Refusal for a path that must not be used, as far as is known now. What is missing is fine."""
        self._seen(self.parts(path, write=write), path)

    def _inside(self, path: str) -> Parts:
        """The components of a path. Refusal for one that leads out by its letters, or that nobody sees."""
        found = tuple(part for part in path.split("/") if part not in ("", "."))
        if path.startswith(("/", "~")) or ".." in found:
            raise Refusal(
                "path-outside",
                f"{path[:200]!r} leads out of the workspace: give one in it, without '..', as 'src/a.txt'",
            )
        odd = next((part for part in found if hidden(part)), None)
        if odd is None and _below(found, self._secret):
            odd = found[-1]
        if odd is not None:
            raise Refusal("path-hidden", f"'{odd}' is for nobody: keys and version control are not shown")
        return found

    def _seen(self, parts: Parts, path: str) -> None:
        # What is not there, or below no folder, is for its use to say.
        with contextlib.suppress(OSError), self._folder(parts[:-1], path) as fd:
            if parts:
                _regular(os.stat(parts[-1], dir_fd=fd, follow_symlinks=False), path, folder=True)

    def guard(self, text: str) -> None:
        """Refusal for an argument of a program that has a path which leads out, goes by a link or is hidden.
        Parts of it count too, as in `--file=../x`, and so does what is too long for a path of ours: a program
        opens it."""
        for piece in {text, *_APART.split(text)}:
            self._seen(self._inside(piece), piece)

    # Files

    @contextlib.contextmanager
    def reading(self, path: str) -> Generator[BinaryIO]:
        """A file to read. Refusal for what must not be opened, OSError where it cannot be."""
        parts = self.parts(path)
        with self._folder(parts[:-1], path) as folder:
            opened = self._opened(folder, parts, path)
        with opened as file:
            yield file

    def read(self, path: str, most: int) -> bytes:
        """A whole file of at most so many bytes; OSError (EFBIG) where it has more."""
        with self.reading(path) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise OSError(errno.EFBIG, f"it has more than {most} bytes", path)
        return data

    def write(self, path: str, data: bytes) -> bool:
        """Put a file there or replace one in one step; folders on the way are made. True where it is new."""
        parts = self.parts(path, write=True)
        if not parts:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        with self._folder(parts[:-1], path, make=True) as folder, _named(path):
            old = _status(folder, parts[-1])
            if old is not None:
                _regular(old, path)
            work = f"{WORK}{os.getpid()}-{os.urandom(6).hex()}"
            mode = stat.S_IMODE(old.st_mode) & 0o777 if old is not None else 0o666
            fd = os.open(work, _FILE | os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder)
            try:
                with os.fdopen(fd, "wb") as file:
                    if old is not None:
                        os.fchmod(fd, mode)
                    file.write(data)
                    file.flush()
                    os.fsync(fd)
                os.rename(work, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):  # it is the write's error that counts
                    os.unlink(work, dir_fd=folder)
                raise
        return old is None

    def remove(self, path: str) -> None:
        """Delete one regular file."""
        parts = self.parts(path, write=True)
        if not parts:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        with self._folder(parts[:-1], path) as folder, _named(path):
            _regular(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False), path)
            os.unlink(parts[-1], dir_fd=folder)

    def walk(self, path: str, *, deep: bool = False) -> Iterator[Item]:
        """What lies in a folder, by name, and below it where `deep`. Links are named and not followed, hidden
        names left out."""
        yield from self._walk(self.parts(path), deep)

    def _walk(self, parts: Parts, deep: bool) -> Iterator[Item]:
        where = "/".join(parts)
        with self._folder(parts, where or ".") as fd, os.scandir(fd) as entries:
            found = sorted((e.name, e.stat(follow_symlinks=False)) for e in entries if not hidden(e.name))
        for name, status in found:
            item = Item("/".join((*parts, name)), _kind(status), status.st_size)
            yield item
            if deep and item.kind == "folder" and len(parts) < DEEPEST:
                with contextlib.suppress(OSError, Refusal):  # gone or swapped since it was listed
                    yield from self._walk((*parts, name), deep)

    @contextlib.contextmanager
    def _folder(self, parts: Parts, path: str, *, make: bool = False) -> Generator[int]:
        """A descriptor of a folder below the root, reached one component at a time."""
        fd = os.dup(self.fd)
        try:
            for name in parts:
                fd = _step(fd, name, path, make)
            yield fd
        finally:
            os.close(fd)

    def _opened(self, folder: int, parts: Parts, path: str) -> BinaryIO:
        with _named(path):
            if not parts:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            # Looked at before, since opening a device may do something; and after, since it may be swapped.
            _regular(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False), path)
            try:
                fd = os.open(parts[-1], _FILE | os.O_RDONLY, dir_fd=folder)
            except OSError as error:
                raise (_link(path) if error.errno in (errno.ELOOP, errno.EMLINK) else error) from error
        try:
            _regular(os.fstat(fd), path)
        except BaseException:
            os.close(fd)
            raise
        return os.fdopen(fd, "rb")


def hidden(name: str) -> bool:
    """Whether a name is one that no tool sees. Letters count as alike that a file system may take for one."""
    plain = _folded(name)
    return plain not in SHOWN and any(fnmatch.fnmatchcase(plain, pattern) for pattern in HIDDEN)


def _below(parts: Parts, places: set[Parts]) -> bool:
    """Whether a path is one of these, or lies in one."""
    plain = tuple(map(_folded, parts))
    return any(plain[: len(place)] == place for place in places)


def _folded(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in plain if unicodedata.category(c) != "Cf")


def _step(fd: int, name: str, path: str, make: bool) -> int:
    """From a folder to one in it. The first descriptor is closed where the second is open."""
    with _named(path):
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=fd)
        try:
            inner = os.open(name, _FOLDER, dir_fd=fd)
        except OSError as error:
            status = _status(fd, name)
            if status is not None and stat.S_ISLNK(status.st_mode):
                raise _link(path) from error
            raise
    os.close(fd)
    return inner


def _status(fd: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _regular(status: os.stat_result, path: str, *, folder: bool = False) -> None:
    """Refusal for what is no file of this folder's own."""
    kind = _kind(status)
    if kind == "link":
        raise _link(path)
    if kind == "other":
        raise Refusal("path-kind", f"'{path}' is a device, pipe or socket: only files are opened")
    if kind == "folder" and not folder:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if kind == "file" and status.st_nlink > 1:
        raise Refusal(
            "path-hard-link", f"'{path}' has another name elsewhere (a hard link): it is not opened"
        )


def _link(path: str) -> Refusal:
    return Refusal("path-link", f"'{path}' goes by a symbolic link: links are not followed")


def _kind(status: os.stat_result) -> str:
    if stat.S_ISREG(status.st_mode):
        return "file"
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    return "link" if stat.S_ISLNK(status.st_mode) else "other"


@contextlib.contextmanager
def _named(path: str) -> Generator[None]:
    """Errors name the path that was given, not the one component that failed."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), path) from error
