"""Values of JSON on disk, in a file that nobody else sees and that is gone with the process."""

from __future__ import annotations

import json
import tempfile
from array import array
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError


class Spool:
    """Values by their number. Eight bytes of each stay in memory."""

    def __init__(self, folder: Path | None = None) -> None:
        """In this folder, which must be there; None: where the system keeps what is temporary."""
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise DataError(f"{folder} cannot be written to: {error.strerror or error}") from error
        self._at = array("q", [0])

    def __len__(self) -> int:
        return len(self._at) - 1

    def add(self, value: Any) -> int:
        """Keep a value; its number."""
        data = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
        try:
            self._file.seek(self._at[-1])
            self._file.write(data)
        except OSError as error:
            raise DataError(f"what is worked on finds no room: {error.strerror or error}") from error
        self._at.append(self._at[-1] + len(data))
        return len(self) - 1

    def __getitem__(self, i: int) -> Any:
        self._file.seek(self._at[i])
        return json.loads(self._file.read(self._at[i + 1] - self._at[i]).decode("utf-8", "surrogatepass"))

    def close(self) -> None:
        self._file.close()
