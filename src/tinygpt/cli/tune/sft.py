"""Tune a model on conversations or question-answer rows, learning the answers only.

With a base it trains an adapter (or all weights with --full); without one it trains a fresh model.

Example:

    tinygpt sft runs/book/final --data rows.jsonl --out runs/tuned --steps 200
"""

from __future__ import annotations

from tinygpt.cli._mask import show
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._train import ADAPTER, CHOICES, KNOBS, NEEDS, PACKED, finish
from tinygpt.runs.sft import Config, masks, run


def call(config: Config, out: Output) -> int:
    if config.show_mask:
        return show(masks(config, out.events()), out)
    return finish(run(config, out.events()), config.out, out)


main = from_config(
    Config, call, arguments=("base",), needs=NEEDS,
    also={
        "context": "max_seq", "clip": "grad_clip", "lr_layer_decay": "llrd", "z_loss": "z_loss_weight",
        "pack": "pack_mode", "held_out": "val_split", "eval_every": "val_every", **PACKED,
    },
    knobs={**KNOBS, **ADAPTER, "exclude": "adapter.exclude"}, choices=CHOICES, spares={"show_mask": "out"},
    slots=True,
)  # fmt: skip
