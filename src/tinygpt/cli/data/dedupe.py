"""Take duplicates, near duplicates and examples of evaluations out of data.

Equal texts are found by a hash, once case, spaces and forms of characters are alike; near duplicates
(`--near-dup`) by MinHash and the true Jaccard similarity of their shingles. Inputs may be larger than memory.

Example:

    tinygpt dedupe rows.jsonl --out clean.jsonl --near-dup --report clusters.jsonl
    tinygpt dedupe rows.jsonl --out clean.jsonl --keep best --score-field quality
    tinygpt dedupe rows.jsonl --out clean.jsonl --decontaminate gsm8k.jsonl --decontaminate humaneval.jsonl
    tinygpt dedupe notes.txt --out lines.txt --unit line --min-len 20
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table
from tinygpt.data.ngram import NORMAL
from tinygpt.runs.dedupe import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())

    def show() -> None:
        gone = [(f"left out: {why}", n) for why, n in found["dropped"].items() if n]
        counts = [("read", found["read"]), *gone, ("kept", found["kept"]), ("clusters", found["clusters"])]
        sizes = [(f"clusters of {size}", n) for size, n in list(found["sizes"].items())[:5]]
        met = found.get("evaluation")
        told = [("examples met", f"{met['met']} of {met['examples']}")] if met else []
        wheres = [(name, found[name]) for name in ("out", "card", "report") if found[name]]
        table([found["unit"], "n"], [*counts, *sizes, *told, *wheres])

    out.result(found, show)


main = from_config(
    Config,
    call,
    arguments=["paths"],
    choices={"normalise": (*NORMAL, "none")},
)
