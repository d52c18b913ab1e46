"""Merge models of one architecture into one: linear, slerp, task arithmetic, TIES or DARE.

Example:

    tinygpt merge runs/a/final runs/b/final --base runs/base/final --method ties --out merged
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.runs.merge import Config, run


def call(config: Config, out: Output) -> None:
    made = run(config, out.events())
    of = " + ".join(f"{w:g} x {m['path']}" for w, m in zip(made["weights"], made["models"], strict=True))
    on = f" on {made['base']['path']}" if made["base"] else ""
    text = f"{made['out']}: {made['method']['name']} of {of}{on}, {made['tensors']} tensors"
    out.result(made, lambda: print(text))


main = from_config(
    Config, call, arguments=("models",),
    knobs={
        "density": "method.density", "normalize": "method.normalize", "scale": "method.scale",
        "dare_seed": "method.seed",
    },
)  # fmt: skip
