"""Train a byte-level BPE tokenizer on your text.

Example:

    tinygpt tokenize-train --corpus src/ --glob "*.py" --out tok --vocab-size 4096
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table
from tinygpt.runs.tokenize import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())
    out.result(found, lambda: table(["what", "value"], list(found.items())))


main = from_config(Config, call)
