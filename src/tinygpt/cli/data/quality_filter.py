"""Keep the texts that a classifier finds good, or score all of them.

Example:

    tinygpt quality-filter crawl.jsonl --classifier quality.tinygpt --out good.jsonl --threshold 0.7
    tinygpt quality-filter crawl.jsonl --classifier quality.tinygpt --out best.jsonl --keep-percent 20
    tinygpt quality-filter crawl.jsonl --classifier quality.tinygpt --score scores.jsonl
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table
from tinygpt.runs.quality_filter import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())

    def show() -> None:
        gone = [(f"left out: {why}", n) for why, n in found["dropped"].items() if n]
        lines = [("lines", found["pieces"]), ("lines kept", found["pieces_kept"])] if config.per_line else []
        table(["documents", "n"], [("read", found["read"]), *gone, ("reach it", found["kept"]), *lines])
        print(f"threshold {found['threshold']:.4g}")
        for what in ("out", "score", "card"):
            if found.get(what):
                print(f"wrote {found[what]}")

    out.result(found, show)


main = from_config(Config, call, arguments=["path"])
