"""Train a model on plain text, from scratch or from a base.

Example:

    tinygpt train --corpus book.txt --out runs/book --preset tiny --steps 500
"""

from __future__ import annotations

from tinygpt.cli._knobs import Knob
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._train import CHOICES, KNOBS, NEEDS, finish
from tinygpt.runs.pretrain import Config, run


def call(config: Config, out: Output) -> int:
    return finish(run(config, out.events()), config.out, out)


# The original's names of some settings work too; PLAN.md lists all that differ.
ALSO = {
    "accumulate": "accum", "context": "ctx", "lr": "max_lr", "schedule": "lr_schedule", "clip": "grad_clip",
    "held_out": "val_split", "eval_every": "val_every", "z_loss": "z_loss_weight",
}  # fmt: skip
OWN = {
    "decay_steps": "schedule.decay", "decay_shape": "schedule.shape",
    "galore_rank": Knob("optimizer.rank", "galore", chooses=True, off=0),
    "galore_update_every": Knob("optimizer.every", "galore"),
}  # fmt: skip
main = from_config(Config, call, also=ALSO, knobs={**KNOBS, **OWN}, needs=NEEDS, choices=CHOICES, slots=True)
