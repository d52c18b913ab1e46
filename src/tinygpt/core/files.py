"""Files that are whole or absent: atomic writes with fsync, hashes, and the cache folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Collection, Generator, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tinygpt.core.errors import ConfigError, DataError

MANIFEST = "tinygpt.json"  # lists the files of a checkpoint or tokenizer
LOCK = "tinygpt.lock.json"  # lists the files of a packaged specialist
# A writer's place of work beside `name`: a file, or a folder for the directory that is being made, the one
# that it replaces, and what is being removed.
WORK = re.compile(r"\.(?P<name>.+)\.tinygpt\.tmp-(?P<pid>\d+)", re.DOTALL)
NEW, OLD, GONE = "new", "old", "gone"


def cache_dir(*parts: str) -> Path:
    """`$TINYGPT_CACHE` or ~/.cache/tinygpt, with sub-folders made on the way."""
    root = os.environ.get("TINYGPT_CACHE")
    path = (Path(root) if root else Path.home() / ".cache" / "tinygpt").joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot use the cache folder {path}: {error.strerror or error}",
            hint="set TINYGPT_CACHE to a folder you can write to",
        ) from error
    return path


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Ask the kernel to put a file or directory on disk. Some file systems refuse it for directories; that is
    fine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if path.is_file():
            raise
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Flush every file below a folder, then the folders themselves."""
    for path in sorted(folder.rglob("*"), reverse=True):
        fsync(path)
    fsync(folder)


def beside(path: Path) -> Path:
    """Where this process writes what will become `path`: hidden, in the same folder, named after both."""
    real = _real(path)
    return real.parent / f".{real.name}.tinygpt.tmp-{os.getpid()}"


def _real(path: Path) -> Path:
    """The path without links: what is replaced is where a link leads to, and "." has a name and a folder."""
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def writing(path: Path) -> Generator[IO[str]]:
    """A text file to write piece by piece: it takes the place of `path` when the block ends well, and is gone
    when it does not. A device or pipe is written to as it is. DataError where the disk does not take it."""
    plain = path.exists() and not path.is_file() and not path.is_dir()
    temporary = path if plain else beside(path)
    try:
        with _unwritable(path):
            temporary.parent.mkdir(parents=True, exist_ok=True)
            file = temporary.open("w", encoding="utf-8")
        with file:
            try:
                yield file
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                    raise  # another file's, or a connection's
                raise unwritable(path, error) from error
            if not plain:
                with _unwritable(path):
                    file.flush()
                    os.fsync(file.fileno())
        if not plain:
            with _unwritable(path):
                os.replace(temporary, _real(path))
    finally:
        if not plain:
            with contextlib.suppress(OSError):
                temporary.unlink()


