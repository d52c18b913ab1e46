"""Score a model on tasks of lm-eval, and write eval rows.

The model is one of this machine, a server's (--url), or one that transformers opens (--hf-model). A server is
tried first: one that does not answer, or does not tell log-probabilities where a task needs them, gives no
rows. docs/lm-eval.md shows tasks whose data are files of your own.

Example:

    tinygpt run-lm-eval runs/tutor/final --tasks arc_easy,gsm8k --limit 200 --out rows.jsonl
    tinygpt run-lm-eval runs/tutor/final --tasks my_task --include-path tasks --apply-chat-template
    tinygpt run-lm-eval tutor --url http://127.0.0.1:8080/v1 --tokenizer runs/tutor/final --tasks arc_easy
    tinygpt run-lm-eval --hf-model models/peer --tasks arc_easy --baseline --out rows.jsonl
"""

from __future__ import annotations

import dataclasses

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._rows import show
from tinygpt.cli._suite import ALSO
from tinygpt.runs.evaluate import refuse_errors
from tinygpt.runs.lm_eval import Config, run


def call(config: Config, out: Output) -> None:
    rows = run(config, out.events())
    out.result([dataclasses.asdict(row) for row in rows], lambda: show(rows))
    refuse_errors(rows, config.max_errors)


main = from_config(
    Config,
    call,
    arguments=("model",),
    also=ALSO,
    spares={"url": "model", "hf_model": "model"},
)
