"""Answer every row of a file: prompts or conversations in, the same rows with answers out.

Rows are answered many at a time. Given again, the command goes on where it was left. With --url a server
answers; its key, where it wants one, is read from OPENAI_API_KEY.

Example:

    tinygpt generate runs/book/final --data questions.jsonl --out answers.jsonl --max-tokens 100
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.runs._asking import Config
from tinygpt.runs.predict import run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())

    def render() -> None:
        kept = f", {found['kept']} were there already" if found["kept"] else ""
        skipped = f", {found['skipped']} skipped" if found["skipped"] else ""
        print(f"{found['written']} answers to {found['rows']} rows{kept}{skipped}: {found['out']}")

    out.result(found, render)


main = from_config(
    Config, call, arguments=("model",), needs={"sinks": "window", "seconds": "url", "tries": "url"},
    also={
        "adapter": "lora", "adapter_weight": "lora_weight", "draft_model": "draft",
        "draft_tokens": "speculative_k",
    }, spares={"url": "model"},
)  # fmt: skip
