"""Time a model: first token, prefill and decode speed, gaps between tokens, memory; or a server under load.

Example:

    tinygpt bench runs/book/final --batch-sizes 1,8,32 --prompt-tokens 64,512
    tinygpt bench runs/book/final --speculate ngram
    tinygpt bench --url http://127.0.0.1:8080/v1 --concurrency 1,8,32 --plot load.png
"""

from __future__ import annotations

import sys

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, size, table
from tinygpt.runs.bench import Config, run

# Columns: the figure, or three percentiles of it in one cell.
COLUMNS = {
    "batch_size": "streams", "concurrency": "clients", "prompt_tokens": "prompt",
    "ttft_ms": "first token, ms", "itl_ms": "between tokens, ms",
    "prefill_tok_s": "prefill tok/s", "decode_tok_s": "decode tok/s",
    "acceptance": "guesses right", "tokens_per_pass": "tokens a pass", "speed_ratio": "times plain",
    "tok_s": "all tok/s", "energy_per_token_j": "J a token", "peak_memory_bytes": "memory so far",
}  # fmt: skip


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())

    def render() -> None:
        settings = found.pop("settings")
        table(["what", "value"], [[k, v] for k, v in found.items() if k != "warnings"])
        print()
        names = [n for n in COLUMNS if n in settings[0] or f"{n}_p50" in settings[0]]
        more = {"prefill_tok_s": " of one", "decode_tok_s": " of one"} if "concurrency" in names else {}
        heads = [COLUMNS[n] + (" (p50 p90 p99)" if n.endswith("_ms") else more.get(n, "")) for n in names]
        table(heads, [[_cell(one, name) for name in names] for one in settings])

    for text in found.get("warnings", ()):
        print(f"warning: {text}", file=sys.stderr)
    out.result(found, render)


def _cell(one: dict[str, float], name: str) -> object:
    if name.endswith("_ms"):
        return " ".join(f"{one.get(f'{name}_p{rank}', float('nan')):.1f}" for rank in (50, 90, 99))
    return size(one[name]) if name.endswith("_bytes") else one.get(name)


main = from_config(
    Config,
    call,
    arguments=("model",),
    also={"batch_sizes": "batch_size", "draft_model": "draft"},
    spares={"url": "model"},
)
