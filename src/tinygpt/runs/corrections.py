"""Corrections: keep one, and make rows that train of all that were kept."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.data import card, corrections, rows
from tinygpt.data.correcting import Corrected, Replay
from tinygpt.runs import _data_out

HOME = Path("~/.tinygpt/corrections")


@dataclass(frozen=True, kw_only=True)
class Record:
    """Settings of `record-correction`."""

    intent: Annotated[str, "What was wanted."]
    original: Annotated[str, "What the model said; may be empty."]
    corrected: Annotated[str, "What it should have said."]
    input: Annotated[str | None, "What it was wanted of, as the text that was to be changed."] = None
    source: Annotated[str | None, "Who or what corrects."] = None
    model: Annotated[str | None, "The model that was wrong."] = None
    dir: Annotated[Path, "Folder in which corrections are kept."] = HOME


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Settings of `corrections-to-data`."""

    out: Annotated[Path, "JSONL file of the rows."]
    dir: Annotated[Path, "Folder in which corrections were kept."] = HOME
    format: Annotated[Literal["sft", "dpo"], "{messages}, or {prompt, chosen, rejected}."] = "sft"
    since: Annotated[str, "Only those from this time on, as 2026-01-31 or with a time; UTC."] = ""
    system: Annotated[str, "System prompt of the rows."] = ""
    replay: Annotated[Path | None, "Rows that were trained on before, so that they are not forgotten."] = None
    replay_ratio: Annotated[float, "With --replay: how many of them for each correction."] = 1.0
    seed: Annotated[int, "With --replay: same seed, same rows."] = 0
    licence: Annotated[str, "Licence of the corrections, for the card."] = ""

    def __post_init__(self) -> None:
        if not 0 < self.replay_ratio < float("inf"):
            raise ConfigError(f"--replay-ratio must be positive, got {self.replay_ratio}")
        refuse_idle(self, {"replay_ratio": "replay", "seed": "replay"})


def record(config: Record) -> dict[str, Any]:
    """Keep a correction; its id and the file. DataError where a field is wrong."""
    names = (name for name in corrections.FIELDS if getattr(config, name) is not None)
    store = corrections.Corrections(config.dir.expanduser())
    return {"id": store.add({name: getattr(config, name) for name in names}), "path": str(store.path)}


def convert(config: Convert, events: Events) -> dict[str, Any]:
    """Rows of the corrections, the last one of each question, then the rows that are replayed. DataError
    where there is none."""
    path, pairs = config.dir.expanduser() / corrections.FILE, config.format == "dpo"
    if not path.is_file():
        raise DataError(
            f"there are no corrections in {path.parent}",
            hint="give --dir, or keep some: tinygpt record-correction, or serve --corrections-dir",
        )
    given = [path] if config.replay is None else [path, config.replay]
    _data_out.check(config.out, force=True, read=given)
    found = Corrected(path, pairs=pairs, since=config.since, system=config.system)
    if found.first_bad:
        events.note(f"{path}: lines that are no corrections were left out: {found.first_bad}", "warning")
    if not found.n:
        why = ", ".join(f"{n} {reason}" for reason, n in found.dropped.items())
        raise DataError(f"none of the {found.n_read} corrections can be used: {why or 'there is none'}")
    stages = [card.Stage(name="corrections", n_in=found.n_read, n_out=found.n, dropped=dict(found.dropped))]
    sources = [card.of_file(path, licence=config.licence or card.UNKNOWN, n_rows=found.n_read)]
    more, wanted = None, round(config.replay_ratio * found.n)
    if config.replay is not None:
        more = Replay(config.replay, wanted, seed=config.seed, pairs=pairs, taken=found.has)
        if more.n < wanted:
            events.note(f"{config.replay} has only {more.n} of {wanted} rows to replay", "warning")
        left = {"not drawn": more.n_read - more.n - more.dropped.total()}
        dropped = {**more.dropped, **{why: n for why, n in left.items() if n}}
        stages.append(card.Stage(name="replay", n_in=more.n_read, n_out=more.n, dropped=dropped))
        sources.append(card.of_file(config.replay, n_rows=more.n_read))
    rows.write(config.out, itertools.chain(found.rows(), more.rows() if more else ()))
    names = ("format", "since", "system", *(("replay_ratio", "seed") if more else ()))
    made = card.Card(
        made_by="tinygpt corrections-to-data", settings={name: getattr(config, name) for name in names},
        sources=tuple(sources), stages=tuple(stages),
    )  # fmt: skip
    return {
        "out": str(config.out), "card": str(card.write(config.out, made)), "corrections": found.n_read,
        "used": found.n, "dropped": dict(found.dropped), "replayed": more.n if more else 0,
    }  # fmt: skip
