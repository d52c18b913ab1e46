"""Data sets of the hub: what a repository holds, and its files, fetched side by side into the hub's cache.

A listing is kept beside the cache, so that a commit that was looked at once can be used without a network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt.core import files
from tinygpt.core.errors import ConfigError, DataError, RemoteError, TinyGPTError
from tinygpt.core.events import Events
from tinygpt.core.hub import HubName
from tinygpt.data import hub_files
from tinygpt.data.hub_files import Layout
from tinygpt.runs import _hub, _hub_place, _hub_take
from tinygpt.runs._hub_refusal import Unreachable, page
from tinygpt.runs._transfer import Remote

AT_ONCE = 4  # files that are fetched side by side
README = "README.md"
POINTER = b"version https://git-lfs.github.com/spec/v1"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A repository at a commit. `gated`: "" or the hub's word for it; `front` is its card's front matter."""

    name: HubName
    commit: str
    listed: Mapping[str, Remote]
    gated: str
    front: Mapping[str, Any]

    @property
    def pinned(self) -> HubName:
        return self.name.at(self.commit)

    @property
    def page(self) -> str:
        return page(self.name)

    @property
    def licence(self) -> str:
        return hub_files.licence(self.front)

    def layout(self) -> Layout:
        """Its configurations and splits; DataError, with its name, where it has no rows to read."""
        try:
            return hub_files.layout(self.front, self.listed)
        except DataError as error:
            raise DataError(f"{self.name}: {error.message}", hint=error.hint) from error

    def choose(self, config: str, split: str, max_files: int = 0) -> tuple[str, str, list[Remote]]:
        """(configuration, split, files) that are meant."""
        try:
            name, part, names = hub_files.choose(self.layout(), config, split)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: {error.message}", hint=error.hint) from error
        return name, part, [self.listed[n] for n in (names[:max_files] if max_files else names)]


def look(name: HubName, events: Events) -> Found:
    """What the hub says of a data set; without a network, what it said last. Only its card is fetched."""
    if _hub_place.offline():
        return _remembered(name, RemoteError("HF_HUB_OFFLINE is set"))
    try:
        commit, listed, gated = _hub.described(name)
    except Unreachable as error:
        found = _remembered(name, error)
        events.note(f"{error.message}: {name} is as it was at commit {found.commit}", "warning")
        return found
    told = {one.name: {"bytes": one.size, "etag": one.etag} for one in listed.values()}
    files.write_json(_record(name, commit), {"name": str(name.at(commit)), "gated": gated, "files": told})
    _hub_place.refer(name, commit)
    return _found(name, commit, listed, gated, events)


def fetch(found: Found, wanted: Sequence[Remote], events: Events) -> list[Path]:
    """The files, each checked by its hash; in the order of `wanted`."""
    if found.gated and not _asked_as_someone() and not all(_is_here(found.name, one) for one in wanted):
        raise RemoteError(
            f"{found.name} is gated ({found.gated}): its owners want you to agree to their terms first",
            hint=f"visit {found.page}, then set HF_TOKEN to a token of yours",
        )
    if _hub_place.offline():
        _refuse_lacking(found, wanted)
    paths = _hub_take.take(found.name, found.commit, wanted, events, at_once=AT_ONCE)
    for path, one in zip(paths, wanted, strict=True):
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER:
                raise DataError(
                    f"{one.name} of {found.name} is a pointer to the data, not the data: it was put there "
                    "without Git LFS",
                    hint=f"tell its owners: {found.page}/discussions",
                )
    return paths


def _asked_as_someone() -> bool:
    return "authorization" in {key.lower() for key in _hub_place.headers()}


def _found(name: HubName, commit: str, listed: Mapping[str, Remote], gated: str, events: Events) -> Found:
    front: Mapping[str, Any] = {}
    if README in listed:
        try:
            [path] = _hub_take.take(name, commit, [listed[README]], events)
            front = hub_files.front_matter(path.read_text(encoding="utf-8", errors="replace"))
        except RemoteError as error:
            if not gated:
                raise
            events.note(f"the card of {name} cannot be read: {error.message}", "warning")
    return Found(name=name, commit=commit, listed=listed, gated=gated, front=front)


def _record(name: HubName, commit: str) -> Path:
    return files.cache_dir("hub", name.folder) / f"{commit}.listing.json"


def _remembered(name: HubName, why: TinyGPTError) -> Found:
    """What was found when the hub was last asked; RemoteError where it never was."""
    commit = _hub_place.last_commit(name)
    known = files.peek_json(_record(name, commit)) if re.fullmatch(r"[0-9a-f]{40}", commit) else {}
    told = known.get("files")
    if not isinstance(told, dict):
        raise RemoteError(
            f"{name} is not in the cache, and {why.message}",
            hint="connect, or unset HF_HUB_OFFLINE, to fetch it; or give files of this machine",
        )
    listed = {n: Remote(str(n), int(f["bytes"]), str(f["etag"])) for n, f in told.items()}
    here = {n: f for n, f in listed.items() if n == README and _is_here(name, f)}
    found = Found(name=name, commit=commit, listed=listed, gated=str(known.get("gated", "")), front={})
    if not here and README in listed:
        _refuse_lacking(found, [listed[README]])
    return _found(name, commit, listed, found.gated, Events())


def _is_here(name: HubName, file: Remote) -> bool:
    return _hub_take.is_there(_hub_place.cache(name) / "blobs" / file.etag, file)


def _refuse_lacking(found: Found, wanted: Sequence[Remote]) -> None:
    lacking = [one for one in wanted if not _is_here(found.name, one)]
    if lacking:
        raise RemoteError(
            f"{lacking[0].name} of {found.pinned} is not in the cache, and the hub cannot be asked",
            hint="connect, or unset HF_HUB_OFFLINE, to fetch it",
        )
