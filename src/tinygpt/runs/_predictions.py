"""A file of answers that grows row by row, and is gone on with after a break.

A line is the row, its answer, and what tells which answer it is: the row's number and hash, which of several
samples, and a hash of the settings. So a second start knows what is there, and that it belongs here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError

OTHER = "write to another file, or remove this one"


def sha(value: Any) -> str:
    """A short hash of JSON data, the same for the same data."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Predictions:
    """The file, opened for more. `column` holds the answer, `_column` what is told of it."""

    def __init__(self, path: Path, column: str, settings: str) -> None:
        self.path, self.column, self.settings = path, column, settings
        self.n_repaired = 0  # half-written lines that were cut off
        self._done: dict[int, tuple[str, set[int]]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._repair()
            self._read()
        except BaseException:
            self._file.close()
            raise

    @property
    def meta(self) -> str:
        """The column that tells of the answer."""
        return f"_{self.column}"

    @property
    def n_done(self) -> int:
        """Answers that were there when the file was opened."""
        return sum(len(samples) for _, samples in self._done.values())

    def has(self, number: int, sample: int, row_sha: str) -> bool:
        """Whether this answer is there; DataError where the row is another one than it was."""
        found = self._done.get(number)
        if found is None:
            return False
        if found[0] != row_sha:
            raise DataError(
                f"{self.path} answers another row {number} than the data has: the data was changed",
                hint=OTHER,
            )
        return sample in found[1]

    def write(self, row: Mapping[str, Any], answer: str, told: Mapping[str, Any]) -> None:
        """One more answer, on disk as far as the system is concerned when this returns."""
        line = {**row, self.column: answer, self.meta: {**told, "settings": self.settings}}
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Flush to the disk."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _repair(self) -> None:
        """Cut off a last line that was not finished."""
        end = self._file.seek(0, os.SEEK_END)
        at, tail = end, b""
        while at and b"\n" not in tail:
            at = max(0, at - (1 << 16))
            self._file.seek(at)
            tail = self._file.read(end - at)
        if tail and not tail.endswith(b"\n"):
            self._file.truncate(at + tail.rfind(b"\n") + 1)
            self.n_repaired = 1

    def _read(self) -> None:
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            try:
                told = json.loads(line)[self.meta]
                key = int(told["row"]), int(told["sample"]), str(told["sha"]), str(told["settings"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{self.path} line {number} is none of this command's", hint=OTHER) from error
            if key[3] != self.settings:
                raise DataError(
                    f"{self.path} was written under other settings, or by another model", hint=OTHER
                )
            self._done.setdefault(key[0], (key[2], set()))[1].add(key[1])
