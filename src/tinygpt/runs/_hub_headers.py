"""What a repository of the hub holds, without its weights: its files, and the headers of its safetensors."""

from __future__ import annotations

from pathlib import Path

from tinygpt.core.errors import CheckpointError, RemoteError, TinyGPTError
from tinygpt.core.events import Events
from tinygpt.core.hub import HubName
from tinygpt.model import shards
from tinygpt.model.shards import Entry
from tinygpt.runs import _hub, _hub_place, _transfer
from tinygpt.runs._hub_refusal import refusal
from tinygpt.runs._transfer import Remote

FIRST = 1 << 17  # bytes asked for at first: most headers are shorter


def look(name: HubName, events: Events) -> tuple[Path, dict[str, Remote]]:
    """(the folder with the small files, all files that the hub lists). The card is fetched, no weights."""
    folder = _hub.fetch(str(name), events, part="card")
    return folder, _hub.listing(name.at(folder.name))[1]


def entries(name: HubName, folder: Path, listed: dict[str, Remote]) -> dict[str, Entry]:
    """The tensors of a repository, read from the beginnings of its files by Range requests."""
    found: dict[str, Entry] = {}
    for file in _hub.weights(name, folder, listed):
        if not file.name.endswith(".safetensors"):
            continue
        where = f"{file.name} of {name}"
        begin = _bytes(name, folder.name, file, 0, min(FIRST, file.size))
        length = shards.header_length(begin[:8], where, file.size)
        if 8 + length > len(begin):
            begin += _bytes(name, folder.name, file, len(begin), 8 + length)
        found |= shards.entries(begin[8 : 8 + length], where, file.name, file.size)
    return found


def _bytes(name: HubName, commit: str, file: Remote, start: int, end: int) -> bytes:
    """Bytes start..end of a file; a server that sends all of it is left after them."""
    got = b""
    try:
        with _transfer.answer(
            _hub_place.url(name, commit, file.name), _hub_place.headers(), f"{start}-{end - 1}"
        ) as response:
            if response.status_code != 206 and start:
                raise RemoteError(f"the server of {file.name} of {name} sends no parts of files")
            for piece in response.iter_bytes():
                got += piece
                if len(got) >= end - start:
                    break
    except TinyGPTError:
        raise
    except Exception as error:
        raise refusal(name, error, file.name) from error
    if len(got) < end - start:
        raise CheckpointError(f"{file.name} of {name} ends before its header does")
    return got[: end - start]
