"""Have a model write questions as its users would, answer them, and keep what is worth it.

Nothing is asked: after the mark of a user's turn a model that knows conversations writes one itself. What is
cut off, too short, repeats itself, is in another language, was seen before or scores too low is dropped, and
counted.

Example:

    tinygpt magpie runs/chat/final --out written.jsonl --count 500 --language en
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.data.template import _choice
from tinygpt.runs._magpie import Config
from tinygpt.runs.magpie import run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())

    def render() -> None:
        print(f"{found['kept']} of {found['attempts']} conversations kept: {found['out']}")
        for reason, n in found["dropped"].items():
            print(f"  {n} dropped: {reason}")
        print(f"card: {found['card']}")

    out.result(found, render)


main = from_config(
    Config, call, arguments=("model",), spares={"url": "model"}, also={"adapter": "lora"},
    choices={"template": _choice.names()},
)  # fmt: skip
