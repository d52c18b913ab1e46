"""Score an agent on tau-bench or tau2-bench, with a simulated user: pass^k for k up to 4.

Both are in no package registry: --tau-root names a clone. What it imports is installed on first use, into an
environment of its own.

Example:

    tinygpt eval-tau-bench runs/agent/final --tau-root tau-bench --user-model models/qwen --out rows.jsonl
    tinygpt eval-tau-bench llama3.2 --url http://127.0.0.1:11434/v1 --tau-root tau2-bench --env telecom \\
        --user-url http://127.0.0.1:8080/v1 --trials 4 --out rows.jsonl
"""

from __future__ import annotations

import dataclasses

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._rows import show
from tinygpt.cli._suite import ALSO
from tinygpt.runs._tau_settings import Config


def call(config: Config, out: Output) -> None:
    from tinygpt.runs.evaluate import refuse_errors
    from tinygpt.runs.tau_bench import run

    rows = run(config, out.events())
    out.result([dataclasses.asdict(r) for r in rows], lambda: show(rows))
    refuse_errors(rows, config.max_errors)


main = from_config(
    Config, call, arguments=("model",), spares={"url": "model"}, also={**ALSO, "user_url": "user_endpoint"},
    omit=("tokenizer",),
)  # fmt: skip
