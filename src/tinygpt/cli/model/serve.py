"""Serve models to every client of OpenAI's, Ollama's or Anthropic's API.

The first model is the default one. An adapter given as --lora NAME=PATH is asked for as MODEL+NAME.

Example:

    tinygpt serve runs/book/final
    tinygpt serve base=models/qwen --lora sql=runs/sql/final --quantize 4 --port 0
"""

from __future__ import annotations

import sys
from typing import Any

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, say
from tinygpt.runs._serve_settings import Config


def call(config: Config, out: Output) -> None:
    from tinygpt.runs.serve import run

    def tell(facts: dict[str, Any]) -> None:
        if out.json:
            out.result(facts)
        say(
            "" if out.json else f"{', '.join(facts['models'])} at {facts['url']}",
            end="" if out.json else "\n",
        )

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    run(config, out.events(), tell, log)


main = from_config(
    Config, call, arguments=("model",), also={"lora": "adapter", "lora_weight": "adapter_weight"}
)
