"""The teacher's cache of a run: filled before training begins, so that training holds no teacher.

What is in it already is not asked again, of whatever run: rows are found by their content. Of processes that
fill one cache at the same time one does, and the others wait.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tinygpt.core import files
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, Progress
from tinygpt.core.lock import only_one
from tinygpt.distill import cached
from tinygpt.distill.cached import Cached, CachedTeacher
from tinygpt.distill.likeliest import Likeliest
from tinygpt.distill.store import Key, Places, Store, fitting, row_hash
from tinygpt.runs import _remote_teacher, _teacher
from tinygpt.runs._teaching import AUTO, Teaching
from tinygpt.train.state import arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tinygpt.data.batch import Batch
    from tinygpt.data.source._source import Source
    from tinygpt.data.tokenizer._protocol import Tokenizer

TOKENS = 1 << 13  # read at once
VALUES = 1 << 25  # log-probabilities that are in memory at once


class Reader(Protocol):
    """Asks a teacher for the places (B, L) of rows that count."""

    def __call__(self, rows: Any, counts: NDArray[np.bool_]) -> list[Places]: ...


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A store that has all rows of a run."""

    store: Store
    taught: _teacher.Taught
    prompts: bool

    def wrap(self, source: Source) -> Any:
        """The source with what the store says."""
        return Cached(source, self.store, prompts=self.prompts)


def filled(
    asked: Teaching,
    source: Source,
    tokenizer: Tokenizer,
    *,
    temperature: float,
    steps: int,
    held_out: int,
    prompts: bool,
    events: Events,
) -> Kept:
    """The store for this run, with every row of its first `steps` steps and of `held_out` batches (0: all)
    of the held-out part. A teacher is opened only where some are missing."""
    folder = files.cache_dir("teacher") if asked.cache_teacher in (None, AUTO) else asked.cache_teacher
    assert folder is not None
    key, teach = _who(asked, folder, tokenizer, temperature, events)
    store = Store(folder, key, events)

    def read() -> Iterator[Batch]:
        yield from cached.read(source, steps)
        yield from cached.read_held_out(source.held_out, held_out)

    if _missing(store, read(), prompts):
        _fill(store, teach, read, prompts, events)
    facts = store.facts()
    events.note(told(facts))
    inputs = {"the teacher": f"{key.teacher} {key.name}"}
    taught = _teacher.Taught(
        teacher=CachedTeacher(key.vocabulary), inputs=inputs, facts={"teacher_cache": facts}
    )
    return Kept(store=store, taught=taught, prompts=prompts)


def _who(
    asked: Teaching, folder: Path, tokenizer: Tokenizer, temperature: float, events: Events
) -> tuple[Key, Callable[[Key], Reader]]:
    """The key of a teacher that is not opened yet, and what opens it."""
    same: dict[str, Any] = {
        "tokenizer": tokenizer.hash, "vocabulary": tokenizer.vocab_size, "temperature": temperature,
    }  # fmt: skip
    if asked.teacher_url:
        if temperature != 1:
            raise ConfigError(
                "an endpoint tells log-probabilities at temperature 1 alone", hint="leave --temperature out"
            )
        ask = _remote_teacher.Endpoint(asked.teacher_url, asked.teacher_model, tokenizer, asked.top_k, events)
        return Key(teacher=f"{ask.client.url} {ask.model}", k=asked.top_k, **same), lambda _: ask
    if asked.teacher is None:
        k = min(asked.top_k, tokenizer.vocab_size)
        found = fitting(folder, k=k, **same)
        if len(found) != 1:
            raise ConfigError(
                f"there is no teacher, and {folder} has {len(found)} caches with k {k}, temperature "
                f"{temperature:g} and this tokenizer",
                hint="give --teacher a model, and --cache-teacher the folder of a cache for this student",
            )
        return found[0], _nobody
    path, adapters = asked.teacher, asked.teacher_adapter
    who = _teacher.identity(path, adapters, tokenizer)

    def opened(key: Key) -> Reader:
        found = _teacher.opened(path, adapters, tokenizer, events).teacher
        assert isinstance(found, _teacher.LocalTeacher)
        return Likeliest(found.model, key)

    return Key(teacher=who, k=asked.top_k, **same), opened


