"""Continue a prompt, streaming the text as it is written.

Several answers (--n) are written at the same time, and shown one after the other.

Example:

    tinygpt sample runs/book/final --prompt "Once upon a time" --tokens 100 --temperature 0.7
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, say, table
from tinygpt.runs.generate import Config, sample


def call(config: Config, out: Output) -> None:
    config = config.seeded()
    prompt = sys.stdin.read() if config.prompt == "-" else config.prompt
    tell = not out.quiet and not out.json
    answers: list[dict[str, Any]] = []
    for piece in sample(config, prompt, out.events()):
        if tell:  # once the model and the prompt were found to be good
            print(f"seed {config.seed}", file=sys.stderr)
            tell = False
        start = ""
        if piece.index == len(answers):
            answers.append({"text": "", "tokens": 0})
            start = (f"\n--- {piece.index + 1} ---\n" if config.n > 1 else "") + prompt
        answer = answers[piece.index]
        answer["text"] += piece.text
        answer["tokens"] += piece.n_tokens
        if not out.json:
            say(start + piece.text, end="" if piece.finish_reason is None else "\n")
        if piece.finish_reason is not None:
            answer |= {"finish_reason": piece.finish_reason, "seed": piece.seed}
            if config.prompt_cache_dir is not None:
                answer["cached_tokens"] = piece.n_cached
            if piece.mean_logprob is not None:
                answer["mean_logprob"] = piece.mean_logprob
            if piece.tokens is not None:
                answer["logprobs"] = [dataclasses.asdict(token) for token in piece.tokens]
                if not out.json:
                    table(["token", "log p", "alternatives"], [*map(_row, answer["logprobs"])])
    if out.json:
        out.result({"prompt": prompt, "answers": answers})


def _row(scored: dict[str, Any]) -> list[Any]:
    """A token of a report; its text as a literal, so that spaces show."""
    top = "  ".join(f"{text!r} {logprob:.3f}" for text, _, logprob in scored["top"])
    return [repr(scored["token"]), scored["logprob"], top]


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
