"""The sources of `prep-data`: files, data sets of the hub, repositories of GitHub, BFCL and tau-bench."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core import hub
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.data import card, catalogue, hub_files, recognise, requests
from tinygpt.data.card import Source
from tinygpt.data.requests import Request
from tinygpt.data.tally import Tally
from tinygpt.runs import _github_rows, _hub_data, _rows_in
from tinygpt.runs._github import PUBLIC, GitHub
from tinygpt.runs._github_rows import Wanted
from tinygpt.runs._journal import Journal

KINDS = ("path", "dataset", "github", "bfcl", "tau_bench")
LICENCES = {"bfcl": "Apache-2.0", "tau_bench": "MIT"}
EVALUATION = "is made for evaluation: a model that learned from it cannot be measured with it"
# The sources that a setting is for; the others are for all of them.
FOR: dict[str, tuple[str, ...]] = {
    "map": ("path", "dataset"),
    **dict.fromkeys(("config_name", "split", "max_files"), ("dataset",)),
    **dict.fromkeys(("kind", "label", "state", "max_diff_bytes", "token_env", "api_url"), ("github",)),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One source: exactly one of path, dataset, github, bfcl and tau_bench, and how it is read."""

    path: Annotated[Path | None, "A file of rows, a folder of them, or a pattern."] = None
    dataset: Annotated[str, "hf://datasets/org/name[@revision]."] = ""
    github: Annotated[str, "owner/repo."] = ""
    bfcl: Annotated[Path | None, "BFCL's data: a folder, or one of its files."] = None
    tau_bench: Annotated[Path | None, "A clone of tau-bench or tau2-bench."] = None
    weight: Annotated[float, "Its share of the rows, beside the weights of the others."] = 0.0
    map: Annotated[tuple[str, ...], "Columns renamed: new=old."] = ()
    licence: Annotated[str, "Of its rows, where neither a card nor the hub names one."] = ""
    limit: Annotated[int, "The first so many rows; 0: all."] = 0
    config_name: Annotated[str, "Of a data set: its configuration."] = ""
    split: Annotated[str, "Of a data set: its split."] = ""
    max_files: Annotated[int, "Of a data set: the first so many files; 0: all."] = 0
    kind: Annotated[
        Literal["issues-prs", "reviews", "commits"], "Of a repository: what rows are made of."
    ] = "issues-prs"
    label: Annotated[str, "Of a repository: only issues with this label."] = ""
    state: Annotated[Literal["closed", "open", "all"], "Of a repository: only issues in this state."] = (
        "closed"
    )
    max_diff_bytes: Annotated[int, "Of a repository: longer diffs are left out."] = 10_000
    token_env: Annotated[str, "Of a repository: the variable that holds a token."] = ""
    api_url: Annotated[str, "Of a repository: the API's address."] = PUBLIC

    def __post_init__(self) -> None:
        given = [name for name in KINDS if getattr(self, name)]
        if len(given) != 1:
            what = " and ".join(given) if given else "none"
            raise ConfigError(f"a source names one of {', '.join(KINDS)}; one names {what}")
        for name, kinds in FOR.items():
            if self.is_of not in kinds and getattr(self, name) != getattr(type(self), name):
                raise ConfigError(
                    f"'{name}' means nothing for a source of {self.is_of}",
                    hint=f"it is for {' and '.join(kinds)}: leave it out",
                )
        if self.dataset:
            hub.dataset(self.dataset)
        if self.github:
            _github_rows.named(self.github)
        if self.weight < 0 or self.limit < 0 or self.max_files < 0 or self.max_diff_bytes < 0:
            raise ConfigError("weight, limit, max_files and max_diff_bytes of a source must not be negative")
        if self.kind != "issues-prs" and (self.label or self.state != "closed"):
            raise ConfigError(f"label and state choose issues, not {self.kind}", hint="leave them out")
        _rows_in.pairs(self.map)

    @property
    def is_of(self) -> str:
        return next(name for name in KINDS if getattr(self, name))

    def __str__(self) -> str:
        value = getattr(self, self.is_of)
        if isinstance(value, Path):
            return value.name if self.path else f"{self.is_of} {value.name}"
        return str(hub.dataset(value)) if self.dataset else f"github:{_github_rows.named(value)}"


