"""Bake an adapter into its base model: one directory that any tool opens, without the adapter.

What rounding takes of the adapter is measured. Into a quantized base nothing is written when packing it again
would lose the adapter.

Example:

    tinygpt bake-lora runs/book/final runs/tuned/final --out baked
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, cell
from tinygpt.runs.bake import Config, run


def call(config: Config, out: Output) -> None:
    made = run(config, out.events())

    def render() -> None:
        print(f"{made['out']}: {made['adapter']['name']} baked into {made['matrices']} matrices")
        print(
            f"rounding took {cell(100 * made['error'])} % of what the adapter changes "
            f"(most in {made['worst']}: {cell(100 * made['worst_error'])} %); "
            f"of its effect on the logits {cell(100 * made['logits_error'])} %"
        )

    out.result(made, render)


main = from_config(Config, call, arguments=("base", "adapter"))
