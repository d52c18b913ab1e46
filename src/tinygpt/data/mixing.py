"""Sources mixed in proportion and shuffled, on disk: files may be larger than memory.

Rows wait as JSON lines in a temporary file for each source. With weights w_i and n_i rows there, the largest
mix without repetition has m w_i / sum(w) rows of source i, where m = min over i of n_i sum(w) / w_i; which of
them is drawn by the seed (selection sampling). A shuffle puts rows into parts at random, each small enough
for memory, and shuffles the parts: every order is as likely as another.

Paper: Knuth, The Art of Computer Programming, volume 2, section 3.4.2, algorithm S.
"""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tinygpt.core.errors import ConfigError
from tinygpt.core.files import unwritable

PART = 64 << 20  # bytes that are shuffled in memory
PARTS = 256  # at most: each is an open file


class Pile:
    """Rows that wait on disk, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.n, self.n_bytes = folder, 0, 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise unwritable(folder, error) from error

    def add(self, line: bytes) -> None:
        """One more row, as a line without its end."""
        try:
            self.n_bytes += self._file.write(line + b"\n")
        except OSError as error:
            raise unwritable(self._folder, error) from error
        self.n += 1

    def fill(self, rows: Iterable[Any]) -> Pile:
        """All of these rows."""
        for row in rows:
            self.add(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        return self

    def lines(self) -> Iterator[bytes]:
        """The rows again, from the first on."""
        self._file.seek(0)
        for line in self._file:
            yield line.rstrip(b"\n")

    def close(self) -> None:
        """They are gone."""
        self._file.close()


def shares(counts: Sequence[int], weights: Sequence[float], limit: int = 0) -> list[int]:
    """How many rows each source gives: in the proportion of the weights, as many as there are, at most
    `limit` in all. Without weights (all 0) all rows, and of them the first source's first."""
    if not any(weights):
        left, found = limit or sum(counts), list[int]()
        for n in counts:
            found.append(min(n, left))
            left -= found[-1]
        return found
    if any(w <= 0 for w in weights):
        raise ConfigError("some sources have a weight and some have none", hint="give each one a weight")
    total = sum(weights)
    most = min(n * total / w for n, w in zip(counts, weights))
    most = min(most, limit) if limit else most
    return [min(n, round(most * w / total)) for n, w in zip(counts, weights)]


def drawn(pile: Pile, wanted: int, seed: int, name: str) -> Iterator[bytes]:
    """So many rows of a pile, in their order; every choice is as likely as another."""
    draw, left = random.Random(f"{seed}:draw:{name}"), pile.n
    for line in pile.lines():
        if draw.random() * left < wanted:
            wanted -= 1
            yield line
        left -= 1


def shuffled(
    lines: Iterable[bytes], n_bytes: int, seed: int, folder: Path, part: int = PART
) -> Iterator[bytes]:
    """The rows in an order drawn by the seed. `n_bytes` are theirs, about."""
    draw, n_parts = random.Random(f"{seed}:shuffle"), min(PARTS, max(1, -(-n_bytes // part)))
    with contextlib.ExitStack() as closing:
        parts: list[Pile] = []
        for _ in range(n_parts):
            parts.append(Pile(folder))
            closing.callback(parts[-1].close)
        for line in lines:
            parts[draw.randrange(n_parts)].add(line)
        for pile in parts:
            held = list(pile.lines())
            draw.shuffle(held)
            yield from held
