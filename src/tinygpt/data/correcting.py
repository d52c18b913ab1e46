"""Corrections as rows that train: what people changed becomes the answer, or the better of two."""

from __future__ import annotations

import datetime
import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import rows, table
from tinygpt.data.corrections import NEEDED
from tinygpt.data.message import text_of
from tinygpt.data.source._preferred import preferred

EARLIER, OLD, SAME, NOTHING = "corrected again later", "before --since", "nothing was changed", "nothing said"
BAD = "no correction"


def moment(text: str) -> datetime.datetime:
    """A time as ISO 8601 writes it; a day alone begins at midnight, and no zone is UTC."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"'{text}' is no time", hint="such as 2026-01-31 or 2026-01-31T12:00") from error
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


class Corrected:
    """The corrections of a file, in their order. pairs: with what was said before as the worse answer.
    since: only those from then on. `dropped` counts the others once `rows` has ended."""

    def __init__(self, path: Path, *, pairs: bool, since: str = "", system: str = "") -> None:
        self._path, self._pairs, self._system = path, pairs, system
        self._since = moment(since) if since else None
        self.n_read, self.dropped = 0, Counter[str]()
        self.first_bad = ""
        self._last: dict[bytes, int] = {}  # of each question, the line that counts
        for number, read in table.records(path):
            self.n_read += 1
            try:
                row = self._row(read())
            except DataError as error:
                self.first_bad = self.first_bad or f"line {number}: {error.message}"
                self.dropped[BAD] += 1
                continue
            if why := self._fault(row):
                self.dropped[why] += 1
                continue
            key = question_key(asked(row))
            self.dropped[EARLIER] += key in self._last
            self._last[key] = number
        self.dropped = Counter({why: n for why, n in self.dropped.items() if n})

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self._last)

    def has(self, question: str) -> bool:
        """Whether there is one of this question."""
        return question_key(question) in self._last

    def rows(self) -> Iterator[dict[str, Any]]:
        """What trains: {messages}, or {prompt, chosen, rejected}."""
        counted = set(self._last.values())
        for number, read in table.records(self._path):
            if number in counted:
                yield self._made(self._row(read()))

    def _row(self, row: Any) -> dict[str, Any]:
        if not isinstance(row, dict) or any(name not in row for name in NEEDED):
            raise DataError(f"a correction has {', '.join(NEEDED)}")
        for name in (*NEEDED, *(n for n in ("input", "timestamp") if row.get(n) is not None)):
            text_of(row[name], name)
        return row

    def _fault(self, row: Mapping[str, Any]) -> str:
        if self._since is not None:
            try:
                when = moment(row.get("timestamp") or "")
            except ConfigError:
                return BAD
            if when < self._since:
                return OLD
        if not row["corrected"].strip() or (self._pairs and not row["original"].strip()):
            return NOTHING
        return SAME if self._pairs and row["corrected"] == row["original"] else ""

    def _made(self, row: Mapping[str, Any]) -> dict[str, Any]:
        prompt: list[dict[str, Any]] = [{"role": "user", "content": asked(row)}]
        if self._system:
            prompt.insert(0, {"role": "system", "content": self._system})
        about = {"_meta": {name: row[name] for name in ("id", "source", "model") if row.get(name)}}
        if not self._pairs:
            return {"messages": [*prompt, {"role": "assistant", "content": row["corrected"]}], **about}
        if not self._system:
            return {
                "prompt": asked(row), "chosen": row["corrected"], "rejected": row["original"], **about,
            }  # fmt: skip
        both = {"chosen": row["corrected"], "rejected": row["original"]}
        said = {name: [{"role": "assistant", "content": text}] for name, text in both.items()}
        return {"prompt": prompt, **said, **about}


def asked(row: Mapping[str, Any]) -> str:
    """What the correction answers: what was wanted, then what it was wanted of."""
    return row["intent"] + (f"\n\n{row['input']}" if row.get("input") else "")


def question_key(text: str) -> bytes:
    """The same for the same question, however it is spaced."""
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


class Replay:
    """So many rows of a file, drawn by a seed; those for which `fits` raises DataError, and those that ask
    what was corrected, are none of them."""

    def __init__(self, path: Path, n: int, *, seed: int, pairs: bool, taken: Callable[[str], bool]) -> None:
        self._path = path
        self.n_read, self.dropped = 0, Counter[str]()
        drawn: list[tuple[int, int]] = []
        for number, read in table.records(path):
            self.n_read += 1
            try:
                question = _last_question(read(), pairs)
            except DataError:
                self.dropped["no row that trains"] += 1
                continue
            if taken(question):
                self.dropped["asks what was corrected"] += 1
                continue
            digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
            place = -int.from_bytes(digest)  # the n least are kept
            if len(drawn) < n:
                heapq.heappush(drawn, (place, number))
            elif n:
                heapq.heappushpop(drawn, (place, number))
        self._numbers = {number for _, number in drawn}

    @property
    def n(self) -> int:
        """How many were drawn."""
        return len(self._numbers)

    def rows(self) -> Iterator[Any]:
        """They, as they lie, in their order."""
        return (read() for number, read in table.records(self._path) if number in self._numbers)


def _last_question(row: Any, pairs: bool) -> str:
    messages = preferred(row).prompt if pairs else rows.to_messages(row).messages
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