def _nobody(key: Key) -> Reader:
    raise ConfigError(
        "the cache lacks rows of this run, and there is no teacher to ask", hint="give --teacher a model"
    )


def _missing(store: Store, batches: Iterator[Batch], prompts: bool) -> int:
    """How many different rows are not in the store."""
    return sum(1 for _ in _rows(store, batches, prompts))


def _rows(
    store: Store, batches: Iterator[Batch], prompts: bool
) -> Iterator[tuple[bytes, Batch, int, NDArray[np.bool_]]]:
    """Those rows one by one, each once: (hash, batch, number in it, the places that count)."""
    seen = set[bytes]()
    for batch in batches:
        counts = cached.counts(batch, prompts)
        for b in range(len(counts)):
            if not counts[b].any():
                continue
            row = row_hash(batch, b, counts[b])
            if row not in store and row not in seen:
                seen.add(row)
                yield row, batch, b, counts[b]


def _fill(
    store: Store,
    teach: Callable[[Key], Reader],
    read: Callable[[], Iterator[Batch]],
    prompts: bool,
    events: Events,
) -> None:
    def busy() -> None:
        events.note("another process asks this teacher for its cache: waiting for it")

    with only_one(store.path.with_name(f".{store.path.name}.lock"), busy):
        store.look()
        total, done = _missing(store, read(), prompts), 0
        if not total:
            return  # somebody did it meanwhile
        reader = teach(store.key)
        if isinstance(reader, Likeliest):
            reader.begin(store.path)
        try:
            for group in _groups(_rows(store, read(), prompts), store.key.vocabulary):
                for (row, *_), places in zip(group, _asked(reader, group), strict=True):
                    if store.add(row, places) and isinstance(reader, Likeliest):
                        reader.keep(store.path)
                done += len(group)
                events.emit(Progress(task="teacher", done=done, total=total, unit="rows"))
        finally:  # what was answered is kept, whatever ends this
            if store.flush() and isinstance(reader, Likeliest):
                reader.keep(store.path)
        if isinstance(reader, _remote_teacher.Endpoint):
            reader.end()
    del reader
    gc.collect()
    mx.clear_cache()


def _groups(rows: Iterator[Any], vocabulary: int) -> Iterator[list[Any]]:
    """Rows of one width that are read together."""
    group: list[Any] = []
    for row in rows:
        width = row[1].shape[1]
        if group and (
            width != group[0][1].shape[1] or (len(group) + 1) * width > min(TOKENS, VALUES // vocabulary)
        ):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _asked(reader: Reader, group: list[Any]) -> list[Places]:
    import numpy as np

    kind = type(group[0][1])
    names = [f.name for f in fields(kind)]
    batch = kind(**{n: np.stack([getattr(whole, n)[b] for _, whole, b, _ in group]) for n in names})
    return reader(arrays(batch), np.stack([counts for *_, counts in group]))


def told(facts: dict[str, Any]) -> str:
    """One sentence on a store's size and error."""
    text = (
        f"the teacher's cache: {facts['places']:,} places in {facts['bytes'] / 1e6:.1f} MB, "
        f"{facts['bytes_per_place']:g} bytes each, {100 * facts['share_of_dense']:.2f} % of dense logits"
    )
    if "measured" not in facts:
        return text
    return text + (
        f"; KL to these {facts['kl_events']:.5f} nats with the other tokens as one, which training reads, "
        f"{facts['kl_spread']:.4f} with the {100 * facts['tail']:.1f} % that they have spread over them "
        f"(mean of {facts['measured']:,} places)"
    )
