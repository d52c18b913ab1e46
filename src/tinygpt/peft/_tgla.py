"""The original TinyGPT's adapters, `.lora` and `.tgla`: LoRA (version 1), or DoRA (version 2).

    "TGLA" | version u32 | length of the header u32 | header, JSON | for each entry A, B and, with DoRA, m

Numbers are little-endian; A is (in, r) and B (r, out), float32 by rows, and `y = W x + alpha/r (x A) B`. The
file names the sizes of its base, which are all held against the model, but neither its weights nor the
technique: an adapter of rsLoRA, PiSSA, LoftQ, VeRA or AdaLoRA was written as if it were plain LoRA, without
what made it another, and nothing in the file tells (`NOTE`).
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.core.files import beside, fsync, unwritable
from tinygpt.peft import _format, _plain

MAGIC = b"TGLA"
MOST_HEADER = 64 << 20
NOTE = (
    "the original's adapter files do not say which technique made them: one of --rs-lora, --pissa-init, "
    "--loftq, --vera or --adalora-target-rank lost part of itself when saved, and is read as plain LoRA"
)
HINT = "is it the file that the original wrote? copy it again"
# Sizes of the base in the header, and what the model's config calls them.
SIZES = {
    "baseLayers": "num_hidden_layers", "baseDModel": "hidden_size", "baseCtx": "max_position_embeddings",
    "baseHeads": "num_attention_heads", "baseDMlp": "intermediate_size",
}  # fmt: skip
# Names of the from-scratch class, and those of this house, which are Hugging Face's.
OURS = (
    (re.compile(r"^(?:model\.)?blocks\."), "model.layers."), (re.compile(r"^layers\."), "model.layers."),
    (re.compile(r"\.attn\."), ".self_attn."), (re.compile(r"\.mlp\.fc_in$"), ".mlp.up_proj"),
    (re.compile(r"\.mlp\.fc_out$"), ".mlp.down_proj"),
)  # fmt: skip


def is_one(path: Path) -> bool:
    """Whether a file begins as these do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read(path: Path, sizes: Mapping[str, Any]) -> tuple[Pick, dict[str, mx.array]]:
    """The adapter's settings and its tensors under PEFT's names. `sizes`: the base's config, by the names of
    config.json. CheckpointError where the file is damaged, mixed, or of another base."""
    data = path.read_bytes()
    if len(data) < 12:
        raise CheckpointError(f"{path} ends inside its first 12 bytes", hint=HINT)
    magic, version, length = struct.unpack("<4sII", data[:12])
    if magic != MAGIC or version not in (1, 2):
        raise CheckpointError(
            f"{path} is not an adapter of the original: {magic!r}, version {version}",
            hint="versions 1 and 2 are read",
        )
    if length > min(MOST_HEADER, len(data) - 12):
        raise CheckpointError(f"{path}: its header of {length} bytes is not all there", hint=HINT)
    try:
        header = json.loads(data[12 : 12 + length].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header is not JSON: {error}", hint=HINT) from error
    rank, alpha, entries = _checked(path, header)
    _refuse_other_base(path, header, sizes)
    dora = ["loraMShape" in e and e["loraMShape"] is not None for e in entries]
    if any(dora) and not (all(dora) and version == 2):
        which = "mixes DoRA and plain entries" if not all(dora) else "holds DoRA in version 1"
        raise CheckpointError(f"{path} {which}", hint="the original refuses such a file too")
    found: dict[str, mx.array] = {}
    names: list[str] = []
    payload = memoryview(data)[12 + length :]
    at = 0
    for entry in entries:
        name = ours(entry["name"])
        names.append(name)
        n_in, n_out = entry["loraAShape"][0], entry["loraBShape"][1]
        shapes: dict[str, tuple[int, ...]] = {"lora_A.weight": (n_in, rank), "lora_B.weight": (rank, n_out)}
        if any(dora):
            shapes["lora_magnitude_vector"] = (n_out,)
        for inner, shape in shapes.items():
            size = 4 * math.prod(shape)
            if at + size > len(payload):
                raise CheckpointError(f"{path} ends inside {entry['name']}", hint=HINT)
            value = _array(payload[at : at + size], shape)
            found[f"{_format.PREFIX}{name}.{inner}"] = value.T if len(shape) == 2 else value
            at += size
    if at != len(payload):
        raise CheckpointError(f"{path} has {len(payload) - at} bytes after its last entry", hint=HINT)
    if len(set(names)) < len(names):
        raise CheckpointError(f"{path} names a matrix twice", hint=HINT)
    try:
        return Pick(
            "dora" if any(dora) else "lora", {"rank": rank, "alpha": alpha, "targets": tuple(names)}
        ), found
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error.message}", hint=error.hint) from error


