"""Improve a model by evolution strategies: random changes of its weights, and those that help are kept.

No gradients are taken, so the reward may be any number: minus the loss, or how often the model writes the
right answer. Memory is that of the model and one tensor more.

Example:

    tinygpt es runs/tuned/final --data rows.jsonl --reward exact --out runs/better --steps 50
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._train import CHOICES, KNOBS, finish
from tinygpt.runs.es import IDLE, Config, run


def call(config: Config, out: Output) -> int:
    return finish(run(config, out.events()), config.out, out)


main = from_config(
    Config, call, arguments=("base",), also={"context": "ctx"}, knobs=KNOBS, choices=CHOICES,
    needs={"glob": "corpus", "template": "data"}, omit=IDLE,
)  # fmt: skip
