"""Show where the time of served requests went: waiting, prompt, each token.

Example:

    tinygpt infer-heatmap traces/
    tinygpt infer-heatmap 'traces/2026*.json' --html times.html
"""

from __future__ import annotations

import shutil
from textwrap import fill

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table
from tinygpt.runs._heatmap_page import answers, bar
from tinygpt.runs.heatmap import Config, run

WIDTH = 110  # of a line where there is no terminal


def call(config: Config, out: Output) -> None:
    found = run(config)

    def render() -> None:
        width = max(20, shutil.get_terminal_size((WIDTH, 0)).columns)
        for one in found["requests"]:
            spans = ", ".join(f"{s['name']} {s['ms']:.1f}" for s in one["spans"])
            who = f"{one['request_id']} {one['route']} {one.get('model') or '-'}"
            print(fill(f"{who}: {one['total_ms']:.1f} ms ({spans})", width, subsequent_indent="  "))
            for answer in answers(one):
                letters = bar(one, answer)
                for i in range(0, max(1, len(letters)), width - 4):
                    print(f"  [{letters[i : i + width - 4]}]")
        figures = found["summary"]
        spread = [(k, *v.values()) for k, v in figures.items() if isinstance(v, dict) and "p50" in v]
        table(["ms", "p50", "p90", "p99", "most"], spread)
        shares = ", ".join(f"{name} {share:.0%}" for name, share in figures["share"].items())
        print(f"{figures['requests']} requests, {figures['generated_tokens']} tokens: {shares}")
        if config.html is not None:
            print(f"wrote {config.html}")

    out.result(found, render)


main = from_config(Config, call, arguments=("traces",))
