"""Turn the known right calls of tasks into trajectories: run, checked, with results and a closing turn.

Example:

    tinygpt gold-clone --world file_ops --n 5000 --out gold.jsonl
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.runs._worlds import WORLDS
from tinygpt.runs.gold_clone import IDLE, Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())
    out.result(
        found,
        lambda: print(f"{found['rows']} of {found['n']} tasks in {found['out']}, card: {found['card']}"),
    )


main = from_config(Config, call, omit=IDLE, choices={"world": WORLDS.names()})
