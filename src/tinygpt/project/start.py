"""What `tinygpt quickstart` builds: the demo, a specialist from nothing, or one on a base."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import flag, refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.project import demo as demos
from tinygpt.project import quickstart, tuned

OF = {"demo": demos, "own": quickstart, "base": tuned}  # what is built, and the module that builds it
OWN, DEMO = quickstart.Config, demos.Config


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a quickstart. What is not given is the default of what is built."""

    demo: Annotated[bool, "Build the file-operations demo."] = False
    data: Annotated[Path | None, "Your JSONL rows."] = None
    base: Annotated[
        str | None,
        "Tune this base on them: a path, an hf:// name, an id of the gallery, or auto, by task and memory.",
    ] = None
    gallery: Annotated[Path | None, "Manifest of bases to choose from; not given: the built-in one."] = None
    out: Annotated[Path | None, f"Directory of everything it makes; not given: {DEMO.out}, or {OWN.out}."] = (
        None
    )
    project_out: Annotated[Path | None, f"Where to write {tuned.PROJECT}; not given: in --out."] = None
    minutes: Annotated[
        float | None,
        f"Time to train for; measuring comes on top. [{DEMO.minutes:g}, own rows {OWN.minutes:g}]",
    ] = None
    steps: Annotated[int, "Exact number of steps; 0: by the time, or on a base by the rows."] = 0
    n_train: Annotated[int | None, f"Training tasks that the demo writes. [{DEMO.n_train}]"] = None
    n_held_out: Annotated[
        int, f"Held-out rows, or tasks of each demo set; 0: {OWN.n_held_out} rows, {DEMO.n_held_out} tasks."
    ] = 0
    samples: Annotated[int | None, "Held-out answers to show. [3]"] = None
    dry_run: Annotated[bool, "With a base: show the plan and the project, and train nothing."] = False
    strict: Annotated[bool, "Refuse a file with a bad row."] = False
    seed: Annotated[int, "Seed of data, weights and order."] = 0
    force: Annotated[bool, "Replace an existing --out."] = False
    wait: Annotated[bool, "Wait for another run to free the machine."] = False
    lock: Annotated[bool, "Take the machine's lock (one heavy run at a time)."] = True

    def __post_init__(self) -> None:
        if self.demo == (self.data is not None):
            raise ConfigError(
                "say what to build", hint="either --demo or --data FILE, with or without --base"
            )
        refuse_idle(self, {"wait": "lock", "base": "data"})
        built = {f.name for f in dataclasses.fields(OF[self.kind].Config)}
        for f in dataclasses.fields(self):
            said = getattr(self, f.name) != f.default
            if said and f.name not in {*built, "demo"}:
                what = {"demo": "the demo", "own": "a specialist from nothing", "base": "tuning a base"}
                raise ConfigError(f"{flag(f.name)} says nothing to {what[self.kind]}", hint="leave it out")

    @property
    def kind(self) -> str:
        """What is built: "demo", "own" or "base"."""
        return "demo" if self.demo else "own" if self.base is None else "base"

    def settings(self) -> Any:
        """The config of what is built."""
        cls = OF[self.kind].Config
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(cls) if hasattr(self, f.name)}
        given["n_held_out"] = self.n_held_out or None
        return cls(**{name: value for name, value in given.items() if value is not None})


def run(config: Config, events: Events) -> dict[str, Any]:
    """Build it; what is found says by its `kind` what it was."""
    return {"kind": config.kind, **OF[config.kind].run(config.settings(), events)}
