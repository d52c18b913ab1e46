"""Train a model on plain text, from scratch or from a base.

Example:

    tinygpt train --corpus book.txt --out runs/book --preset tiny --steps 500
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._train import finish
from tinygpt.runs.pretrain import Config, run


def call(config: Config, out: Output) -> int:
    return finish(run(config, out.events()), config.out, out)


main = from_config(Config, call)
