"""Gold clone: the known right calls of tasks become rows, once they were run and found to be right."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import to_dict
from tinygpt.core.events import Events
from tinygpt.data import card, rows
from tinygpt.runs import _accept, _data_out
from tinygpt.runs._accept import Works


@dataclass(frozen=True, kw_only=True)
class Config(Works):
    """Settings of a gold clone."""

    out: Annotated[Path, "JSONL file for the rows, which sft reads; its card lies beside it."]
    world: Annotated[str, "The simulated world whose tasks are cloned, as file_ops."] = "file_ops"
    trajectory: Annotated[bool, "Keep the results of the calls and a closing turn, too."] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _data_out.check(self.out, force=True)


# What is about answers of a model; the clone asks none.
IDLE = ("data", "command", "command_seconds", "reward_fn", "least")


def run(config: Config, events: Events) -> dict[str, Any]:
    """Write the rows; a gold answer that does not pass is left out, counted and told."""
    found: list[dict[str, Any]] = []
    why: Counter[str] = Counter()
    n = 0
    for work in config.works([]):
        n += 1
        if reason := _accept.verified(work):
            why[reason.partition(":")[0]] += 1
            continue
        assert work.gold is not None
        found.append(_accept.kept(work, work.gold))
    if why:
        events.note(f"{sum(why.values())} of {n} gold answers are not right and were left out", "warning")
    rows.write(config.out, found)
    asked = {k: v for k, v in to_dict(config).items() if k not in ("out", *IDLE)}
    stage = card.Stage(name="run and check", n_in=n, n_out=len(found), dropped=dict(why))
    made = card.Card(
        made_by="tinygpt gold-clone", settings=asked, stages=(stage,),
        sources=(card.Source(name=f"{config.world} tasks", n_rows=n),),
    )  # fmt: skip
    return {
        "out": str(config.out), "card": str(card.write(config.out, made)), "rows": len(found), "n": n,
        "why": dict(why),
    }  # fmt: skip
