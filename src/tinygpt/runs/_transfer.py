"""One file from the hub: resumed where it was cut, checked against its hash, whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt.core import files
from tinygpt.core.errors import RemoteError, TinyGPTError
from tinygpt.core.lock import only_one
from tinygpt.runs._hub_refusal import transport

PART = ".tinygpt.part"  # what has come of a blob so far
PIECE = 1 << 20
PAUSES = (0.0, 1.0, 2.0, 4.0)  # seconds before trying again, as long as nothing new comes
AGAIN = (408, 429, 500, 502, 503, 504)
_PLACE = re.compile(r"bytes (\d+)-")


@dataclass(frozen=True)
class Remote:
    """A file as the hub lists it. `etag` is the SHA-256 of a large one, the id of a Git blob else."""

    name: str
    size: int
    etag: str


class Unfinished(Exception):
    """What was sent ended before the file did, or is no part of it."""


def is_whole(path: Path, etag: str) -> bool:
    """Whether a file's content is what the hub's hash says."""
    if len(etag) == 64:
        return files.sha256(path) == etag
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)  # Git's own
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest() == etag


def part_of(blob: Path) -> Path:
    """Where a blob grows until it is whole."""
    return blob.with_name(blob.name + PART)


def transfer(
    url: str, file: Remote, blob: Path, headers: dict[str, str], tell: Callable[[int], None], where: str
) -> None:
    """Bring one file to `blob`. `tell` gets the bytes it has so far, `where` names the repository in errors.

    A part that an earlier process left is gone on with; one whose hash turns out wrong is begun once more."""
    with only_one(blob.with_name(f".{blob.name}.lock"), lambda: tell(0)):
        part = part_of(blob)
        while not (blob.exists() and blob.stat().st_size == file.size):
            resumed = part.exists() and part.stat().st_size > 0
            _complete(url, file, part, headers, tell, where)
            try:
                good = is_whole(part, file.etag)
            except OSError as error:
                raise files.unwritable(part, error) from error
            if good:
                files.fsync(part)
                os.replace(part, blob)
                break
            part.unlink()
            if not resumed:
                kind = "SHA-256" if len(file.etag) == 64 else "Git hash"
                raise RemoteError(
                    f"{file.name} of {where} is not what the hub lists: {kind} is not {file.etag[:12]}...",
                    hint="nothing of it was kept: try again later, or tell the hub about it",
                )
        tell(file.size)


def _complete(
    url: str, file: Remote, part: Path, headers: dict[str, str], tell: Callable[[int], None], where: str
) -> None:
    """Let the part grow to the file's size; ends with an error when nothing new comes in several tries."""
    from huggingface_hub.errors import HfHubHTTPError

    tries = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _stream(url, file, part, headers, tell)
            return
        except (transport(), Unfinished) as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code not in AGAIN:
                raise
            grown = part.exists() and part.stat().st_size > before
            tries = 0 if grown else tries + 1
            if tries > len(PAUSES):
                if isinstance(error, Unfinished):
                    raise RemoteError(f"{file.name} of {where} does not arrive: {error}") from error
                raise
            if not grown:
                time.sleep(PAUSES[tries - 1])
        except TinyGPTError:
            raise
        except OSError as error:
            raise files.unwritable(part, error) from error


def _stream(url: str, file: Remote, part: Path, headers: dict[str, str], tell: Callable[[int], None]) -> None:
    """One request for what is missing of the part."""
    have = part.stat().st_size if part.exists() else 0
    if have > file.size:
        part.unlink()
        have = 0
    if have == file.size and part.exists():
        return
    tell(have)
    with answer(url, headers, f"{have}-" if have else "") as response:
        if response.status_code == 206:
            place = _PLACE.match(response.headers.get("Content-Range", ""))
            if place is None or int(place[1]) != have:
                raise Unfinished("its server sends another part than it was asked for")
        else:
            have = 0  # the server knows no ranges: all of it comes
        with part.open("ab" if have else "wb") as out:
            for piece in response.iter_bytes():  # as it comes, so that a cut costs nothing
                have += len(piece)
                if have > file.size:
                    out.truncate(0)
                    raise Unfinished(f"its server sends more than the {file.size:,} bytes that the hub lists")
                out.write(piece)
                tell(have)
    if have < file.size:
        raise Unfinished(f"its server ended after {have:,} of {file.size:,} bytes")


@contextlib.contextmanager
def answer(url: str, headers: dict[str, str], part: str) -> Generator[Any]:
    """The streamed answer to a request, for a part of the file ("100-" is from there on). The client follows
    redirects, and leaves the token behind where they lead to another host."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status

    asked = {**headers, "Accept-Encoding": "identity", **({"Range": f"bytes={part}"} if part else {})}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=asked, timeout=timeout) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        yield response
