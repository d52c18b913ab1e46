"""Tune a model on preferences: make better answers likelier than worse ones, with DPO or another loss.

It trains an adapter, or all weights with --full. The reference's log-probabilities are computed once, before
training, and kept in the cache, so that the base is never held twice.

Example:

    tinygpt dpo runs/tuned/final --data pairs.jsonl --out runs/preferred --steps 100
"""

from __future__ import annotations

from tinygpt.cli._knobs import Knob
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._train import ADAPTER, CHOICES, KNOBS, PACKED, finish
from tinygpt.runs._preference import IDLE, Config
from tinygpt.runs.preference import run


def call(config: Config, out: Output) -> int:
    return finish(run(config, out.events()), config.out, out)


main = from_config(
    Config, call, arguments=("base",),
    also={"context": "max_seq", "clip": "grad_clip", "lr_layer_decay": "llrd", **PACKED},
    knobs={
        **KNOBS, **ADAPTER, "exclude": "adapter.exclude",
        "beta": "loss_type.beta", "label_smoothing": "loss_type.label_smoothing",
        "gamma": Knob("loss_type.gamma", "simpo"), "orpo_lambda": Knob("loss_type.odds", "orpo"),
    },
    choices=CHOICES, omit=IDLE,
)  # fmt: skip
