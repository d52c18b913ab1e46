"""Tokenising a corpus: documents in pieces, pieces in chunks, chunks on all cores, tokens to disk in order.

The tokenizer library spreads a batch over threads. On a machine with many cores its threads get in each
other's way, and reading and writing wait for them; there, processes of our own each encode a chunk at a time
while this one reads on. The tokens are the same, whoever encodes them.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from tinygpt.core.errors import TinyGPTError
from tinygpt.core.events import Events, Progress
from tinygpt.data import cache, corpus

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tinygpt.data.tokenizer._protocol import Tokenizer

# Long documents are encoded in pieces of so many characters, so that all cores work and memory stays small.
PIECE = 1 << 17
CHUNK = 1 << 22  # characters encoded between two progress events
SHARE = 1 << 20  # characters that a helping process gets at once
WORTH = 1 << 26  # bytes of corpus that are worth starting processes for
MANY = 4  # cores from which processes are quicker than the library's threads


class Piece(NamedTuple):
    """Part of a document; `begins` says that it is the first."""

    text: str
    begins: bool
    read: int
    """Bytes of all files that were read before and with this piece, for progress."""


def pieces(text: str, limit: int = PIECE) -> Iterator[str]:
    """A text in parts that encode to the same ids as the whole.

    Parts end at a line end with text right before and a letter or digit right after it: no pre-tokenizer in
    use joins anything over such a place. (A SentencePiece file that puts a space before every text adds one
    at the start of each part.)
    """
    start = 0
    while len(text) - start > limit:
        end = start + limit
        while (end := text.find("\n", end) + 1) and end < len(text):
            if text[end].isalnum() and not text[end - 2].isspace():
                break
        if not end or end == len(text):
            break
        yield text[start:end]
        start = end
    yield text[start:]


def tokenise(
    files: Sequence[Path],
    tokenizer: Tokenizer,
    start: int,
    writer: cache.Writer,
    events: Events | None = None,
    *,
    field: str = "text",
    workers: int = 0,
) -> None:
    """Write the documents of files one after another, each begun by the token `start`; `writer.facts` says
    what was found. `workers` are processes (0: as many as pay here)."""
    facts: dict[str, Any] = {**corpus.new_facts(), "empty": 0, "per_file": []}
    total = sum(f.stat().st_size for f in files)
    workers = workers or (_cores() if total >= WORTH and _cores() >= MANY else 1)
    chunks = _chunks(_pieces(files, facts, field), CHUNK if workers == 1 else SHARE)
    with contextlib.closing(_encoded(tokenizer, chunks, workers, writer.dtype)) as encoded:
        for chunk, arrays in encoded:
            for piece, ids in zip(chunk, arrays, strict=True):
                if piece.begins:
                    writer.begin(0)
                    writer.add([start])
                writer.grow(len(piece.text.encode()))
                writer.add(ids)
            if events:
                told = Progress(task="tokenise", done=min(total, chunk[-1].read), total=total, unit="bytes")
                events.emit(told)
    if events:
        events.emit(Progress(task="tokenise", done=total, total=total, unit="bytes"))
    facts["first_bad"] = facts["first_bad"][:3]
    writer.facts = facts


def _pieces(files: Sequence[Path], facts: dict[str, Any], field: str) -> Iterator[Piece]:
    """The documents of files in pieces; a file is never in memory as a whole unless it has no line ends."""
    before = 0
    for file in files:
        size, read, rest, begins, n_documents = file.stat().st_size, 0, "", False, 0
        for first, text in corpus.blocks(file, facts, field):
            if first:
                if rest:
                    yield Piece(rest, begins, before + min(size, read))
                facts["empty"] += not text
                n_documents += bool(text)
                rest, begins = "", True
            read += len(text)
            *whole, rest = pieces(rest + text, PIECE)
            for part in whole:
                yield Piece(part, begins, before + min(size, read))
                begins = False
        before += size
        if rest:
            yield Piece(rest, begins, before)
        facts["per_file"].append(n_documents)


def _chunks(found: Iterable[Piece], room: int) -> Iterator[list[Piece]]:
    """Pieces together, until they have `room` characters."""
    chunk: list[Piece] = []
    n = 0
    for piece in found:
        chunk.append(piece)
        n += len(piece.text)
        if n >= room:
            yield chunk
            chunk, n = [], 0
    if chunk:
        yield chunk


Encoded = tuple[list[Piece], "list[NDArray[np.integer[Any]]]"]


def _encoded(
    tokenizer: Tokenizer, chunks: Iterable[list[Piece]], workers: int, dtype: str
) -> Generator[Encoded]:
    """Each chunk with the ids of its pieces, in order."""
    if workers == 1:
        for chunk in chunks:
            yield chunk, tokenizer.encode_arrays([piece.text for piece in chunk])
        return
    import numpy as np

    setup = pickle.dumps((tokenizer, dtype))
    free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    started: list[subprocess.Popen[bytes]] = []

    def ask(texts: list[str]) -> tuple[list[int], bytes]:
        helper, answer = free.get(), None
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended, which is said below
                _send(helper.stdin, pickle.dumps(texts))
                answer = _receive(helper.stdout)
        finally:
            free.put(helper)
        if answer is None:
            raise TinyGPTError(
                f"a process that tokenises ended with code {helper.wait()}",
                hint="it may have run out of memory: use fewer, --workers 1",
            )
        return pickle.loads(answer)  # what our own process wrote

    threads = ThreadPoolExecutor(workers)
    try:
        for _ in range(workers):
            started.append(_helper(setup))
            free.put(started[-1])
        waiting: collections.deque[tuple[list[Piece], Future[tuple[list[int], bytes]]]] = collections.deque()
        for chunk in _ended(chunks):
            if chunk is not None:
                waiting.append((chunk, threads.submit(ask, [piece.text for piece in chunk])))
            while waiting and (chunk is None or len(waiting) >= 2 * workers):
                done, future = waiting.popleft()
                counts, ids = future.result()
                yield done, np.split(np.frombuffer(ids, dtype), np.cumsum(counts)[:-1])
    finally:
        for helper in started:
            helper.kill()
        threads.shutdown(cancel_futures=True)
        for helper in started:
            with contextlib.suppress(BrokenPipeError), helper:  # closes its pipes and waits
                pass


def _ended(chunks: Iterable[list[Piece]]) -> Iterator[list[Piece] | None]:
    """The chunks, and None when there are no more."""
    yield from chunks
    yield None


def _cores() -> int:
    """Cores that this process may use; one where the library's threads are switched off."""
    if os.environ.get("TOKENIZERS_PARALLELISM", "").lower() in ("false", "0", "off", "no"):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# The processes that help: `python -m tinygpt.data.encode` takes pickles on stdin and answers on stdout.


