"""Safetensors one tensor at a time: headers without the weights, and files written as their tensors come."""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt.core import files
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError, UnsupportedError
from tinygpt.model import checkpoint

# What the format calls a dtype: its MLX name and bytes. Those without a name can be listed, not read.
DTYPES = {
    "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2), "F64": ("", 8),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1),
    "U64": ("uint64", 8), "U32": ("uint32", 4), "U16": ("uint16", 2), "U8": ("uint8", 1),
    "BOOL": ("bool_", 1), "F8_E4M3": ("", 1), "F8_E5M2": ("", 1),
}  # fmt: skip
CODES = {name: code for code, (name, _) in DTYPES.items() if name}
MOST_HEADER = 100 << 20  # bytes; the format's own limit


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: `start` and `end` in bytes from the beginning of the file."""

    file: str
    code: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def dtype(self) -> str:
        """As MLX calls it; as the format does where MLX has none."""
        return DTYPES[self.code][0] or self.code

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        return self.code in ("F32", "F16", "BF16")


def header_length(first: bytes, where: str, total: int) -> int:
    """Bytes of the header after the first eight; refused where the file could not hold it."""
    length = int.from_bytes(first, "little")
    if len(first) != 8 or not 2 <= length <= min(total - 8, MOST_HEADER):
        raise CheckpointError(f"{where} is not a whole safetensors file", hint=checkpoint.AGAIN)
    return length


def entries(header: bytes, where: str, file: str, total: int) -> dict[str, Entry]:
    """The tensors of one file by name, from the header's JSON; each must lie inside its `total` bytes."""
    bad = CheckpointError(f"{where} has a header that makes no sense", hint=checkpoint.AGAIN)
    try:
        data = json.loads(header)
        listed = {n: d for n, d in data.items() if n != "__metadata__"}
        begin = 8 + len(header)
        found = {
            name: Entry(file, d["dtype"], tuple(d["shape"]), *(begin + at for at in d["data_offsets"]))
            for name, d in listed.items()
        }
        for name, entry in found.items():
            if entry.code not in DTYPES:
                raise UnsupportedError(f"{where}: {name} has the unknown dtype {entry.code}")
            if any(n < 0 for n in entry.shape):
                raise bad
            if entry.end - entry.start != entry.size * DTYPES[entry.code][1]:
                raise bad
            if not begin <= entry.start <= entry.end <= total:
                raise bad
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise bad from error
    return found


class Shards:
    """The tensors of a stem in a folder, one file or several; each is read when it is asked for."""

    def __init__(self, folder: Path, stem: str = "model") -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        for path in checkpoint.tensor_files(folder, stem):
            try:
                with path.open("rb") as file:
                    total = path.stat().st_size
                    length = header_length(file.read(8), str(path), total)
                    self.entries |= entries(file.read(length), str(path), path.name, total)
            except OSError as error:
                raise checkpoint.unreadable(path, error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries))

    def read(self, name: str) -> mx.array:
        """One tensor, copied from the disk."""
        import numpy as np

        entry = self.entries[name]
        kind, width = DTYPES[entry.code]
        where = self.folder / entry.file
        if not kind:
            raise UnsupportedError(f"{where}: {name} has the dtype {entry.code}, which MLX does not read")
        # numpy has no bfloat16: its two bytes come as a number of that size.
        raw = "bool" if kind == "bool_" else f"uint{8 * width}" if kind == "bfloat16" else kind
        try:
            flat = np.fromfile(where, raw, count=entry.size, offset=entry.start)
        except OSError as error:
            raise checkpoint.unreadable(where, error) from error
        if flat.size != entry.size:
            raise CheckpointError(f"{where} ends within {name}", hint=checkpoint.AGAIN)
        found = mx.array(flat.reshape(entry.shape))
        return found.view(mx.bfloat16) if kind == "bfloat16" else found

    def bits(self, name: str) -> bytes:
        """A tensor as it lies in its file."""
        entry = self.entries[name]
        with (self.folder / entry.file).open("rb") as file:
            file.seek(entry.start)
            return file.read(entry.end - entry.start)


Plan = Mapping[str, tuple[str, tuple[int, ...]]]  # by name: dtype as MLX calls it, and shape


def write(folder: Path, stem: str, plan: Plan, produce: Callable[[str], mx.array]) -> None:
    """Write the tensors of `plan`, sorted by name, each made by `produce` when its turn comes: memory holds
    one.

    Larger than SHARD_BYTES they are put in shards with an index, as `checkpoint.write_tensors` does."""
    sizes = {n: math.prod(shape) * DTYPES[CODES[dtype]][1] for n, (dtype, shape) in plan.items()}
    groups: list[list[str]] = [[]]
    filled = 0
    for name in sorted(plan):
        if filled and filled + sizes[name] > checkpoint.SHARD_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += sizes[name]
    names = [f"{stem}-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1)]
    names = names if len(groups) > 1 else [f"{stem}.safetensors"]
    for file, group in zip(names, groups, strict=True):
        _write_file(folder / file, {n: plan[n] for n in group}, produce)
    if len(groups) > 1:
        where = {n: file for file, group in zip(names, groups, strict=True) for n in group}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        files.write_json(folder / f"{stem}.safetensors.index.json", index)


def _write_file(path: Path, plan: Plan, produce: Callable[[str], mx.array]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in plan.items():
        size = math.prod(shape) * DTYPES[CODES[dtype]][1]
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if shutil.disk_usage(path.parent).free < at:
        raise files.unwritable(path, OSError(errno.ENOSPC, "no space left"))
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, (dtype, shape) in plan.items():
            made = produce(name)
            assert made.shape == shape and made.dtype == getattr(mx, dtype), (name, made.shape, made.dtype)
            file.write(_bytes(made))


def _bytes(value: mx.array) -> bytes:
    import numpy as np

    return np.array(value.view(mx.uint16) if value.dtype == mx.bfloat16 else value).tobytes()
