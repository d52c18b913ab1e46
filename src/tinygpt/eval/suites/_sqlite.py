"""Queries in a process of their own: the database is only read, and time, memory and rows have limits.

Run as a program it answers one JSON line for each on stdin. It imports the standard library alone."""

from __future__ import annotations

import hashlib
import json
import select
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

GRACE = 2.0  # seconds over the limit until a query that does not stop is killed with its process
HEAP, VALUE = 256 << 20, 1 << 20  # bytes that SQLite may hold, and of one value
SHOWN = 3  # rows that a record shows
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}


class Reader:
    """A process that reads databases. A query gets {"verdict": "rows" | "error" | "refused" | "timeout" |
    "too_large" | "crash", "why"?, "rows"?, "ordered"?, "unordered"?}; the last two are hashes of all rows."""

    def __init__(self, *, seconds: float, rows: int) -> None:
        self.seconds, self.rows = seconds, rows
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, db: Path, sql: str) -> dict[str, Any]:
        """What became of a query."""
        self._child = child = self._child or _start()
        assert child.stdin and child.stdout
        asked = {"db": str(db.resolve()), "sql": sql, "seconds": self.seconds, "rows": self.rows}
        try:
            child.stdin.write(json.dumps(asked).encode() + b"\n")
            child.stdin.flush()
            if not select.select([child.stdout], [], [], self.seconds + GRACE)[0]:
                self._end()
                return {"verdict": "timeout", "why": "killed"}
            return json.loads(child.stdout.readline())
        except (OSError, ValueError):
            self._end()
            return {"verdict": "crash", "why": "the process of the query ended"}

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()


def _start() -> subprocess.Popen[bytes]:
    """A process that is ready, so that its start takes nothing from a query's time."""
    child = subprocess.Popen(
        [sys.executable, "-I", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, cwd="/", env={}, start_new_session=True,
    )  # fmt: skip
    assert child.stdout
    child.stdout.readline()
    return child


def connect(path: str) -> sqlite3.Connection:
    """A database that nothing can write to, not even a journal beside it."""
    uri = Path(path).as_uri() + "?mode=ro&immutable=1"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, cached_statements=0)
    connection.text_factory = lambda data: data.decode(errors="replace")
    return connection


def schema(path: Path) -> str:
    """The statements that made the tables."""
    connection = connect(str(path.resolve()))
    try:
        found = connection.execute("select sql from sqlite_master where sql is not null order by rowid")
        return "\n".join(f"{sql};" for (sql,) in found)
    finally:
        connection.close()


def _allow(action: int, first: str | None, second: str | None, *_: object) -> int:
    """Only reading: no pragma, no attached file, no extension, no change."""
    if action in READING:
        return sqlite3.SQLITE_OK
    known = action == sqlite3.SQLITE_FUNCTION and second not in ("load_extension", "fts3_tokenizer")
    return sqlite3.SQLITE_OK if known else sqlite3.SQLITE_DENY


def _answer(db: str, sql: str, seconds: float, rows: int) -> dict[str, Any]:
    connection = connect(db)
    end = time.monotonic() + seconds
    try:
        for pragma in (f"hard_heap_limit={HEAP}", "temp_store=memory", "trusted_schema=off"):
            connection.execute(f"pragma {pragma}").fetchall()
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_progress_handler(lambda: int(time.monotonic() > end), 10_000)
        connection.set_authorizer(_allow)
        return _result(connection.execute(sql), rows)
    except (sqlite3.Error, sqlite3.Warning, MemoryError, ValueError) as error:
        return {"verdict": _verdict(error), "why": str(error)[:200]}
    finally:
        connection.close()


def _result(cursor: sqlite3.Cursor, most: int) -> dict[str, Any]:
    if cursor.description is None:
        return {"verdict": "refused", "why": "this is no query"}
    width = len(cursor.description)
    hashes: list[bytes] = []
    shown: list[list[str]] = []
    for row in cursor:
        cells = [_plain(value) for value in row]
        hashes.append(hashlib.sha256("\0".join(cells).encode()).digest())
        shown += [[cell[:80] for cell in cells]] if len(shown) < SHOWN else []
        if len(hashes) > most:
            return {"verdict": "too_large", "why": f"more than {most} rows"}

    def digest(found: list[bytes]) -> str:
        return hashlib.sha256(f"{width}:".encode() + b"".join(found)).hexdigest()

    return {
        "verdict": "rows", "n_rows": len(hashes), "rows": shown, "ordered": digest(hashes),
        "unordered": digest(sorted(hashes)),
    }  # fmt: skip


def _plain(value: Any) -> str:
    """A value as text with its kind: 1 and 1.0 are one number, and a sum's last bits are none."""
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return f"x{value.hex()}"
    if isinstance(value, str):
        return f"t{value}"
    exact = isinstance(value, int) and abs(value) >= 10**10
    return f"n{value}" if exact else f"n{0.0 + float(f'{value:.10g}'):.10g}"


def _verdict(error: BaseException) -> str:
    told = str(error).lower()
    if "interrupted" in told:
        return "timeout"
    if any(
        part in told for part in ("not authorized", "authorization denied", "prohibited", "one statement")
    ):
        return "refused"
    if isinstance(error, MemoryError) or "too big" in told or "out of memory" in told:
        return "too_large"
    return "error"


def _serve() -> None:
    _say({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        _say(_answer(asked["db"], asked["sql"], asked["seconds"], asked["rows"]))


def _say(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
