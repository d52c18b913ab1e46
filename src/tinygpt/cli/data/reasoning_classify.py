"""Tell how many steps a question takes: train on labelled rows, label others, or draw a mix.

Classes are single-hop, multi-hop, comparison and other, in the column reasoning_depth. What is judged is a
row's prompt or text, or the last turn of the user.

Example:

    tinygpt reasoning-classify --train labelled.jsonl --out depth.tinygpt
    tinygpt reasoning-classify --score rows.jsonl --model depth.tinygpt --out scored.jsonl
    tinygpt reasoning-classify --filter scored.jsonl --target-mix single=.4,multi=.6 --out mix.jsonl
"""

from __future__ import annotations

from tinygpt.cli._classifier import told
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table
from tinygpt.runs.reasoning_classify import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())
    if config.train:
        return told(found, out)

    def show() -> None:
        had: dict[str, int] = found.get("had", found["classes"])
        lines = [(name, had[name], found["classes"].get(name, 0)) for name in had]
        table(["class", "rows", "written"], lines)
        for why, n in found["dropped"].items():
            print(f"left out: {why} {n:,}")
        print(f"wrote {found['out']}\nwrote {found['card']}")

    out.result(found, show)


main = from_config(Config, call)
