"""Log-probabilities under the reference model: computed once, before anything learns, and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core import backend, files
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.core.events import Events, Progress
from tinygpt.model import checkpoint
from tinygpt.runs import _pieces
from tinygpt.train.preference._objective import answers, halves
from tinygpt.train.state import arrays
from tinygpt.train.world import World

if TYPE_CHECKING:
    from tinygpt.data.source.pairs import PairSource
    from tinygpt.model.lm import LM
    from tinygpt.runs._tuned import Opened

VERSION = 1
TOKENS = 1 << 13  # tokens computed at once


def fill(
    source: PairSource, model: LM, identity: str, *, dtype: str | None, events: Events, world: World
) -> bool:
    """Give the source, and its held-out part, the log-probabilities of all answers under `model` as it
    stands; returns whether they were there already.

    `identity` says what the model is: with how its weights are held and the tokens it names the file.
    `dtype`: weights are read in it, where that is not their own."""
    parts = [part for part in (source, source.held_out) if part is not None]
    key = hashlib.sha256(f"{VERSION} {identity} {_pieces.held(model)} {dtype or ''}".encode())
    for part in parts:
        for example in part.packed.examples:
            for answer in (example.first, example.second):
                key.update(repr((answer.ids, answer.learn)).encode())
    path = files.cache_dir("reference") / f"{key.hexdigest()[:32]}.json"
    sizes = [len(part.packed) for part in parts]
    kept = _read(path, sum(sizes), events) if world.leads else None
    found = bool(world.first(int(kept is not None)))
    if found:
        flat = kept or [0.0] * (2 * sum(sizes))
        values = world.total(flat) if world.size > 1 else flat
    else:
        values = _computed(parts, model, dtype, events, world)
        if world.leads:
            files.write_json(path, {"version": VERSION, "values": values})
    at = 0
    for part, n in zip(parts, sizes, strict=True):
        part.packed.references[:] = _pairs(values[2 * at : 2 * (at + n)])
        at += n
    return found


def _pairs(values: Sequence[float]) -> Any:
    import numpy as np

    return np.array(values, np.float32).reshape(-1, 2)


def _read(path: Any, n: int, events: Events) -> list[float] | None:
    """What was kept; None where nothing was or, with a note, where it is damaged."""
    if not path.exists():
        return None
    found = files.peek_json(path).get("values")
    if isinstance(found, list) and len(found) == 2 * n and all(isinstance(v, float) for v in found):
        return found
    events.note(f"{path} is damaged; the reference's log-probabilities are computed again", level="warning")
    return None


def _computed(
    parts: Sequence[PairSource], model: LM, dtype: str | None, events: Events, world: World
) -> list[float]:
    """Rows of like widths together; of several processes each takes some."""
    own: list[Any] = list(tree_flatten(model.parameters()))
    if dtype is not None:
        cast = [
            (n, w.astype(getattr(mx, dtype)) if mx.issubdtype(w.dtype, mx.floating) else w) for n, w in own
        ]
        model.update(tree_unflatten(cast))
    values: list[float] = []
    total, done = sum(len(part.packed) for part in parts), 0
    for part in parts:
        found = _pairs([0.0] * (2 * len(part.packed)))
        order = sorted(range(len(part.packed)), key=lambda r: -part.packed.examples[r].width)
        groups: list[list[int]] = []
        for r in order:
            rows = max(1, TOKENS // (2 * part.packed.examples[groups[-1][0] if groups else r].width))
            if not groups or len(groups[-1]) >= rows:
                groups.append([])
            groups[-1].append(r)
        for i, group in enumerate(groups):
            if i % world.size == world.rank:
                found[group] = _scores(model, part, group)
            done += len(group)
            if world.leads:
                events.emit(Progress(task="reference", done=done, total=total, unit="rows"))
        values += found.reshape(-1).tolist()
    if dtype is not None:
        model.update(tree_unflatten(own))
    if bad := sum(v != v or abs(v) == float("inf") for v in values):
        raise CheckpointError(
            f"the reference model gives no finite log-probability to {bad} answers",
            hint="try --dtype float32, or look at the model's weights",
        )
    return world.total(values)


def _scores(model: LM, part: PairSource, group: Sequence[int]) -> Any:
    """(rows, 2) sums of log p; on CPUs each core takes some rows."""
    import numpy as np

    batch = arrays(part.batch_of(group))
    lanes = backend.streams(len(group))
    sums: list[mx.array] = []
    with backend.shards(lanes):
        for i, lane in enumerate(lanes):
            with mx.stream(lane):
                mine = {name: value[i :: len(lanes)] for name, value in batch.items()}
                sums.append(answers(model, halves(mine))[0].reshape(-1, 2).astype(mx.float32))
        mx.eval(sums)
    found = np.zeros((len(group), 2), np.float32)
    for i, one in enumerate(sums):
        found[i :: len(lanes)] = np.array(one)
    return found


def refer(
    source: PairSource,
    opened: Opened,
    reference: Path | None,
    inputs: dict[str, str],
    *,
    dtype: str | None,
    events: Events,
    world: World,
) -> bool:
    """Fill in what the reference model says of all answers; returns whether that was known already.

    It is the model as it starts, or the one at `reference`, whose hash joins `inputs`. The base is in memory
    once: it is read before the adapter is put on it, or before its weights move."""
    if reference is None:
        who = f"{inputs['the base model']} {inputs.get('the start adapter', '')}"
        return fill(source, opened.model, who, dtype=dtype, events=events, world=world)
    path = _pieces.model_path(reference)
    below = _pieces.base_of(path)  # of an adapter
    loaded, tokenizer = _pieces.open_model(below or path, path if below else None)
    if tokenizer.hash != opened.tokenizer.hash:
        raise ConfigError(
            f"--reference {reference} has another tokenizer than the base {opened.base}",
            hint="its log-probabilities of the same ids would mean nothing: choose one of the same family",
        )
    inputs["the reference model"] = who = checkpoint.identity(loaded.path) + (
        adapter_hash(path) if below else ""
    )
    return fill(source, loaded.model, who, dtype=None, events=events, world=world)


def adapter_hash(path: Path) -> str:
    """One hash of an adapter's weights and settings."""
    found = [path / "adapter_config.json", *sorted(path.glob("adapter_model*.safetensors"))]
    return hashlib.sha256("".join(map(files.sha256, found)).encode()).hexdigest()
