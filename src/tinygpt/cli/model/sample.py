"""Continue a prompt, streaming the text as it is written.

Example:

    tinygpt sample runs/book/final --prompt "Once upon a time" --tokens 100 --temperature 0.7
"""

from __future__ import annotations

import sys
from typing import Any

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, say
from tinygpt.runs.generate import Config, sample


def call(config: Config, out: Output) -> None:
    config = config.seeded()
    seed = config.seed
    assert seed is not None
    prompt = sys.stdin.read() if config.prompt == "-" else config.prompt
    tell = not out.quiet and not out.json
    answers: list[dict[str, Any]] = [
        {"text": "", "tokens": 0, "finish_reason": "", "seed": seed + i} for i in range(config.n)
    ]
    for i, piece in sample(config, prompt, out.events()):
        answer = answers[i]
        if tell:  # once the model and the prompt were found to be good
            print(f"seed {seed}", file=sys.stderr)
            tell = False
        if not out.json:
            start = (f"\n--- {i + 1} ---\n" if config.n > 1 else "") + prompt if not answer["tokens"] else ""
            say(start + piece.text, end="" if piece.finish_reason is None else "\n")
        answer["text"] += piece.text
        answer["tokens"] += 1
        answer["finish_reason"] = piece.finish_reason or ""
    if out.json:
        out.result({"prompt": prompt, "answers": answers})


main = from_config(
    Config,
    call,
    arguments=("model",),
    rename={"max_tokens": "tokens"},
    also={
        "adapter": "lora",
        "adapter_weight": "lora_weight",
        "sinks": "streaming_llm_sink",
        "window": "streaming_llm_window",
        "draft_model": "draft",
        "draft_tokens": "speculative_k",
    },
    needs={"sinks": "window"},
)
