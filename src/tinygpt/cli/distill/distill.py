"""Teach a small model what a larger one finds likely, on plain text or on the answers of rows.

The student may be a base with an adapter, a base with all weights (--full), or a fresh model.
With --cache-teacher the teacher is asked once, before training, and is not in memory while the student
learns; another run over the same rows does not open it at all.

Example:

    tinygpt distill runs/small/final --teacher runs/large/final --data rows.jsonl --full --out runs/taught
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._train import ADAPTER, CHOICES, KNOBS, NEEDS, PACKED, finish
from tinygpt.runs._teacher_cache import told
from tinygpt.runs.distill import Config, cache, run


def call(config: Config, out: Output) -> int:
    if config.cache_only:
        facts = cache(config, out.events())
        out.result(facts, lambda: print(f"{told(facts)}\nkept in {facts['path']}"))
        return 0
    return finish(run(config, out.events()), config.out, out)


main = from_config(
    Config, call, arguments=("base",), needs=NEEDS,
    also={
        "context": "ctx", "clip": "grad_clip", "alpha": "kl_weight", "held_out": "val_split",
        "eval_every": "val_every", **{name: short for name, short in PACKED.items() if short != "mode"},
    },
    knobs={**KNOBS, "rank": ADAPTER["rank"], "targets": ADAPTER["targets"], "lora_alpha": "adapter.alpha"},
    choices=CHOICES, slots=True,
)  # fmt: skip
