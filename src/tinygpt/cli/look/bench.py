"""Time a model: first token, prefill and decode speed, memory.

Example:

    tinygpt bench runs/book/final --prompt-tokens 64 --gen-tokens 64
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table
from tinygpt.runs.bench import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())
    shown = {k: v for k, v in found.items() if k not in ("summary", "runs")} | found["summary"]
    out.result(found, lambda: table(["what", "value"], list(shown.items())))


main = from_config(Config, call, arguments=("model",))