def ours(name: str) -> str:
    """The name of a matrix here: `blocks.0.attn.q_proj` and `layers.0.self_attn.q_proj` are one."""
    for pattern, new in OURS:
        name = pattern.sub(new, name)
    return name


def _checked(path: Path, header: Any) -> tuple[int, float, list[dict[str, Any]]]:
    """Rank, alpha and entries of a header, each of the form that it must have."""
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: its header is not an object", hint=HINT)
    rank, alpha, entries = header.get("rank"), header.get("alpha"), header.get("entries")
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank < 1 << 16:
        raise CheckpointError(f"{path}: rank cannot be {rank!r}", hint=HINT)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 1e9:
        raise CheckpointError(f"{path}: alpha cannot be {alpha!r}", hint=HINT)
    if not isinstance(entries, list) or not entries:
        raise CheckpointError(f"{path} holds no entry", hint=HINT)
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise CheckpointError(f"{path}: an entry has no name", hint=HINT)
        a, b, m = (entry.get(key) for key in ("loraAShape", "loraBShape", "loraMShape"))
        shapes: Any = (a, b)
        fits = _sizes(a, 2) and _sizes(b, 2) and shapes[0][1] == rank == shapes[1][0]
        if not fits or not (m is None or m == shapes[1][1:]):
            raise CheckpointError(
                f"{path}: {entry['name']} has the shapes {a}, {b}, {m}, and rank {rank}", hint=HINT
            )
    return rank, float(alpha), entries


def _sizes(value: Any, n: int) -> bool:
    whole = isinstance(value, list) and all(type(size) is int and 0 < size < 1 << 31 for size in value)
    return whole and len(value) == n


def _refuse_other_base(path: Path, header: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
    for key, name in SIZES.items():
        if key not in header:
            raise CheckpointError(f"{path} does not say {key} of its base", hint=HINT)
        if header[key] != sizes[name]:
            raise CheckpointError(
                f"{path} was trained on a base with {key} {header[key]}; this one has {sizes[name]}",
                hint="give the base that it was trained on",
            )


def _array(data: memoryview, shape: tuple[int, ...]) -> mx.array:
    import numpy as np

    return mx.array(np.frombuffer(data, "<f4").reshape(shape).astype(np.float32))


def write(path: Path, plain: _plain.Plain, sizes: Mapping[str, Any]) -> Path:
    """A file that the original opens, beside a base of these sizes. Names are those of its Hugging Face
    class."""
    import numpy as np

    entries: list[dict[str, Any]] = []
    payload: list[bytes] = []
    for name, (a, b) in sorted(plain.pairs.items()):
        if a.ndim != 2 or "embed" in name:
            raise ConfigError(f"{name} has no place in the original's format", hint="use --format peft")
        entry = {
            "name": name.removeprefix("model."),
            "loraAShape": list(a.T.shape),
            "loraBShape": list(b.T.shape),
        }
        parts = [a.T, b.T]
        if name in plain.lengths:
            parts.append(plain.lengths[name])
            entry["loraMShape"] = list(plain.lengths[name].shape)
        entries.append(entry)
        payload += [np.ascontiguousarray(np.array(w.astype(mx.float32)), "<f4").tobytes() for w in parts]
    header = {
        "rank": plain.rank, "alpha": plain.scale * plain.rank, "entries": entries,
        "targetSuffixes": sorted({e["name"].rsplit(".", 1)[-1] for e in entries}),
        **{key: sizes[name] for key, name in SIZES.items()},
    }  # fmt: skip
    text = json.dumps(header).encode()
    start = struct.pack("<4sII", MAGIC, 2 if plain.lengths else 1, len(text))
    work = beside(path)
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        work.write_bytes(start + text + b"".join(payload))
        fsync(work)
        work.replace(path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise unwritable(path, error) from error
    return path
