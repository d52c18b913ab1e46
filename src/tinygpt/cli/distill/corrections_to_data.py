"""Make rows for sft or dpo of the corrections that were kept, with rows of earlier training beside them.

Of several corrections of one question the last counts. Rows of --replay that ask what was corrected are not
replayed.

Example:

    tinygpt corrections-to-data --out corrected.jsonl --replay base.jsonl --replay-ratio 3
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.runs.corrections import Convert, convert


def call(config: Convert, out: Output) -> None:
    found = convert(config, out.events())

    def render() -> None:
        print(f"{found['used']} of {found['corrections']} corrections, {found['replayed']} rows replayed")
        for reason, n in found["dropped"].items():
            print(f"  {n} left out: {reason}")
        print(f"out: {found['out']}\ncard: {found['card']}")

    out.result(found, render)


main = from_config(Convert, call, needs={"seed": "replay", "replay_ratio": "replay"})
