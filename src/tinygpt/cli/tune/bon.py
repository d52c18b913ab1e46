"""Best of n: draw several answers and let a verifier choose, or see with --scan what more of them are worth.

The verifier is the model itself, the likeness to a corpus, a command, a judge, or a reward.

Example:

    tinygpt bon runs/book/final --prompt "ROMEO:" --scan 1,2,4,8 --verifier self --out curve.json
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, say, table
from tinygpt.runs._bon import Config
from tinygpt.runs.bon import run


def call(config: Config, out: Output) -> None:
    config = config.seeded()
    found = run(config, out.events())

    def render() -> None:
        if curve := found.get("curve"):
            table(
                list(curve[0]),
                [list(point.values()) for point in curve],
                title=f"best of n by {config.verifier}",
            )
        else:
            for one in found["answers"]:
                score = "not judged" if one["score"] is None else f"{one['score']:.4g}"
                say(f"{score}\t{one['best']}")
        if config.out is not None:
            print(f"written to {config.out}")

    out.result(found, render)


main = from_config(
    Config, call, arguments=("model",), rename={"max_tokens": "tokens"},
    also={"adapter": "lora", "adapter_weight": "lora_weight"}, needs={"sinks": "window"},
)  # fmt: skip
