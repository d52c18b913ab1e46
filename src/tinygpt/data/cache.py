"""The token cache: a corpus is tokenised once, kept on disk and memory-mapped afterwards.

An entry is a directory named by a hash of the corpus content and the tokenizer, so it is never stale. It
holds `tokens.bin` (little-endian uint16 or uint32), `starts.bin` (int64, where each document begins),
`sizes.bin` (int64, its bytes of text) and `header.json` with sizes, hashes and counts. It is written beside
its place and renamed, and checked when opened; a damaged one is made again with a note.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events
from tinygpt.core.files import atomic_directory, sha256, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1
FILES = ("tokens.bin", "starts.bin", "sizes.bin")


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
    starts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    n_tokens: int = 0

    def __post_init__(self) -> None:
        self.file = (self.folder / "tokens.bin").open("wb")

    def begin(self, n_bytes: int) -> None:
        """A document of so many bytes starts here; `add` gives its tokens."""
        self.starts.append(self.n_tokens)
        self.sizes.append(n_bytes)

    def add(self, ids: list[int]) -> None:
        import numpy as np

        self.file.write(np.asarray(ids, self.dtype).tobytes())
        self.n_tokens += len(ids)

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
    if path.exists():
        try:
            return _open(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if events:
                events.note(f"the token cache {path} is damaged ({error}); it is made again", level="warning")
    with atomic_directory(path, replace=True) as folder:
        _write(folder, vocab_size, write)
    return _open(path)


def uncached(vocab_size: int, write: Callable[[Writer], None]) -> Tokens:
    """The same in memory: nothing is left on disk."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), vocab_size, write)
        tokens = _open(Path(folder))
        return Tokens(np.array(tokens.ids), tokens.starts, tokens.sizes, tokens.facts)


def _write(folder: Path, vocab_size: int, write: Callable[[Writer], None]) -> None:
    writer = Writer(folder, "<u2" if vocab_size <= 1 << 16 else "<u4")
    with writer.file:
        write(writer)
        writer.finish()


def _open(path: Path) -> Tokens:
    """ValueError when the entry is not whole."""
    import numpy as np

    header = json.loads((path / "header.json").read_text(encoding="utf-8"))
    if header["version"] != VERSION:
        raise ValueError(f"version {header['version']}")
    for name, wanted in header["files"].items():
        if (path / name).stat().st_size != wanted["bytes"]:
            raise ValueError(f"{name} has the wrong size")
        if sha256(path / name) != wanted["sha256"]:
            raise ValueError(f"{name} has the wrong hash")
    ids = np.memmap(path / "tokens.bin", dtype=header["dtype"], mode="r")
    starts = np.frombuffer((path / "starts.bin").read_bytes(), "<i8")
    sizes = np.frombuffer((path / "sizes.bin").read_bytes(), "<i8")
    return Tokens(ids, starts, sizes, header["facts"])
