"""Corrections: what people changed in a model's answers, kept as lines of a file for a later training.

A line is {id, timestamp, intent, original, corrected, input?, source?, model?}. Several processes may add to
a folder at once: each line is written whole, under a lock of the operating system.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tinygpt.core.errors import BusyError, DataError, nearest
from tinygpt.core.files import unwritable

FILE = "corrections.jsonl"
NEEDED = ("intent", "original", "corrected")
FIELDS = (*NEEDED, "input", "source", "model")
LONGEST = 256 << 10  # letters of a field
MOST = 1 << 30  # bytes of the file


class WrongField(DataError):
    """A field is wrong; `param` is its name."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"'{name}' {why}")
        self.param = name


class Corrections:
    """The file of a folder, in at most so many bytes. Safe from any thread and process."""

    def __init__(self, folder: Path, most_bytes: int = MOST) -> None:
        self.path, self.most_bytes = folder / FILE, most_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
        except OSError as error:
            raise unwritable(self.path, error) from error

    def add(self, fields: Mapping[str, str]) -> str:
        """One more line; its id. WrongField where the fields are not those of a correction, BusyError where
        the file is full or the disk does not take it."""
        if wrong := next((name for name in fields if name not in FIELDS), None):
            raise WrongField(wrong, f"is not known.{nearest(wrong, FIELDS)}")
        if wrong := next((name for name in NEEDED if name not in fields), None):
            raise WrongField(wrong, "is required")
        if wrong := next((name for name in ("intent", "corrected") if not fields[name].strip()), None):
            raise WrongField(wrong, "is empty")  # an original may be: the model had said nothing
        if wrong := next((name for name, text in fields.items() if len(text) > LONGEST), None):
            raise WrongField(wrong, f"has {len(fields[wrong])} letters, at most {LONGEST} are kept")
        told = {"id": uuid.uuid4().hex, "timestamp": datetime.now(UTC).isoformat()}
        row = told | {name: fields[name] for name in FIELDS if name in fields}
        self._append(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return row["id"]

    def _append(self, line: bytes) -> None:
        import fcntl

        try:
            with self.path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # it ends with the file
                end = file.seek(0, os.SEEK_END)
                if end + len(line) > self.most_bytes:
                    raise BusyError(
                        f"{self.path} holds {end} bytes, at most {self.most_bytes} are kept",
                        hint="move it elsewhere",
                    )
                file.seek(max(0, end - 1))
                if end and file.read() != b"\n":  # a process died while it wrote
                    line = b"\n" + line
                try:
                    if file.write(line) != len(line):
                        raise OSError("the disk is full")
                    os.fsync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        file.truncate(end)
                    raise
        except OSError as error:
            raise BusyError(f"{self.path} cannot be written: {error.strerror or error}") from error
