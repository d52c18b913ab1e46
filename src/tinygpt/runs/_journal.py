"""Work that asks others for a long time, kept as it comes: an interrupted command goes on where it stopped.

Beside `rows.jsonl` lies `.rows.jsonl.tinygpt.part` until the rows are written: a first line of settings, then
a line {"key", "value"} for each piece of work. Only the same settings go on with it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tinygpt.core import files
from tinygpt.core.errors import ConfigError


def holds_work(path: Path) -> bool:
    """Whether a journal has more than its settings."""
    with path.open("rb") as file:
        return bool(file.readline() and file.readline())


class Journal:
    """The pieces of work of one output. Only places are kept in memory; a torn last line is forgotten.
    ConfigError where there are pieces of an interrupted command, and neither `resume` nor `force` says what
    of them."""

    def __init__(self, out: Path, settings: Mapping[str, Any], *, resume: bool, force: bool = False) -> None:
        self.path = out.with_name(f".{out.name}.tinygpt.part")
        self._places: dict[str, int] = {}
        told = json.dumps({"settings": settings}, sort_keys=True, default=str)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if resume and self.path.is_file():
                self._take_up(told)
            elif not force and self.path.is_file() and holds_work(self.path):
                raise ConfigError(
                    f"an interrupted command left what it had got in {self.path}",
                    hint="--resume goes on with it, --force begins anew",
                )
            self._file = self.path.open("r+b" if self._places or resume and self.path.is_file() else "w+b")
            self._file.seek(0, os.SEEK_END)
            if not self._file.tell():
                self._add(told)
        except OSError as error:
            raise files.unwritable(self.path, error) from error

    def _take_up(self, told: str) -> None:
        with self.path.open("rb") as file:
            first = file.readline()
            if first.strip() and first.decode(errors="replace").strip() != told:
                raise ConfigError(
                    f"--resume: {self.path} was begun with other settings",
                    hint="give the same settings, or remove that file to begin anew",
                )
            end = file.tell() if first.endswith(b"\n") else 0
            for line in file:
                try:
                    key = json.loads(line)["key"]
                except (ValueError, TypeError, KeyError):
                    break
                if not line.endswith(b"\n"):
                    break
                self._places[key] = end
                end += len(line)
        os.truncate(self.path, end)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> Any:
        """What was kept under a key."""
        self._file.seek(self._places[key])
        value = json.loads(self._file.readline())["value"]
        self._file.seek(0, os.SEEK_END)
        return value

    def keep(self, key: str, value: Any) -> None:
        """One more piece of work; it survives a kill from here on."""
        self._places[key] = self._add(json.dumps({"key": key, "value": value}, ensure_ascii=False))

    def _add(self, line: str) -> int:
        try:
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(line.encode("utf-8", "surrogatepass") + b"\n")
            self._file.flush()
        except OSError as error:
            raise files.unwritable(self.path, error) from error
        return place

    def done(self) -> None:
        """The rows are written: the journal goes."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is not None and not self._places:  # it got nothing, so there is nothing to go on with
            self.path.unlink(missing_ok=True)
