"""Tune a model on plain text, read with its own tokenizer: an adapter, or all weights with --full.

Example:

    tinygpt finetune runs/book/final --corpus notes/ --out runs/notes --steps 200
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._train import CHOICES, KNOBS, finish
from tinygpt.runs.finetune import Config, run


def call(config: Config, out: Output) -> int:
    return finish(run(config, out.events()), config.out, out)


main = from_config(
    Config, call, arguments=("base",),
    # What describes a fresh model means nothing here.
    omit=("tokenizer", "preset", "depth", "regime"),
    also={
        "context": "ctx", "clip": "grad_clip", "lr_layer_decay": "llrd", "z_loss": "z_loss_weight",
        "qlora_bits": "bits", "qlora_mode": "mode", "qlora_group_size": "group_size",
        "held_out": "val_split", "eval_every": "val_every",
    },
    knobs={**KNOBS, "rank": "adapter.rank", "alpha": "adapter.alpha", "targets": "adapter.targets"},
    choices={"eval_tasks": CHOICES["eval_tasks"]},
)  # fmt: skip
