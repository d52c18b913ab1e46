"""Traces become rows that train: read, mended, judged, without duplicates, for sft, dpo or kto."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.data import card, minhash, rows
from tinygpt.data.traces import _values
from tinygpt.data.traces._examples import Pairs
from tinygpt.data.traces._spool import Spool
from tinygpt.runs import _data_out
from tinygpt.runs._traces_settings import Config as Config
from tinygpt.runs._traces_work import Work


def run(config: Config, events: Events) -> dict[str, Any]:
    """Write the rows and their card; the counts of every stage. DataError where no row is left."""
    found = _values.find(config.paths)
    if not config.dry_run:
        _data_out.check(config.out, force=config.force, read=found)
    if config.near_dup:
        minhash.library()
    work = Work(config, events)
    with contextlib.ExitStack() as stack:
        folder = _folder(config, stack)
        kept, gathered = (stack.enter_context(contextlib.closing(Spool(folder))) for _ in range(2))
        pairs, kinds = Pairs(gathered, config.margin), list[str]()
        for example in work.examples(found, pairs):
            kept.add(example)
            kinds.append(example.kind)
        stages = work.stages(pairs, len(kept))
        stay, last = work.alike(kept, kinds, folder)
        stages += [last] if last else []
        for tally in work.tallies.values():
            if tally.name == "read" and (told := tally.sentence()):
                events.note(told, level="warning")
        if not stay and not config.dry_run:
            why = "; ".join(f"{n} {reason}" for stage in stages for reason, n in stage.dropped.items())
            raise DataError(
                f"no row is left of {work.tallies['read'].n_out} traces: {why or 'there is none'}",
                hint="--dry-run shows what each stage leaves out",
            )
        work.check()
        made = (row for i in stay for row in kept[i][0])
        n_rows = sum(1 for _ in made) if config.dry_run else rows.write(config.out, made)
    result: dict[str, Any] = {
        "out": None if config.dry_run else str(config.out), "card": None, "mode": config.mode,
        "traces": work.tallies["read"].n_out, "examples": len(stay), "rows": n_rows,
        "left_out": {name: n for name, n in work.left_out.items() if n},
        "stages": [dataclasses.asdict(stage) for stage in stages], "dry_run": config.dry_run,
    }  # fmt: skip
    if not config.dry_run:
        whole = card.Card(
            made_by="tinygpt traces-to-data", settings=config.told(), sources=tuple(work.sources(found)),
            stages=tuple(stages),
        )  # fmt: skip
        result["card"] = str(card.write(config.out, whole))
    return result


def _folder(config: Config, stack: contextlib.ExitStack) -> Path:
    """Where what is worked on lies meanwhile: beside the output; with --dry-run nothing is made there."""
    if config.dry_run:
        return Path(stack.enter_context(tempfile.TemporaryDirectory()))
    folder = config.out.resolve().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {config.out} cannot be written: {error.strerror or error}") from error
    return folder
