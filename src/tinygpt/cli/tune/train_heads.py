"""Train heads beside a frozen model that guess its next tokens, for faster decoding.

The model keeps its weights. Medusa's heads guess several places ahead at once, EAGLE's layer writes on by
itself; `accept_k` of the held-out text tells how often the k-th guess is the model's own choice.

Example:

    tinygpt train-heads runs/book/final --type medusa --corpus book.txt --out book.heads --steps 500
    tinygpt sample runs/book/final --heads book.heads/final --prompt "Once upon a time"
"""

from __future__ import annotations

import shlex
from pathlib import Path

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._train import KNOBS, finish
from tinygpt.runs.heads import IDLE, Config, run


def call(config: Config, out: Output) -> int:
    def use(where: Path) -> str:
        worn = [f"--adapter={path}" for path in config.adapter]
        return shlex.join(["tinygpt", "sample", str(config.base), *worn, "--heads", str(where)])

    return finish(run(config, out.events()), config.out, out, use=use)


main = from_config(
    Config, call, arguments=("base",), also={"context": "ctx"}, knobs=KNOBS, omit=IDLE,
)  # fmt: skip