@contextlib.contextmanager
def _unwritable(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step: a reader sees the old content or the new, never a part.

    A link stays a link, to a new file; a device or pipe (/dev/null, /dev/stdout) is written to, never
    replaced."""
    with writing(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step, indented for people, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def refuse_existing(
    path: Path,
    *,
    force: bool | None,
    what: str = "output",
    mark: str = "",
    replaced: Mapping[str, Collection[str]] | None = None,
) -> None:
    """An existing, non-empty output is never overwritten silently: a mistyped --out must not cost anyone
    their own files.

    Even `force` (None: there is no such flag) replaces no file, no directory without `mark`, a JSON file that
    only tinygpt writes, and none in which something is not ours. `replaced` are the folders below `path` that
    will go, with the names that ours have at the top of each; see `foreign`."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir():
        raise ConfigError(f"{path} is a file, the {what} must be a directory", hint="choose another --out")
    if not force:
        way = "" if force is None else ", or pass --force to replace it"
        raise ConfigError(f"the {what} {path} exists", hint=f"choose another --out{way}")
    if mark and not _made_here(path / mark):
        raise ConfigError(
            f"{path} is no {what} (it has no {mark} of tinygpt's), so --force does not replace it",
            hint="choose another --out, or remove it yourself",
        )
    for folder, names in (replaced or {}).items():
        if (odd := foreign(path / folder, names)) is not None:
            raise ConfigError(
                f"{odd} was not written by tinygpt, so --force does not replace {odd.parent}",
                hint="move it elsewhere, or choose another --out",
            )


def _made_here(path: Path) -> bool:
    data = peek_json(path)
    return "tinygpt" in data or str(data.get("made_by")).startswith("tinygpt ")


def peek_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; an empty one where there is none to be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def foreign(folder: Path, names: Collection[str] = ()) -> Path | None:
    """The first file below a folder that tinygpt did not write: none of `names` at its top, and on no list of
    a checkpoint or specialist. None when all are ours."""
    return next(_foreign(folder, names), None)


def _foreign(folder: Path, names: Collection[str]) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    for seal in (LOCK, MANIFEST):
        listed = peek_json(folder / seal).get("files") if _made_here(folder / seal) else None
        if isinstance(listed, dict):
            inside = sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
            ours = {seal, *listed}
            yield from (p for p in inside if p.relative_to(folder).as_posix() not in ours)
            return
    for item in sorted(folder.iterdir()) if folder.is_dir() else ():
        if WORK.fullmatch(item.name):
            continue
        if item.is_dir() and not item.is_symlink():
            yield from _foreign(item, ())
        elif item.name not in names:
            yield item


@contextlib.contextmanager
def atomic_directory(path: Path, *, replace: bool = False) -> Generator[Path]:
    """Yield a hidden directory to write into; on success it becomes `path`, on failure it is removed.

    Everything is flushed before the rename. With `replace` the old directory is moved aside first and removed
    last, so a kill leaves either the old or the new one; `recover()` puts an old one back when the kill fell
    between two renames."""
    real, work = _real(path), beside(path)
    new, aside = work / NEW, work / OLD
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        _sweep(real.parent, real.name)
        _discard(work)
        work.mkdir()
        new.mkdir()
        yield new
        fsync_tree(new)
        if real.exists():
            if not replace and not (real.is_dir() and not any(real.iterdir())):
                raise ConfigError(
                    f"{path} exists", hint="choose another --out, or pass --force to replace it"
                )
            os.replace(real, aside)
        os.replace(new, real)
        fsync(real.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    except DataError as error:
        error.message = error.message.replace(str(new), str(path))  # nobody knows the place of work by name
        raise
    finally:
        if aside.exists() and not real.exists():
            with contextlib.suppress(OSError):  # then it stays aside, where the next reader looks for it
                os.replace(aside, real)
        if real.exists() or not aside.exists():
            _discard(work)


def recover(path: Path) -> None:
    """Undo a replacement that was killed between its two renames. Nothing is removed: readers may call it."""
    real = _real(path)
    if real.exists():
        return
    for work, _ in _works(real.parent, real.name):
        if (work / NEW).exists() and (work / OLD).exists():
            deadline = time.monotonic() + 0.05  # a living writer is there for microseconds: it may finish
            while not real.exists() and time.monotonic() < deadline:
                time.sleep(0.001)
            if not real.exists():
                with contextlib.suppress(OSError):  # a reader that may not write finds what it finds
                    os.replace(work / OLD, real)


def sweep(folder: Path) -> None:
    """Remove what dead writers left in a folder: our hidden temporary files and directories, which name their
    process."""
    _sweep(folder, None)


def _sweep(folder: Path, name: str | None) -> None:
    for work, pid in _works(folder, name):
        if pid != os.getpid() and not _alive(pid):
            found = WORK.fullmatch(work.name)
            assert found is not None, work
            recover(folder / found["name"])
            _discard(work)


def _works(folder: Path, name: str | None) -> list[tuple[Path, int]]:
    """Places of work in a folder, of one name or all, with the process that made each."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:  # it is not there, or not ours to look into
        return []
    found = ((path, WORK.fullmatch(path.name)) for path in inside)
    return [(path, int(m["pid"])) for path, m in found if m and name in (None, m["name"])]


def _discard(work: Path) -> None:
    """Remove a place of work, unless it holds what no writer puts there."""
    if work.is_dir() and not work.is_symlink():
        if {p.name for p in work.iterdir()} <= {NEW, OLD, GONE}:
            shutil.rmtree(work, ignore_errors=True)
    elif work.is_file():
        work.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def unwritable(path: Path, error: OSError) -> DataError:
    """The one-line error for a failed write: what could not be written, why, and what to do."""
    hints = {
        errno.ENOSPC: "the disk is full: free some space",
        errno.EDQUOT: "your disk quota is used up",
        errno.EACCES: "you have no permission to write there",
        errno.EROFS: "the file system is read-only",
    }
    return DataError(f"cannot write {path}: {error.strerror or error}", hint=hints.get(error.errno or 0, ""))


def remove_directory(path: Path) -> None:
    """Remove a directory so that a kill in the middle cannot leave half of it under its own name. Of a link
    only the link goes."""
    if path.is_symlink():
        path.unlink()
        return
    work = beside(path)
    _discard(work)
    work.mkdir()
    os.replace(path, work / GONE)
    shutil.rmtree(work, ignore_errors=True)