def _helper(setup: bytes) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(path for path in sys.path if path)
    helper = subprocess.Popen(
        [sys.executable, "-m", "tinygpt.data.encode"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": paths},
        start_new_session=True,  # Ctrl-C is for the process that was asked
    )
    assert helper.stdin is not None
    _send(helper.stdin, setup)
    return helper


def _send(pipe: BinaryIO | Any, data: bytes) -> None:
    pipe.write(len(data).to_bytes(8, "little"))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: BinaryIO | Any) -> bytes | None:
    """The next message; None when the other side has ended."""
    head = pipe.read(8)
    if len(head) < 8:
        return None
    size = int.from_bytes(head, "little")
    data = pipe.read(size)
    return data if len(data) == size else None


def _help() -> None:
    """Encode what comes until no more comes."""
    setup = _receive(sys.stdin.buffer)
    if setup is None:
        return
    import numpy as np

    tokenizer, dtype = pickle.loads(setup)
    while (asked := _receive(sys.stdin.buffer)) is not None:
        arrays = tokenizer.encode_arrays(pickle.loads(asked))
        ids = np.concatenate(arrays).astype(dtype, copy=False).tobytes()
        _send(sys.stdout.buffer, pickle.dumps(([len(a) for a in arrays], ids)))


if __name__ == "__main__":
    _help()
