"""Finding duplicates: sketch everything once, compare what may be alike, choose what is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data import near, ngram
from tinygpt.data.sketch import Sketch, Sketcher
from tinygpt.data.spread import cores, spread
from tinygpt.runs import _dedupe_units as units

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
CHUNK = 1000  # texts that are sketched together,
LETTERS = 1 << 20  # unless they are long
PLACE = [("of", "i4"), ("number", "i8"), ("score", "f8")]
WORTH = 1 << 24  # bytes of input that are worth starting processes for


class Read:
    """Every unit that was read, in order: where it was and what its sketch is. Of the texts nothing stays."""

    def __init__(self, files: list[Path], unit: str, where: NDArray[np.void], sketch: Sketch) -> None:
        """`where` has the file, the number and the score of each; see PLACE."""
        import numpy as np

        self.files, self.unit, self.sketch = files, unit, sketch
        self.of, self.numbers, self.scores = (np.ascontiguousarray(where[name]) for name, _ in PLACE)
        self.overlaps: dict[int, dict[int, str]] = {}
        self.bad: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self.numbers)

    def place(self, i: int) -> dict[str, Any]:
        """Where a unit is, for a report."""
        name = {"row": "row", "file": "file"}.get(self.unit, "line")
        file = str(self.files[self.of[i]])
        return {"file": file} | ({} if self.unit == "file" else {name: int(self.numbers[i])})


def read(
    files: list[Path], unit: str, field: str, score: str, sketcher: Sketcher, workers: int, events: Events
) -> Read:
    """Sketch every unit; DataError where there is none."""
    import numpy as np

    bad: list[tuple[str, str]] = []
    found = units.units(files, unit, field, score, sketcher.evaluation is not None, bad)
    places: list[NDArray[Any]] = []
    parts: list[Sketch] = []
    total = sum(file.stat().st_size for file in files)
    workers = workers or (min(cores(), 8) if total >= WORTH else 1)
    overlaps: dict[int, dict[int, str]] = {}
    n = 0

    def given() -> Iterator[list[tuple[str, str]]]:
        for chunk in _chunks(found, lambda one: len(one.text) + len(one.whole)):
            where = [(one.file, one.number, one.score) for one in chunk]
            places.append(np.array(where, PLACE))
            yield [(one.text, one.whole) for one in chunk]

    for sketch in spread(sketcher.__call__, given(), workers):
        overlaps |= {n + i: met for i, met in enumerate(sketch.overlaps) if met}
        n += len(sketch.lengths)
        parts.append(sketch._replace(overlaps=[]))
        events.emit(Progress(task="read", done=n, total=0, unit="texts"))
    if not n:
        why = f"; {bad[0][0]}: {bad[0][1]}" if bad else ""
        raise DataError(f"there is no text to compare in {files[0]}{why}", hint="check the file, and --field")
    names = ("prints", "keys", "lengths", "worded")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    made = Read(files, unit, np.concatenate(places), Sketch(**columns, overlaps=[]))
    made.overlaps, made.bad = overlaps, bad
    if score and not np.isfinite(made.scores).any():
        raise DataError(f"no row has a number '{score}'", hint="give --score-field the name of one")
    return made


def _chunks(found: Iterable[T], letters: Callable[[T], int]) -> Iterator[list[T]]:
    """Things together, few where they are long."""
    chunk: list[T] = []
    n = 0
    for one in found:
        chunk.append(one)
        n += letters(one)
        if len(chunk) == CHUNK or n >= LETTERS:
            yield chunk
            chunk, n = [], 0
    if chunk:
        yield chunk


class Clusters:
    """Which units are one: `groups` over all, `first` the first unit of each text, `sets` the shingles of
    those that were compared."""

    def __init__(self, groups: near.Groups, first: NDArray[np.int64]) -> None:
        self.groups, self.first = groups, first
        self.sets: near.Sets | None = None
        self.n_compared = self.n_left_out = 0

    def similarity(self, i: int, j: int) -> float:
        """Of two units of one cluster: 1 for equal texts."""
        i, j = int(self.first[i]), int(self.first[j])
        return 1.0 if i == j or self.sets is None else self.sets.jaccard(i, j)


def exact(of: Read, alive: NDArray[np.bool_]) -> Clusters:
    """Units with the same fingerprint are one."""
    import numpy as np

    prints, chosen = of.sketch.prints, np.flatnonzero(alive)
    order = chosen[np.lexsort((prints[chosen, 1], prints[chosen, 0]))]
    new = np.ones(len(order), np.bool_)
    new[1:] = (prints[order[1:]] != prints[order[:-1]]).any(axis=1)
    first = np.arange(len(of))
    first[order] = order[new][np.cumsum(new) - 1] if len(order) else order
    groups = near.Groups(len(of))
    for i in np.flatnonzero(first != np.arange(len(of))).tolist():
        groups.join(int(first[i]), i)
    return Clusters(groups, first)


@contextlib.contextmanager
def sets(of: Read, folder: Path) -> Generator[near.Sets]:
    """Room for the shingles of units that are compared, in a folder; it is gone afterwards."""
    room = near.Sets(len(of), folder)
    try:
        yield room
    finally:
        room.close()


def alike(
    of: Read, clusters: Clusters, alive: NDArray[np.bool_], sketcher: Sketcher, field: str, threshold: float,
    events: Events,
) -> None:  # fmt: skip
    """Join near duplicates: units that share a band are read again and compared by their shingles."""
    import numpy as np

    chosen = np.flatnonzero(alive & (clusters.first == np.arange(len(of))) & of.sketch.worded)
    mask = near.candidates(of.sketch.keys, chosen)
    total, n = int(mask.sum()), 0
    assert clusters.sets is not None
    again = units.picked(of.files, of.unit, of.of, of.numbers, mask)
    texts = ((i, ngram.normal(units.text_in(item, field), sketcher.normalise)) for i, item in again)
    for batch in _chunks(texts, lambda one: len(one[1])):
        hashes, offsets = sketcher.shingles([text for _, text in batch])
        for place, (i, _) in enumerate(batch):
            clusters.sets.add(i, hashes[offsets[place] : offsets[place + 1]])
        n += len(batch)
        events.emit(Progress(task="candidates", done=n, total=total, unit="texts"))
    clusters.n_compared, clusters.n_left_out = near.cluster(
        of.sketch.keys, chosen, clusters.sets.jaccard, threshold, clusters.groups,
        lambda band: events.emit(Progress(task="compare", done=band, total=sketcher.bands, unit="bands")),
    )  # fmt: skip


def grouped(clusters: Clusters, alive: NDArray[np.bool_]) -> list[list[int]]:
    """The clusters of two and more, members in order, by their first."""
    found: dict[int, list[int]] = {}
    for i in alive.nonzero()[0].tolist():
        root = clusters.groups.root(i)
        if root != i:
            found.setdefault(root, [root]).append(i)
    return [found[root] for root in sorted(found)]


def best(of: Read, keep: str) -> Callable[[Sequence[int]], int]:
    """Which of a cluster stays; the first among equals."""
    import numpy as np

    by = {"first": np.zeros(len(of)), "longest": of.sketch.lengths, "best": of.scores}
    values = by[keep]
    return lambda members: max(members, key=lambda i: (values[i], -i))
