"""Files of a commit brought into the hub's cache: resumed, checked by their hashes, told as they come."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tinygpt.core import files
from tinygpt.core.errors import DataError, RemoteError, TinyGPTError
from tinygpt.core.events import Events, Progress
from tinygpt.core.hub import HubName
from tinygpt.runs import _transfer
from tinygpt.runs._hub_place import cache, headers, url
from tinygpt.runs._hub_refusal import refusal
from tinygpt.runs._transfer import Remote

SPARE = 64 << 20  # bytes of disk that stay free
EVERY = 0.1  # seconds between two facts of a download


def take(
    name: HubName, commit: str, wanted: Sequence[Remote], events: Events, at_once: int = 1
) -> list[Path]:
    """Have these files in the cache, each checked, and shown in the commit's folder; so many at a time.
    What one of them raises ends all."""
    there = cache(name)
    blobs = there / "blobs"
    try:
        blobs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.unwritable(blobs, error) from error
    lacking = [f for f in wanted if not is_there(blobs / f.etag, f)]
    _check_disk(name, blobs, lacking)
    over = threading.Event()
    tell = _teller(name, wanted, events, over)

    def one(file: Remote) -> Path:
        blob = blobs / file.etag
        try:
            if file in lacking:
                if blob.exists():
                    events.note(
                        f"{file.name} of {name} is damaged in the cache: it is fetched again", "warning"
                    )
                    blob.unlink(missing_ok=True)
                report = tell(file)
                _transfer.transfer(url(name, commit, file.name), file, blob, headers(), report, str(name))
            else:
                tell(file)(file.size)
        except TinyGPTError:
            raise
        except Exception as error:
            raise refusal(name, error, file.name) from error
        _show(there / "snapshots" / commit / file.name, blob)
        return there / "snapshots" / commit / file.name

    if at_once == 1:
        return [one(file) for file in wanted]
    with ThreadPoolExecutor(at_once) as threads:
        jobs = [threads.submit(one, file) for file in wanted]
        try:
            return [job.result() for job in jobs]
        except BaseException:
            over.set()
            threads.shutdown(cancel_futures=True)
            raise


def is_there(blob: Path, file: Remote) -> bool:
    """Whether a blob is in the cache, and what the hub lists: another tool may have put it there."""
    return blob.is_file() and blob.stat().st_size == file.size and _transfer.is_whole(blob, file.etag)


def _check_disk(name: HubName, blobs: Path, lacking: list[Remote]) -> None:
    parts = {f: _transfer.part_of(blobs / f.etag) for f in lacking}
    needed = sum(f.size - (p.stat().st_size if p.exists() else 0) for f, p in parts.items())
    free = shutil.disk_usage(blobs).free
    if needed and needed + SPARE > free:
        raise DataError(
            f"{name} needs {needed / 1e9:.1f} GB more in {blobs.parent}, whose disk has {free / 1e9:.1f}",
            hint="free some space, or set HF_HUB_CACHE to a folder of a larger disk",
        )


def _teller(
    name: HubName, wanted: Sequence[Remote], events: Events, over: threading.Event
) -> Callable[[Remote], Callable[[int], None]]:
    """How each file's transfer is told: as bytes of all of them, from any thread, until it is `over`."""
    total, has = sum(f.size for f in wanted), dict.fromkeys((f.name for f in wanted), 0)
    last, guard = 0.0, threading.Lock()

    def of(file: Remote) -> Callable[[int], None]:
        def tell(done: int) -> None:
            nonlocal last
            if over.is_set():
                raise RemoteError(f"{file.name} of {name} is left: another file did not come")
            with guard:
                has[file.name] = done
                now, sofar = time.monotonic(), sum(has.values())
                if sofar == total or now - last >= EVERY:
                    last = now
                    told = Progress(task=f"download {name.repo}", done=sofar, total=total, unit="bytes")
                    events.emit(told)

        return tell

    return of


def _show(pointer: Path, blob: Path) -> None:
    """Let a commit's folder have the blob under the file's name, by a link where the disk knows them."""
    if pointer.is_symlink() and not pointer.exists():
        pointer.unlink()
    if pointer.exists():
        return
    try:
        pointer.parent.mkdir(parents=True, exist_ok=True)
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:
            os.link(blob, pointer)
    except OSError as error:
        raise files.unwritable(pointer, error) from error
