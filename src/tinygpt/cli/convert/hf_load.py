"""Open a Hugging Face model, and write it as a checkpoint that computes the same.

Without --out it is opened and asked for the next tokens of a text; with it the written model is opened again
and must give the same logits.

Example:

    tinygpt hf-load hf://org/name --out base.tinygpt --dtype bf16
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, cell, size, table
from tinygpt.runs.hf_load import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())

    def render() -> None:
        names = ("from", "architecture", "opens", "why", "parameters", "quantisation", "out", "dtype")
        table(["what", "value"], [(n, found[n]) for n in names if found.get(n) is not None])
        table(["next token", "chance"], [(repr(t["token"]), t["p"]) for t in found["next"]])
        if "out" in found:
            same = (
                "the same logits" if found["same_logits"] else f"logits {cell(found['logits_apart'])} apart"
            )
            print(f"written {size(found['bytes'])}; opened again it gives {same}")

    out.result(found, render)


main = from_config(Config, call, arguments=("model",))
