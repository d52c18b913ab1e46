"""Build a specialist in minutes: the file-operations demo, or from your own rows, from nothing or on a base.

From nothing it makes a tokenizer, trains a small model on the answers, measures it against untrained (and, in
the demo, against hand-written rules) on held-out rows, and packages the result with its card and hashes. On a
base it looks at the rows, plans, trains an adapter, and says whether that was worth it: measured against the
base as it is, and with examples in its prompt; on a terminal it ends in a chat with it.

Example:

    tinygpt quickstart --demo
    tinygpt quickstart --data my.jsonl --minutes 10
    tinygpt quickstart --data my.jsonl --base hf://Qwen/Qwen3-0.6B --dry-run
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._specialist import show_demo, show_own, show_plan, show_tuned
from tinygpt.cli._talk import talk
from tinygpt.project.start import Config, run
from tinygpt.runs.generate import ChatConfig


def call(config: Config, out: Output) -> None:
    found: dict[str, Any] = run(config, out.events())
    own = {"demo": show_demo, "own": show_own, "base": show_plan if config.dry_run else show_tuned}
    out.result(found, lambda: own[config.kind](found))
    talks = sys.stdin.isatty() and sys.stdout.isatty() and not (out.json or out.quiet)
    if config.kind == "base" and not config.dry_run and talks:
        talk(ChatConfig(model=Path(found["base"]["path"]), adapter=(Path(found["adapter"]),)), out)


main = from_config(Config, call)
