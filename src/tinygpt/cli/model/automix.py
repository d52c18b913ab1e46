"""Find the mixture of corpora that helps most on a target text, by training many small models.

Each proxy run trains a small model on one mixture and measures it on the target, in bits per byte. A
surrogate proposes what to try next. The result is told with its gain over the even mixture, for two seeds.

Example:

    tinygpt automix --corpus code=src --corpus prose=books --target manual.txt --proxy-steps 500
"""

from __future__ import annotations

from typing import Any

from tinygpt.cli._exit import INTERRUPTED
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, cell, table
from tinygpt.model import presets
from tinygpt.runs.automix import Config, run


def call(config: Config, out: Output) -> int:
    found = run(config, out.events())
    out.result(found, lambda: show(config, found))
    return INTERRUPTED if found.get("status") == "interrupted" else 0


def show(config: Config, found: dict[str, Any]) -> None:
    names = list(config.named())
    rows = sorted(found["rows"], key=lambda row: row.get("bits_per_byte", 0.0))
    shown = ["iter", "source", *([] if config.dry_run else ["seed", "bits_per_byte", "predicted"])]
    lines = [[*(row.get(key) for key in shown), *row["ratio"].values()] for row in rows]
    if not config.dry_run:
        lines = [[*line[:4], None if line[4] is None else -line[4], *line[5:]] for line in lines]
    table([*(key.replace("_", " ") for key in shown), *names], lines)
    if config.dry_run:
        print(f"at most {found['runs']} proxy runs of {cell(found['tokens_per_run'])} tokens each")
        return
    if not found["runs"]:
        print("stopped before a proxy run was finished; the same command begins again")
        return
    print("best: " + ", ".join(f"{name} {share:g}" for name, share in found["ratio"].items()))
    if found["gain"] is not None:
        noise = "" if found["noise"] is None else f" ± {found['noise']:.4f}"
        clear = "clear of the noise" if found["clear"] else "not clear of the noise"
        print(f"better than the even mixture by {found['gain']:.4f}{noise} bits a byte: {clear}")
    print(f"{found['status']} after {found['runs']} proxy runs, report in {config.out}")


main = from_config(
    Config,
    call,
    choices={"preset": presets.names()},
    also={"lr": "max_lr", "context": "ctx"},
)
