"""Make a text shorter for a question: the sentences that it needs are kept, in their order, and none is cut.

Example:

    tinygpt compress --query "when was the mill built?" --in history.txt --ratio 0.3
    tinygpt compress --query "how does it start?" --in - --kind head --model runs/head < README.md
    tinygpt compress --data questions.jsonl --ratio 0.3 --out kept.jsonl
    tinygpt eval-scaledown --predictions kept.jsonl
"""

from __future__ import annotations

import sys
from typing import Any

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, line, say
from tinygpt.runs._compress_settings import Config
from tinygpt.runs.compress import run


def call(config: Config, out: Output) -> None:
    found = run(config, sys.stdin.read, out.events())
    out.result(found, lambda: _shown(config, found))


def _shown(config: Config, found: dict[str, Any]) -> None:
    if config.data is not None:
        line(f"{found['rows']} rows in {found['out']}, {found['kept_ratio']:.3f} of their contexts kept")
    elif config.out is not None:
        line(f"{found['length']} of {found['of']} {found['unit']} in {config.out}")
    else:
        say(found["kept"])


main = from_config(
    Config, call, rename={"document": "in"}, also={"document": "doc", "ratio": "keep_frac"},
)  # fmt: skip
