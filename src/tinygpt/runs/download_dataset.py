"""Rows of a data set of the hub, brought here and written as `sft`, `dpo` or `train` read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core import hub
from tinygpt.core.config import flag
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data import card, catalogue, rows
from tinygpt.data.card import Card, Source
from tinygpt.data.tally import Tally
from tinygpt.runs import _data_out, _hub_data, _rows_in
from tinygpt.runs._hub_data import Found

SHOWN = 3  # rows that --inspect shows


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `download-dataset`."""

    dataset: Annotated[str, "hf://datasets/org/name[@revision], or org/name; list-datasets names some."]
    out: Annotated[Path | None, "JSONL file to write; its card goes beside it."] = None
    config_name: Annotated[str, "Configuration; not given: the default one."] = ""
    split: Annotated[str, "Split; not given: train, or the only one."] = ""
    revision: Annotated[str, "Branch, tag or commit."] = ""
    format: Annotated[Literal["auto", "sft", "dpo", "plain"], "What the rows are made for."] = "auto"
    map: Annotated[tuple[str, ...], "Rename columns: new=old, or old:new; commas between."] = ()
    max_files: Annotated[int, "The first so many files of the split; 0: all."] = 0
    limit: Annotated[int, "The first so many rows; 0: all."] = 0
    inspect: Annotated[bool, "Fetch the first file, show what its rows are, write nothing."] = False
    dry_run: Annotated[bool, "Say what would be fetched; only the card is."] = False
    force: Annotated[bool, "Replace an --out that tinygpt wrote."] = False

    def __post_init__(self) -> None:
        hub.dataset(self.dataset, self.revision)
        _rows_in.pairs(self.map)
        for name in ("max_files", "limit"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{flag(name)} must not be negative, got {getattr(self, name)}")
        if self.inspect and self.dry_run:
            raise ConfigError("--inspect fetches a file, --dry-run none", hint="leave one out")
        if self.out is None and not (self.inspect or self.dry_run):
            raise ConfigError(
                "--out is needed: where the rows go", hint="or look first: --inspect, --dry-run"
            )


def run(config: Config, events: Events) -> dict[str, Any]:
    """Fetch, convert, write; the facts of what was done."""
    if config.out is not None and not (config.inspect or config.dry_run):
        _data_out.check(config.out, force=config.force)
    found = _hub_data.look(hub.dataset(config.dataset, config.revision), events)
    entry = catalogue.known(found.name.repo)
    usual = entry.config if entry and entry.config in found.layout().configs else ""
    name, split, wanted = found.choose(config.config_name or usual, config.split, config.max_files)
    facts: dict[str, Any] = {
        "dataset": str(found.name), "commit": found.commit, "page": found.page, "licence": found.licence,
        "gated": found.gated, "config_name": name, "split": split, "files": len(wanted),
        "bytes": sum(one.size for one in wanted), "names": [one.name for one in wanted],
    }  # fmt: skip
    if config.dry_run:
        return facts
    if found.licence == card.UNKNOWN:
        events.note(f"{found.name} names no licence: read {found.page}", "warning")
    given = config.map or (entry.map if entry is not None else ())
    renames = _rows_in.pairs(given)
    paths = _hub_data.fetch(found, wanted[:1] if config.inspect else wanted, events)
    guess = _rows_in.guess(paths, renames, config.format)
    facts |= {"format": guess.format, "confidence": guess.confidence, "columns": dict(guess.columns)}
    facts |= {"shape": guess.shape, "map": list(given)}
    if config.inspect:
        return facts | {"rows": _rows_in.sample(paths, (), SHOWN)}
    assert config.out is not None
    events.note(f"rows are taken as {guess.format} {guess.shape}, confidence {guess.confidence:.2f}")
    tally, counts = Tally(f"convert to {guess.format}"), dict.fromkeys(paths, 0)
    settings = {
        "format": guess.format, "config_name": name, "split": split, "map": list(given),
        "max_files": config.max_files, "limit": config.limit,
    }  # fmt: skip

    def converted() -> Iterator[dict[str, Any]]:
        size, done = facts["bytes"], 0
        for path, one in zip(paths, wanted, strict=True):
            for row in _rows_in.converted(path, renames, guess.format, tally):
                counts[path] += 1
                yield row
                if tally.n_out % 1000 == 0:
                    events.emit(Progress(task="convert", done=tally.n_out, total=0, unit="rows"))
                if config.limit and tally.n_out >= config.limit:
                    return
            done += one.size
            events.emit(Progress(task="convert", done=done, total=size, unit="bytes"))
        if not tally.n_out:
            raise DataError(
                f"no row of {found.name} is usable. {tally.sentence()}", hint="try --inspect, --map"
            )

    n = rows.write(config.out, converted())
    if told := tally.sentence():
        events.note(told, "warning")
    where = card.write(
        config.out,
        Card(
            made_by="tinygpt download-dataset", settings=settings, sources=(_source(found, paths, counts),),
            stages=(tally.stage(confidence=guess.confidence),),
        ),
    )  # fmt: skip
    left = {"left_out": tally.n_in - n, "reasons": dict(tally.dropped)}
    return facts | {"rows": n, **left, "out": str(config.out), "card": str(where)}


def _source(found: Found, paths: list[Path], counts: dict[Path, int]) -> Source:
    """The repository at its commit; its files are its origins."""
    names = {path: path.as_posix().rpartition(f"/{found.commit}/")[2] for path in paths if counts[path]}
    parts = tuple(
        dataclasses.replace(
            card.of_file(path.resolve(), licence=found.licence, n_rows=counts[path]), name=name
        )
        for path, name in names.items()
    )
    return Source(
        name=str(found.name), licence=found.licence, revision=found.commit, n_rows=sum(counts.values()),
        n_bytes=sum(p.n_bytes for p in parts), origins=parts,
    )  # fmt: skip
