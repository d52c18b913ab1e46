"""Check that trajectories can be had again: a model gives their tokens the log-probabilities it gave then.

Exit code 0: all that was compared is equal, 1: a file differs, 2: nothing could be compared. Files of other
models, of version 1, or whose tokens are not known are left out, counted and named.

Example:

    tinygpt replay traces/ --model runs/helper/final
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, line
from tinygpt.core.errors import GateFailed
from tinygpt.runs.replay import Config, run

SHOWN = 10  # files that are named


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())
    equal = f"{found['equal']:,} of {found['compared']:,} files equal"

    def render() -> None:
        line(
            f"{equal} within {found['tolerance']:g} nats: {found['tokens']:,} tokens, "
            f"at most {found['max_difference']:.3g}, on average {found['mean_difference']:.3g}"
        )
        if found["redacted_in_part"]:
            line(
                f"{found['redacted_in_part']:,} of them are redacted: "
                f"{found['hidden_tokens']:,} tokens were left out"
            )
        named("differ", found["differ"])
        named("left out", found["not_compared"])

    def named(what: str, files: list[dict[str, Any]]) -> None:
        for why, n in Counter(file["why"] for file in files).items():
            line(f"{n:,} {what}: {why}")
        for file in files[:SHOWN]:
            line(f"  {file['file']}: {file['why']}")
        if len(files) > SHOWN:
            line(f"  and {len(files) - SHOWN:,} more")

    out.result(found, render)
    if found["different"]:
        raise GateFailed(
            f"{found['different']:,} of {found['compared']:,} files differ",
            hint="they were written by other code, on another machine, or changed since",
        )


main = from_config(
    Config, call, arguments=("files",), also={"adapter": "lora", "adapter_weight": "lora_weight"}
)