class Opened:
    """A source that can be read: `rows` once, then `source` for the card."""

    def __init__(
        self, origin: Origin, wanted: str, place: Path, events: Events, resume: bool, force: bool
    ) -> None:
        self.origin, self.place, self._events = origin, place, events
        self.resume, self.force = resume, force
        self.tally = Tally(f"read {origin}")
        self.paths: list[Path] = []
        self.journal: Journal | None = None
        self.source: Callable[[], Source]
        self.format = wanted
        self._rows: Callable[[], Iterator[dict[str, Any]]]
        getattr(self, f"_open_{origin.is_of}")(wanted)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Its rows, each one of ours; the others are counted in `tally`."""
        for row in self._rows():
            yield row
            if self.origin.limit and self.tally.n_out >= self.origin.limit:
                return

    def _read_files(self, wanted: str, map: tuple[str, ...]) -> None:
        renames = _rows_in.pairs(map)
        if wanted == "auto":
            guess = _rows_in.guess(self.paths, renames, wanted)
            self.format = guess.format
            told = f"confidence {guess.confidence:.2f}"
            self._events.note(f"{self.origin}: rows are taken as {guess.format} {guess.shape}, {told}")
        self._rows = lambda: (
            row for path in self.paths for row in _rows_in.converted(path, renames, self.format, self.tally)
        )

    def _open_path(self, wanted: str) -> None:
        assert self.origin.path is not None
        self.paths = files_at(self.origin.path)
        self._read_files(wanted, self.origin.map)

        def source() -> Source:
            licence = self.origin.licence or card.UNKNOWN
            found = [card.of_file(path, licence=licence) for path in self.paths]
            if len(found) == 1:
                return dataclasses.replace(found[0], n_rows=self.tally.n_out)
            known = sorted({one.licence for one in found} - {card.UNKNOWN})
            return Source(
                name=str(self.origin), licence=" AND ".join(known) or card.UNKNOWN,
                n_rows=self.tally.n_out, n_bytes=sum(one.n_bytes for one in found), origins=tuple(found),
            )  # fmt: skip

        self.source = source

    def _open_dataset(self, wanted: str) -> None:
        found = _hub_data.look(hub.dataset(self.origin.dataset), self._events)
        entry = catalogue.known(found.name.repo)
        usual = entry.config if entry and entry.config in found.layout().configs else ""
        config = self.origin.config_name or usual
        chosen = found.choose(config, self.origin.split, self.origin.max_files)[2]
        self.paths = _hub_data.fetch(found, chosen, self._events)
        self._read_files(wanted, self.origin.map or (entry.map if entry else ()))
        licence = found.licence if found.licence != card.UNKNOWN else self.origin.licence or card.UNKNOWN
        self.source = lambda: Source(
            name=str(found.name), licence=licence, revision=found.commit, n_rows=self.tally.n_out,
            n_bytes=sum(one.size for one in chosen),
        )  # fmt: skip

    def _open_github(self, wanted: str) -> None:
        self.format = recognise.FORMATS[0] if wanted == "auto" else wanted
        if self.format not in ("sft", _rows_in.ANY):
            raise ConfigError(f"{self.origin}: rows of a repository are sft, not {self.format}")
        one, repo = self.origin, _github_rows.named(self.origin.github)
        api = GitHub(one.api_url, token_env=one.token_env, events=self._events)
        found = _github_rows.source(api, repo)
        asked = Wanted(
            kind=one.kind,
            label=one.label,
            state=one.state,
            max_diff_bytes=one.max_diff_bytes,
            limit=one.limit,
        )

        def rows() -> Iterator[dict[str, Any]]:
            settings = {"api_url": one.api_url, "repo": repo, **asked.__dict__}
            with Journal(self.place, settings, resume=self.resume, force=self.force) as journal:
                self.journal = journal
                yield from _github_rows.rows(api, repo, asked, journal, self.tally, self._events)

        self._rows = rows
        licence = found.licence if found.licence != card.UNKNOWN else one.licence or card.UNKNOWN
        self.source = lambda: Source(name=found.name, licence=licence, n_rows=self.tally.n_out)

    def _open_bfcl(self, wanted: str) -> None:
        assert self.origin.bfcl is not None
        self._requests(wanted, requests.bfcl, self.origin.bfcl)

    def _open_tau_bench(self, wanted: str) -> None:
        assert self.origin.tau_bench is not None
        self._requests(wanted, requests.tau_bench, self.origin.tau_bench)

    def _requests(self, wanted: str, read: Callable[[Path], Iterator[Request | str]], path: Path) -> None:
        self.format = "sft" if wanted == "auto" else wanted
        if self.format not in ("sft", _rows_in.ANY):
            raise ConfigError(f"{self.origin}: its rows are sft, not {self.format}")
        self._events.note(f"{self.origin} {EVALUATION}", "warning")

        def rows() -> Iterator[dict[str, Any]]:
            for found in read(path):
                made = found if isinstance(found, str) else found.row()
                if isinstance(made, str):
                    self.tally.drop(made)
                    continue
                self.tally.keep()
                yield made

        self._rows = rows
        licence = self.origin.licence or LICENCES[self.origin.is_of]
        self.source = lambda: Source(name=str(self.origin), licence=licence, n_rows=self.tally.n_out)


def files_at(path: Path) -> list[Path]:
    """The files of rows that a path names: itself, those of a folder, or those of a pattern."""
    if path.is_file():
        return [path]
    if path.is_dir():
        files = (p for p in path.rglob("*") if p.is_file() and not p.name.endswith(card.SUFFIX))
        found = sorted(p for p in files if hub_files.is_rows(p.relative_to(path).as_posix()))
    else:
        found = sorted(p for p in map(Path, glob.iglob(str(path), recursive=True)) if p.is_file())
    if not found:
        raise DataError(f"there are no rows at {path}", hint="check the path")
    return found
