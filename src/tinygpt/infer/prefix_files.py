"""Prefixes on disk: a safetensors file for each edge of the tree, which a restarted process reads again.

A file is named by a hash of what it belongs to (model, adapter, packing, kind of caches) and of its tokens,
and its header has them, so that only headers are read at the start. Files are written whole or not at all;
the bytes of all are bounded, and what was not used for longest leaves first. What is broken or of another
kind is passed over with one note, and so is, once it is asked for, what has changed since it was written;
only files with our ending are ever removed."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinygpt.core.backend import mx
from tinygpt.core.errors import DataError
from tinygpt.core.events import Events, Note
from tinygpt.core.files import beside, sweep
from tinygpt.model.cache.parts import Arrays, Snapshot

ENDING = ".prefix.safetensors"
FORMAT = "2"  # of the files; others are of no use
HEADER = 1 << 26  # bytes that a header may have


@dataclass(frozen=True)
class Entry:
    """A file: the tokens from `start` on, and perhaps a snapshot at their end."""

    path: Path
    scope: str
    unit: int
    start: int
    tokens: tuple[int, ...]
    layers: int
    has_end: bool
    checksum: str


class Folder:
    """The files of a folder, in at most so many bytes. events hears one note about what is passed over."""

    def __init__(self, path: Path, most_bytes: int, events: Events | None = None) -> None:
        self.path, self.most_bytes, self._events = path, most_bytes, events
        self._sizes: dict[Path, tuple[float, int, Entry]] = {}  # last use, bytes
        self._failed = False
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot use {path} for prompts: {error.strerror or error}") from error
        self._look()

    def entries(self) -> list[Entry]:
        """What earlier processes have left."""
        return [entry for _, _, entry in self._sizes.values()]

    @property
    def bytes(self) -> int:
        return sum(size for _, size, _ in self._sizes.values())

    def _look(self) -> None:
        strange = broken = 0
        sweep(self.path)
        for path in sorted(self.path.iterdir()):
            if not path.name.endswith(ENDING) or not path.is_file():
                strange += not path.name.startswith(".")
                continue
            try:
                info = path.stat()
                self._sizes[path] = (info.st_mtime, info.st_size, _entry(path, info.st_size))
            except (OSError, ValueError, KeyError, TypeError):
                broken += 1
                path.unlink(missing_ok=True)
        if strange or broken:
            said = f"{strange} files are no kept prompts; {broken} broken ones were removed"
            self._note(f"{self.path}: {said}")
        self.shrink()

    def save(
        self,
        scope: str,
        unit: int,
        tokens: tuple[int, ...],
        start: int,
        parts: Sequence[Arrays] | None,
        snapshot: Sequence[Snapshot] | None,
    ) -> Entry | None:
        """Write what is kept of the tokens from `start` on; None where the disk does not take it."""
        arrays = {f"{i}.{j}": x for i, part in enumerate(parts or ()) for j, x in enumerate(part)}
        arrays |= {f"{i}.end.{k}": x for i, one in enumerate(snapshot or ()) for k, x in one.items()}
        layers = len(parts if parts is not None else snapshot or ())
        text = json.dumps([scope, start, tokens])
        path = self.path / (hashlib.sha256(text.encode()).hexdigest()[:32] + ENDING)
        checksum = _checksum(arrays)
        says = {
            "tinygpt.prefix": FORMAT, "scope": scope, "unit": str(unit), "start": str(start),
            "tokens": json.dumps(tokens), "layers": str(layers), "end": str(int(snapshot is not None)),
            "checksum": checksum,
        }  # fmt: skip
        temporary = beside(path)
        try:
            temporary.touch(0o600)  # what was said is in it
            with temporary.open("wb") as file:  # by its name MLX would write to another one
                mx.save_safetensors(file, arrays or {"none": mx.zeros((1,))}, says)
            os.replace(temporary, path)
            info = path.stat()
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            if not self._failed:
                self._note(f"{self.path}: prompts cannot be written: {error}")
            self._failed = True
            return None
        entry = Entry(path, scope, unit, start, tokens, layers, snapshot is not None, checksum)
        self._sizes[path] = (info.st_mtime, info.st_size, entry)
        return entry

    def parts(self, entry: Entry) -> list[Arrays] | None:
        """What adds up, layer by layer; None where the file is gone or broken."""
        found = self._load(entry)
        if found is None:
            return None
        parts: list[Arrays] = []
        for i in range(entry.layers):
            n = sum(1 for name in found if name.startswith(f"{i}.") and not name.startswith(f"{i}.end."))
            parts.append([found[f"{i}.{j}"] for j in range(n)])
        return parts

    def snapshot(self, entry: Entry) -> list[Snapshot] | None:
        """What stands at the end, layer by layer; None where the file is gone or broken."""
        found = self._load(entry)
        if found is None:
            return None
        ends = [f"{i}.end." for i in range(entry.layers)]
        return [{k.removeprefix(end): x for k, x in found.items() if k.startswith(end)} for end in ends]

    def _load(self, entry: Entry) -> dict[str, mx.array] | None:
        try:
            found = mx.load(str(entry.path))
            assert isinstance(found, dict)
            mx.eval(found)
            _ = found.pop("none", None)
            if _checksum(found) != entry.checksum:
                raise ValueError("its bytes are not those that were written")
        except (OSError, RuntimeError, ValueError) as error:
            self._sizes.pop(entry.path, None)
            entry.path.unlink(missing_ok=True)
            self._note(f"{entry.path.name} cannot be read and was removed: {error}")
            return None
        return found

    def touch(self, entries: Iterable[Entry | None]) -> None:
        """Note that files were used."""
        for path in {entry.path for entry in entries if entry is not None and entry.path in self._sizes}:
            try:
                os.utime(path)
                _, size, entry = self._sizes[path]
                self._sizes[path] = (path.stat().st_mtime, size, entry)
            except OSError:
                del self._sizes[path]

    def shrink(self) -> list[Entry]:
        """Remove what was not used for longest until the bytes fit; what was removed."""
        gone, held = [], self.bytes
        oldest = sorted(self._sizes.values(), key=lambda one: (one[0], -len(one[2].tokens)))
        for _, size, entry in oldest:
            if held <= self.most_bytes:
                break
            entry.path.unlink(missing_ok=True)
            del self._sizes[entry.path]
            held -= size
            gone.append(entry)
        return gone

    def _note(self, text: str) -> None:
        if self._events is not None:
            self._events.emit(Note(text=text))


def _checksum(arrays: Mapping[str, mx.array]) -> str:
    """CRC-32 of arrays, which tells bytes that have changed on the disk; nobody is kept from forging it."""
    found = 0
    for name in sorted(arrays):
        found = zlib.crc32(name.encode(), found)
        if arrays[name].size:
            flat = mx.contiguous(arrays[name]).flatten().view(mx.uint8)
            found = zlib.crc32(memoryview(flat), found)
    return f"{found:08x}"


def _entry(path: Path, size: int) -> Entry:
    """What a file's header says; ValueError, KeyError or TypeError where it is none of ours, or cut off."""
    with path.open("rb") as file:
        (n,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if not 2 <= n <= min(HEADER, size):
            raise ValueError("no safetensors file")
        header = json.loads(file.read(n))
    says = header.pop("__metadata__")
    ends = [int(one["data_offsets"][1]) for one in header.values()]
    if says["tinygpt.prefix"] != FORMAT or size != 8 + n + max(ends):
        raise ValueError("of another format, or cut off")
    tokens = tuple(int(x) for x in json.loads(says["tokens"]))
    start, unit, layers = (int(says[name]) for name in ("start", "unit", "layers"))
    if not 0 <= start <= len(tokens) or unit < 1 or layers < 1:
        raise ValueError("a header that contradicts itself")
    return Entry(path, says["scope"], unit, start, tokens, layers, says["end"] == "1", says["checksum"])
