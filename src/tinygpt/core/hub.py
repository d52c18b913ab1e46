"""Names on the Hugging Face hub, and where its cache puts them.

Models are `hf://org/name[@revision]`, data sets `hf://datasets/org/name[@revision]`."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinygpt.core.errors import ConfigError

SCHEME = "hf://"
DATASETS = "datasets/"
COMMIT = re.compile(r"[0-9a-f]{40}")
# A path object makes one slash of two, so that both spellings arrive.
_WRITTEN = re.compile(r"hf:(?:/+|$)(?P<rest>.*)", re.DOTALL)
_PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
_NAME = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_SNAPSHOT = re.compile(r"models--(?P<org>[^/]+?)--(?P<name>[^/]+)")


@dataclass(frozen=True)
class HubName:
    """A repository of the hub at a revision: a branch, a tag or a commit; "" is its main branch."""

    repo: str
    revision: str = ""
    kind: Literal["model", "dataset"] = "model"

    def __str__(self) -> str:
        return f"{SCHEME}{self.path}" + (f"@{self.revision}" if self.revision else "")

    @property
    def path(self) -> str:
        """The repository below the hub's address."""
        return f"{DATASETS if self.kind == 'dataset' else ''}{self.repo}"

    @property
    def folder(self) -> str:
        """What the hub's cache calls it."""
        return f"{self.kind}s--{self.repo.replace('/', '--')}"

    @property
    def pinned(self) -> bool:
        """Whether it can only mean one content."""
        return COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> HubName:
        """The same repository at a commit."""
        return dataclasses.replace(self, revision=commit)


def is_hub(path: str | Path) -> bool:
    """Whether a path is meant as the name of a model on the hub."""
    return _WRITTEN.fullmatch(str(path)) is not None


def parse(path: str | Path) -> HubName | None:
    """The hub's name that a path spells; None for a path of this machine. A malformed one is a
    ConfigError."""
    written = _WRITTEN.fullmatch(str(path))
    if written is None:
        return None
    found = _NAME.fullmatch(written["rest"].strip("/"))
    if found is None or ".." in written["rest"] or "--" in found["repo"]:
        raise ConfigError(
            f"{SCHEME}{written['rest']} is not the name of a model on the hub",
            hint="write hf://org/name, or hf://org/name@revision with a branch, a tag or a commit",
        )
    return HubName(found["repo"], found["revision"] or "")


def is_dataset(path: str | Path) -> bool:
    """Whether a path is meant as the name of a data set on the hub."""
    written = _WRITTEN.fullmatch(str(path))
    return written is not None and written["rest"].lstrip("/").startswith(DATASETS)


def dataset(text: str | Path, revision: str = "") -> HubName:
    """The data set that `hf://datasets/org/name[@revision]` or plain `org/name` spells; ConfigError for what
    is none."""
    written = _WRITTEN.fullmatch(str(text))
    rest = (written["rest"] if written else str(text)).strip("/")
    found = _NAME.fullmatch(rest.removeprefix(DATASETS))
    named = rest.startswith(DATASETS) or written is None
    if found is None or not named or ".." in rest or "--" in found["repo"]:
        raise ConfigError(
            f"{text} is not the name of a data set on the hub",
            hint="write hf://datasets/org/name or org/name, with @revision for a branch, a tag or a commit",
        )
    if revision and found["revision"]:
        raise ConfigError(f"{text} names a revision, and so does --revision", hint="leave one out")
    return HubName(found["repo"], revision or found["revision"] or "", "dataset")


def spelled(path: str | Path) -> str:
    """A path as a person writes it: the two slashes of hf:// again."""
    written = _WRITTEN.fullmatch(str(path))
    return f"{SCHEME}{written['rest']}" if written else str(path)


def of_snapshot(path: Path) -> HubName | None:
    """The repository and commit of a folder in the hub's cache; None for any other folder."""
    parts: tuple[str, ...] = ("", "", "", *path.absolute().parts)
    repo, snapshots, commit = parts[-3:]
    found = _SNAPSHOT.fullmatch(repo)
    if found is None or snapshots != "snapshots" or COMMIT.fullmatch(commit) is None:
        return None
    return HubName(f"{found['org']}/{found['name']}", commit)
