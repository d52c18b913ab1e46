"""ReST: rounds in which a model answers, what is right is kept, and the model learns it.

Each round draws answers with the newest model and tunes the first one on those that are right (ReST-EM), or
with `from_start` off the newest. What a model can do already it does more surely; what it never gets right by
chance it does not learn.

Source: Gulcehre et al. 2023, arXiv:2308.08998 (ReST); Singh et al. 2024, arXiv:2312.06585 (ReST-EM, section
3: tuning begins at the base each time).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import files
from tinygpt.core.config import from_dict, to_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.runs import reject, sft

RECORD = "rest.json"


@dataclass(frozen=True, kw_only=True)
class Config(reject.Config):
    """Settings of ReST."""

    out: Annotated[Path, "Directory for the rounds: the rows of each, and the run that learned them."]
    rounds: Annotated[int, "How often the model answers and learns."] = 1
    from_start: Annotated[bool, "Each round tunes the first model anew; no: the newest one goes on."] = True
    sft: Annotated[
        dict[str, Any], "Settings of the tuning, e.g. --set sft.steps=300 --set sft.full=true."
    ] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        self.answers(1, self.model, self.adapter)  # refuses what no round could do
        if self.rounds < 1:
            raise ConfigError(f"--rounds must be at least 1, got {self.rounds}")
        if self.url:
            raise ConfigError("ReST tunes the model that answers", hint="give a model of this machine")
        if self.adapter:
            raise ConfigError("each round puts its own adapter on the model", hint="bake yours into it first")
        if odd := sorted(self.sft.keys() & {"base", "data", "out"}):
            raise ConfigError(f"sft.{odd[0]} is what each round says itself", hint="leave it out")
        self.tuning(1, self.model)

    def answers(self, number: int, model: Path, adapter: tuple[Path, ...]) -> reject.Config:
        """The drawing of a round."""
        given: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(reject.Config)}
        if adapter != self.adapter:  # a tuned one counts whole
            given |= {"adapter": adapter, "adapter_weight": (), "force": False}
        given |= {"model": model, "seed": self.seed + 1_000_003 * (number - 1)}
        given |= {"out": self.folder(number) / "rows.jsonl"}
        return reject.Config(**given)

    def tuning(self, number: int, base: Path) -> sft.Config:
        """The tuning of a round."""
        folder = self.folder(number)
        said = {"base": str(base), "data": [str(folder / "rows.jsonl")], "out": str(folder / "run")}
        return from_dict(sft.Config, {"seed": self.seed, **self.sft, **said})

    def folder(self, number: int) -> Path:
        """Where a round lies."""
        return self.out / f"round-{number}"


def run(config: Config, events: Events) -> dict[str, Any]:
    """The rounds; those that are done are not repeated. Tells of each how often it was right on the tasks
    that it learned from, which says nothing about new ones."""
    record = config.out / RECORD
    asked = {key: value for key, value in to_dict(config).items() if key not in ("out", "rounds")}
    if record.exists() and (began := files.peek_json(record).get("settings")) != asked:
        odd = sorted(key for key in asked if (began or {}).get(key) != asked[key])
        raise ConfigError(
            f"{config.out} was made with other settings: {', '.join(odd)}", hint="choose another --out"
        )
    if not record.exists():
        files.refuse_existing(config.out, force=None)
    told: list[dict[str, Any]] = []
    base, adapter = config.model, config.adapter
    for number in range(1, config.rounds + 1):
        folder, events_of = config.folder(number), f"round {number} of {config.rounds}"
        start = config.model if config.from_start else base
        tuned = folder / "run" / "final"
        if not tuned.exists():
            events.note(f"{events_of}: answering")
            found = reject.run(config.answers(number, base, adapter), events)
            files.write_json(folder / "rejected.json", found)
            events.note(f"{events_of}: learning {found['rows']} rows, {found['rate']:.1%} of answers right")
            files.write_json(record, {"tinygpt": "rest", "settings": asked})
            result = sft.run(config.tuning(number, start), events)
            if result.status == "interrupted":
                break
        found = files.peek_json(folder / "rejected.json")
        told.append({k: found[k] for k in ("rows", "rate", "solved")} | {"path": str(tuned)})
        base, adapter = (start, (tuned,)) if (tuned / "adapter_config.json").exists() else (tuned, ())
    return {"rounds": told, "done": len(told) == config.rounds}
