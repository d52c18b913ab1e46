"""Compare a base with adapters trained on it: loss on held-out text, answers, rows known by heart.

Differences are paired: the same windows, the same questions. The matrix asks every question of the base, of
the base with a few examples before it, of the adapter, and of the adapter with passages found in a folder.

Example:

    tinygpt compare base.tinygpt --adapter runs/tuned/final --corpus held_out.txt
    tinygpt compare base.tinygpt --adapter a --adapter b --data held_out.jsonl --documents notes/
    tinygpt compare base.tinygpt --adapter a --memorise train.jsonl --out report.html
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, say, table, visible
from tinygpt.runs._compare_page import tables
from tinygpt.runs.compare_adapters import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())

    def render() -> None:
        for title, head, lines in tables(found):
            table(head, lines, title=title)
            print()
        if any(" ?" in cell for _, _, lines in tables(found) for line in lines for cell in line):
            print("?: the interval holds 0, so this could be chance")
        for sample in found["samples"]:
            print(f"--- {visible(sample['prompt'])}")
            for name, text in sample.items():
                if name != "prompt":
                    say(f"[{name}] {text}")
        if config.out is not None:
            print(f"wrote {config.out}")

    out.result(found, render)


main = from_config(Config, call, arguments=("base",), also={"adapter": "lora"})
