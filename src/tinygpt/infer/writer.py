"""From tokens to text that is safe to show: whole characters, and never a part of a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Stream(Protocol):
    """Incremental decoding, as `tokenizer.stream()` gives it."""

    def add(self, id: int) -> str: ...

    def flush(self) -> str: ...


class Writer:
    """Takes ids one by one and gives the text that can no longer become part of a stop text.

    The first stop text to be complete ends the answer, so the result does not depend on how tokens cut the
    text.
    """

    def __init__(self, stream: Stream, stop: Sequence[str]) -> None:
        self._stream, self._stop = stream, tuple(stop)
        self._held = ""
        self.matched: str | None = None  # the stop text that was met

    @property
    def stopped(self) -> bool:
        """Whether a stop text was met: nothing follows."""
        return self.matched is not None

    @property
    def watches(self) -> bool:
        """Whether there is a stop text to watch for."""
        return bool(self._stop)

    def add(self, id: int) -> str:
        """The text that became certain with this id; `stopped` says whether a stop text was met."""
        return self._certain(self._stream.add(id))

    def flush(self) -> str:
        """What was still held back, once no id will follow."""
        if self.stopped:
            return ""
        text = self._certain(self._stream.flush())
        held, self._held = self._held, ""
        return text if self.stopped else text + held

    def _certain(self, text: str) -> str:
        if not self._stop or self.stopped:
            return "" if self.stopped else text
        text = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            _, at, self.matched = min(found)
            self._held = ""
            return text[:at]
        keep = self._risk(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _risk(self, text: str) -> int:
        """Length of the longest tail that a stop text starts with."""
        longest = min(len(text), max(map(len, self._stop)) - 1)
        for n in range(longest, 0, -1):
            if text.endswith(tuple(stop[:n] for stop in self._stop if len(stop) > n)):
                return n
        return 0
