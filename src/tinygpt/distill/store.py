"""What a teacher finds likely, kept on disk: the k likeliest tokens of each place, in about 3 k bytes.

A place holds k ids, likeliest first, in as few bytes as an id of the vocabulary takes (1, 2, 3 or 4), a byte
for the log-probability of each, and two float16: s, the largest of these costs, and the log of what all other
tokens share. Costs are c_i = -log(p_i / sum_K p), among the k, on a scale of squares, which is finest where
probability is:

    b_i = round(255 sqrt(c_i / s)),   c_i ~ s (b_i / 255)^2,   error <= sqrt(c_i s) / 255 + s / (4 * 255^2)

and at most 1/2048 of s more, from its own rounding. What is read sums to 1 with the others again.

A row of a batch is known by a hash of what the teacher reads and of which places count, so any order,
packing, mixture or width of padding finds it. A shard is a directory of many rows, written whole and never
changed; a damaged one is left out, and its rows are asked for again.
Differs: the tail is kept as one number; Peng et al. 2024 (arXiv:2410.16215) drop it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.core.files import atomic_directory, peek_json, recover, remove_directory, sha256, write_json
from tinygpt.data.cache import content_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tinygpt.data.batch import Batch

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int32]

VERSION = 1
LEVELS = 255
LEAST = 1e-9  # of what the others share
PLACES = 1 << 16  # of a shard
FILES = ("rows.bin", "starts.bin", "ids.bin", "levels.bin", "scales.bin")
MEASURED, SHARDS = "measured.json", "shards"


@dataclass(frozen=True, kw_only=True)
class Key:
    """What decides every number of a store. `teacher` and `tokenizer` are hashes, `vocabulary` is the number
    of ids over which probabilities sum to 1."""

    teacher: str
    tokenizer: str
    vocabulary: int
    temperature: float = 1.0
    k: int = 64

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"top_k must be at least 1, got {self.k}")
        object.__setattr__(self, "k", min(self.k, self.vocabulary))

    @property
    def name(self) -> str:
        """Of the store's folder."""
        text = json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def id_bytes(self) -> int:
        """Bytes of an id."""
        return max(1, (int(self.vocabulary - 1).bit_length() + 7) // 8)


@dataclass(frozen=True)
class Places:
    """P places of a row: ids (P, K), likeliest first, their log-probabilities (P, K) and whether anything is
    known of the place (P,)."""

    ids: Ints
    log_p: Floats
    known: NDArray[np.bool_]


def row_hash(batch: Batch, b: int, counts: NDArray[np.bool_]) -> bytes:
    """16 bytes of what a teacher reads of row b, and of the places (L,) that count. Padding does not."""
    import numpy as np

    real = np.flatnonzero(batch.segments[b])
    n = int(real[-1]) + 1 if len(real) else 0
    found = hashlib.blake2b(f"{VERSION} {n}".encode(), digest_size=16)
    for part in (batch.tokens[b, :n], batch.segments[b, :n], counts[:n]):
        found.update(np.ascontiguousarray(part, "<i4").tobytes())
    return found.digest()


def pack(places: Places, id_bytes: int) -> dict[str, bytes]:
    """ids, levels and scales of places, as they are kept."""
    import numpy as np

    log_p = places.log_p.astype(np.float64)
    kept = np.exp(log_p).sum(-1)
    cost = np.maximum(np.log(kept)[:, None] - log_p, 0.0)
    scales = np.stack([cost.max(-1), np.log(np.maximum(1 - kept, LEAST))], -1).astype("<f2")
    scales[~places.known] = np.nan
    scale = np.maximum(np.nan_to_num(scales[:, :1].astype(np.float64)), 1e-6)
    levels = np.clip(np.rint(LEVELS * np.sqrt(cost / scale)), 0, LEVELS).astype(np.uint8)
    wide = np.ascontiguousarray(places.ids, "<u4").view(np.uint8).reshape(*places.ids.shape, 4)
    ids = np.ascontiguousarray(wide[..., :id_bytes])
    return {"ids.bin": ids.tobytes(), "levels.bin": levels.tobytes(), "scales.bin": scales.tobytes()}


def unpack(ids: NDArray[np.uint8], levels: NDArray[np.uint8], scales: NDArray[Any]) -> Places:
    """Places of ids (P, K, bytes), levels (P, K) and scales (P, 2)."""
    import numpy as np

    known = ~np.isnan(scales[:, 0])
    scale, rest = np.nan_to_num(scales.astype(np.float64)).T
    cost = scale[:, None] * (levels / LEVELS) ** 2
    among = -cost - np.log(np.exp(-cost).sum(-1, keepdims=True))
    kept = np.log(np.maximum(-np.expm1(rest), LEAST))
    wide = np.zeros((*levels.shape, 4), np.uint8)
    wide[..., : ids.shape[-1]] = ids
    found = wide.view("<u4")[..., 0].astype(np.int32)
    return Places(found, (among + kept[:, None]).astype(np.float32), known)


def packed(places: Places, id_bytes: int) -> Places:
    """The same as they are once they were kept."""
    import numpy as np

    parts = pack(places, id_bytes)
    p, k = places.ids.shape
    return unpack(
        np.frombuffer(parts["ids.bin"], np.uint8).reshape(p, k, id_bytes),
        np.frombuffer(parts["levels.bin"], np.uint8).reshape(p, k),
        np.frombuffer(parts["scales.bin"], "<f2").reshape(p, 2),
    )


class Shard:
    """Rows of one directory, memory-mapped. ValueError, OSError, KeyError or TypeError: it is damaged."""

    def __init__(self, path: Path, key: Key, *, check: bool = True) -> None:
        import numpy as np

        header = json.loads((path / "header.json").read_text(encoding="utf-8"))
        for name in FILES:
            wanted = header["files"][name]
            if (path / name).stat().st_size != wanted["bytes"]:
                raise ValueError(f"{name} has the wrong size")
            if check and content_hash(path / name) != wanted["sha256"]:
                raise ValueError(f"{name} has the wrong hash")
        raw = (path / "rows.bin").read_bytes()
        self.rows = [raw[at : at + 16] for at in range(0, len(raw), 16)]
        self.starts = np.frombuffer((path / "starts.bin").read_bytes(), "<i8")
        p = int(self.starts[-1])

        def mapped(name: str, dtype: str, *shape: int) -> Any:
            kept = (path / name).stat().st_size > 0
            return np.memmap(path / name, dtype, "r", shape=shape) if kept else np.zeros(shape, dtype)

        self.ids = mapped("ids.bin", "u1", p, key.k, key.id_bytes)
        self.levels = mapped("levels.bin", "u1", p, key.k)
        self.scales = mapped("scales.bin", "<f2", p, 2)
        self.n_bytes = sum(file.stat().st_size for file in path.iterdir())

    def read(self, r: int) -> Places:
        a, z = int(self.starts[r]), int(self.starts[r + 1])
        return unpack(self.ids[a:z], self.levels[a:z], self.scales[a:z])


class Store:
    """All shards of a key below a folder. One process at a time may `add`; any may read beside it."""

    def __init__(self, folder: Path, key: Key, events: Events | None = None) -> None:
        self.key, self.path = key, folder / key.name
        self.shards: list[Shard] = []
        self.at: dict[bytes, tuple[int, int]] = {}
        self._damaged: list[Path] = []
        self._names = set[str]()
        self._waiting: list[tuple[bytes, Places]] = []
        self._n_waiting = 0
        self.look(events)

    def look(self, events: Events | None = None) -> None:
        """Take in the shards that are there and were not before; damaged ones are noted."""
        folder = self.path / SHARDS
        for path in sorted(folder.glob("[0-9]*")) if folder.is_dir() else ():
            if path.name in self._names or path in self._damaged:
                continue
            recover(path)
            try:
                self._take(path)
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._damaged.append(path)
                if events is not None:
                    events.note(f"{path} is damaged ({error}): its rows are asked for again", "warning")

    def _take(self, path: Path, *, check: bool = True) -> None:
        shard = Shard(path, self.key, check=check)
        self._names.add(path.name)
        self.shards.append(shard)
        self.at |= {row: (len(self.shards) - 1, r) for r, row in enumerate(shard.rows)}

    def __contains__(self, row: bytes) -> bool:
        return row in self.at

    def read(self, row: bytes) -> Places:
        """KeyError: it is not there."""
        shard, r = self.at[row]
        return self.shards[shard].read(r)

    def add(self, row: bytes, places: Places, *, most: int = PLACES) -> bool:
        """Keep a row; returns whether a shard became full and was written."""
        self._waiting.append((row, places))
        self._n_waiting += len(places.ids)
        return self._n_waiting >= most and self.flush()

    def flush(self) -> bool:
        """Write what waits as a shard; returns whether anything did."""
        import numpy as np

        if not self._waiting:
            return False
        for path in self._damaged:
            remove_directory(path)
        self._damaged = []
        told = {"version": VERSION, **asdict(self.key)}
        if peek_json(self.path / "key.json") != told:
            write_json(self.path / "key.json", told)
        number = 1 + max((int(name) for name in self._names), default=-1)
        sizes = [len(places.ids) for _, places in self._waiting]
        given = [places for _, places in self._waiting]
        joined = [np.concatenate([getattr(p, name) for p in given]) for name in ("ids", "log_p", "known")]
        every = Places(joined[0], joined[1], joined[2])
        parts = pack(every, self.key.id_bytes)
        parts["rows.bin"] = b"".join(row for row, _ in self._waiting)
        parts["starts.bin"] = np.cumsum([0, *sizes]).astype("<i8").tobytes()
        path = self.path / SHARDS / f"{number:06d}"
        with atomic_directory(path) as folder:
            for name in FILES:
                (folder / name).write_bytes(parts[name])
            files = {n: {"bytes": len(parts[n]), "sha256": sha256(folder / n)} for n in FILES}
            header = {"version": VERSION, "rows": len(sizes), "places": sum(sizes), "files": files}
            write_json(folder / "header.json", header)
        self._waiting, self._n_waiting = [], 0
        self._take(path, check=False)
        return True

    @property
    def n_places(self) -> int:
        return sum(int(shard.starts[-1]) for shard in self.shards)

    def facts(self) -> dict[str, Any]:
        """Size, and the error that was measured while it was built: {} of that where nothing was."""
        found: dict[str, Any] = {
            "rows": len(self.at), "places": self.n_places, "shards": len(self.shards), "k": self.key.k,
            "bytes": sum(shard.n_bytes for shard in self.shards),
        }  # fmt: skip
        each = found["bytes"] / max(1, found["places"])
        found |= {"bytes_per_place": round(each, 2)}
        found |= {"share_of_dense": round(each / (4 * self.key.vocabulary), 6)}
        sums = peek_json(self.path / MEASURED)
        if n := sums.get("n"):
            found["measured"] = n
            found |= {name: round(sums[name] / n, 7) for name in ("tail", "kl_events", "kl_spread")}
        return found


def fitting(folder: Path, **wanted: Any) -> list[Key]:
    """The keys of stores below a folder that have these values."""
    found = list[Key]()
    for path in sorted(folder.glob("*/key.json")):
        told = peek_json(path)
        try:
            version, key = told.pop("version"), Key(**told)
        except (KeyError, TypeError):
            continue
        if version == VERSION and all(getattr(key, name) == value for name, value in wanted.items()):
            found.append(key)
    return found
