"""Time training steps of a preset on random tokens.

Example:

    tinygpt bench-train --preset huge --batch 4 --context 512
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table
from tinygpt.model import presets
from tinygpt.runs.bench_train import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())
    out.result(found, lambda: table(["what", "value"], list(found.items())))


main = from_config(Config, call, choices={"preset": presets.names()})
