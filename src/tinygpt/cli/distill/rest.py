"""Let a model learn from its own right answers: rounds of answering, checking and tuning (ReST).

Example:

    tinygpt rest runs/student/final --world file_ops --n 2000 --rounds 2 --out runs/rest --set sft.steps=300
"""

from __future__ import annotations

from tinygpt.cli._exit import INTERRUPTED
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table
from tinygpt.project.rest import Config, run
from tinygpt.runs._worlds import WORLDS


def call(config: Config, out: Output) -> int:
    found = run(config, out.events())

    def render() -> None:
        cells = [
            [i, one["rows"], one["rate"], one["solved"], one["path"]]
            for i, one in enumerate(found["rounds"], 1)
        ]
        table(("round", "rows", "right", "solved", "model"), cells)
        if not found["done"]:
            print("continue with the same command")

    out.result(found, render)
    return 0 if found["done"] else INTERRUPTED


REFUSED = ("url", "batch", "seconds", "tries", "adapter", "adapter_weight", "force")
main = from_config(Config, call, arguments=("model",), omit=REFUSED, choices={"world": WORLDS.names()})
