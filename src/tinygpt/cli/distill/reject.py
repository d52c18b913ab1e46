"""Draw several answers to each piece of work and keep those that are right, as rows for sft.

Right is what leaves a simulated world in the right state, what a command accepts, or what a reward finds
good.

Example:

    tinygpt reject runs/teacher/final --world file_ops --n 2000 --samples 4 --out kept.jsonl
    tinygpt reject runs/teacher/final --data asked.jsonl --command "python check.py" --out kept.jsonl
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table
from tinygpt.runs._worlds import WORLDS
from tinygpt.runs.reject import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())

    def render() -> None:
        names = ("n", "n_answers", "n_right", "rate", "n_solved", "solved")
        parts = {**found["groups"], "all": found}
        cells = [[group, *(part[name] for name in names)] for group, part in parts.items()]
        table(("work", *names), cells)
        print(f"{found['rows']} rows in {found['out']}, their card: {found['card']}")

    out.result(found, render)


main = from_config(
    Config,
    call,
    arguments=("model",),
    also={"adapter": "lora", "url": "endpoint"},
    spares={"url": "model"},
    choices={"world": WORLDS.names()},
)
