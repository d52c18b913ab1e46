"""The token cache: a corpus is tokenised once, kept on disk and memory-mapped afterwards.

An entry is a directory named by a hash of the corpus content and the tokenizer, so it is never stale. It
holds `tokens.bin` (little-endian uint16 or uint32), `starts.bin` (int64, where each document begins),
`sizes.bin` (int64, its bytes of text) and `header.json` with sizes, hashes and counts. It is written beside
its place and renamed, and checked when opened; a damaged one is made again with a note. Of processes that
want the same entry at once, one makes it and the others wait.

Hashes of large files are remembered by size and times, so that a run on gigabytes reads them once, not at
every start; see `content_hash`.
"""

from __future__ import annotations

import array
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events
from tinygpt.core.files import atomic_directory, cache_dir, peek_json, sha256, write_json
from tinygpt.core.lock import only_one

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1
FILES = ("tokens.bin", "starts.bin", "sizes.bin")
LARGE = 1 << 26  # bytes from which a file's hash is remembered: it takes 0.1 s and more to compute
SETTLED = 2.0  # seconds after which a file's times tell whether it was written again


@dataclass(frozen=True)
class Tokens:
    """A tokenised corpus: all documents in one array, where each begins, and its size in bytes of text."""

    ids: NDArray[np.unsignedinteger[Any]]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    facts: dict[str, Any]


@dataclass
class Writer:
    """Takes documents one by one. Tokens go to disk at once, so a corpus may be larger than memory."""

    folder: Path
    dtype: str
    starts: array.array[int] = field(default_factory=lambda: array.array("q"))
    sizes: array.array[int] = field(default_factory=lambda: array.array("q"))
    facts: dict[str, Any] = field(default_factory=dict)
    n_tokens: int = 0

    def __post_init__(self) -> None:
        self.file = (self.folder / "tokens.bin").open("wb")

    def begin(self, n_bytes: int) -> None:
        """A document of so many bytes starts here; `add` gives its tokens."""
        self.starts.append(self.n_tokens)
        self.sizes.append(n_bytes)

    def grow(self, n_bytes: int) -> None:
        """The last document has so many bytes more."""
        self.sizes[-1] += n_bytes

    def add(self, ids: Sequence[int] | NDArray[Any]) -> None:
        import numpy as np

        values = np.asarray(ids, self.dtype)
        self.file.write(values.tobytes())
        self.n_tokens += len(values)

    def finish(self) -> None:
        """Write what belongs beside the tokens; DataError when there are none."""
        import numpy as np

        if not self.n_tokens:
            raise DataError("the corpus has no text", hint="give files that are not empty")
        self.file.flush()
        for name, values in (("starts.bin", self.starts), ("sizes.bin", self.sizes)):
            (self.folder / name).write_bytes(np.asarray(values, "<i8").tobytes())
        files = {
            n: {"bytes": (self.folder / n).stat().st_size, "sha256": sha256(self.folder / n)} for n in FILES
        }
        header = {"version": VERSION, "dtype": self.dtype, "files": files, "facts": self.facts}
        write_json(self.folder / "header.json", header)


def key(*parts: str) -> str:
    """The name of an entry: a hash of everything that decides its content."""
    return hashlib.sha256("\n".join((str(VERSION), *parts)).encode()).hexdigest()[:32]


def cached(
    path: Path, vocab_size: int, write: Callable[[Writer], None], events: Events | None = None
) -> Tokens:
    """The entry at `path`, made with `write` when it is missing or damaged."""
    if (tokens := _whole(path, events)) is not None:
        return tokens

    def busy() -> None:
        if events:
            events.note("another process tokenises this corpus: waiting for it")

    with only_one(path.with_name(f".{path.name}.lock"), busy):
        if (tokens := _whole(path, None)) is None:  # nobody made it meanwhile
            with atomic_directory(path, replace=True) as folder:
                _write(folder, vocab_size, write)
            tokens = _open(path, check=False)
    return tokens


def _whole(path: Path, events: Events | None) -> Tokens | None:
    """The entry at `path`; None when it is missing or, with a note, damaged."""
    if not path.exists():
        return None
    try:
        return _open(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if events:
            events.note(f"the token cache {path} is damaged ({error}); it is made again", level="warning")
        return None


def content_hash(path: Path) -> str:
    """Hex SHA-256 of a file. That of a large one is computed once and remembered under its path, with its
    size, its times of writing and of change (which no program can set back) and its number on the disk: a
    file that has none of them changed was not written to. OSError: it cannot be read."""
    now, last = _state(path)
    if now["bytes"] < LARGE:
        return sha256(path)
    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    memory = cache_dir("hashes") / f"{name}.json"
    known = peek_json(memory)
    if known.get("sha256") and all(known.get(name) == value for name, value in now.items()):
        return known["sha256"]
    began = time.time()
    found = sha256(path)
    # Clocks of file systems are coarse: one that was just written could be written again at the same time.
    if began - last > SETTLED and _state(path)[0] == now:
        write_json(memory, {"path": str(path.resolve()), **now, "sha256": found})
    return found


def _state(path: Path) -> tuple[dict[str, int], float]:
    """(what differs once a file was written to, when that was last)."""
    facts = path.stat()
    found = {"bytes": facts.st_size, "written": facts.st_mtime_ns, "changed": facts.st_ctime_ns}
    return {**found, "file": facts.st_ino}, max(facts.st_mtime, facts.st_ctime)


def uncached(vocab_size: int, write: Callable[[Writer], None]) -> Tokens:
    """The same in memory: nothing is left on disk."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), vocab_size, write)
        tokens = _open(Path(folder), check=False)
        return Tokens(np.array(tokens.ids), tokens.starts, tokens.sizes, tokens.facts)


def _write(folder: Path, vocab_size: int, write: Callable[[Writer], None]) -> None:
    writer = Writer(folder, "<u2" if vocab_size <= 1 << 16 else "<u4")
    with writer.file:
        write(writer)
        writer.finish()


def _open(path: Path, *, check: bool = True) -> Tokens:
    """ValueError when the entry is not whole. `check=False` is for one that was just written."""
    import numpy as np

    header = json.loads((path / "header.json").read_text(encoding="utf-8"))
    if header["version"] != VERSION:
        raise ValueError(f"version {header['version']}")
    for name, wanted in header["files"].items():
        if (path / name).stat().st_size != wanted["bytes"]:
            raise ValueError(f"{name} has the wrong size")
        if check and content_hash(path / name) != wanted["sha256"]:
            raise ValueError(f"{name} has the wrong hash")
    ids = np.memmap(path / "tokens.bin", dtype=header["dtype"], mode="r")
    starts = np.frombuffer((path / "starts.bin").read_bytes(), "<i8")
    sizes = np.frombuffer((path / "sizes.bin").read_bytes(), "<i8")
    return Tokens(ids, starts, sizes, header["facts"])
