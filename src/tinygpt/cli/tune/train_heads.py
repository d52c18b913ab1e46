"""Train heads beside a frozen model that guess its next tokens, for faster decoding.

The model keeps its weights. Medusa's heads guess several places ahead at once, EAGLE's layer writes on by
itself; `accept_k` of the held-out text tells how often the k-th guess is the model's own choice.

Example:

    tinygpt train-heads runs/book/final --type medusa --corpus book.txt --out book.heads --steps 500
    tinygpt sample runs/book/final --heads book.heads/final --prompt "Once upon a time"
"""

from __future__ import annotations

import dataclasses
import shlex

from tinygpt.cli._exit import INTERRUPTED
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, cell, clock
from tinygpt.cli._train import HOW, KNOBS
from tinygpt.runs.heads import IDLE, Config, run


def call(config: Config, out: Output) -> int:
    result = run(config, out.events())
    stopped = result.status == "interrupted"
    where = config.out / ("steps" if stopped else "final")

    def render() -> None:
        numbers = "".join(f", {k.replace('_', ' ')} {cell(v)}" for k, v in result.metrics.items())
        how = HOW.get(result.status, result.status)
        print(f"{how} at step {result.step} after {clock(result.seconds)}{numbers}")
        print(f"saved in {where}")
        worn = [f"--adapter={path}" for path in config.adapter]
        use = shlex.join(["tinygpt", "sample", str(config.base), *worn, "--heads", str(where)])
        print("continue with the same command and --resume" if stopped else f"try: {use}")

    out.result({**dataclasses.asdict(result), "path": str(where)}, render)
    return INTERRUPTED if stopped else 0


main = from_config(
    Config, call, arguments=("base",), also={"context": "ctx"}, knobs=KNOBS, omit=IDLE,
)  # fmt: skip
