"""lm-eval's own command line, which knows the model `tinygpt` here: the script `tinygpt-lm-eval`.

lm-eval up to 0.4.13 looks a model up in a list of its own before any other package is asked; later ones read
the entry points `lm_eval.models`, so that plain `lm_eval --model tinygpt` works. This works with both."""

from __future__ import annotations

import sys

from tinygpt.cli import _exit

NAME, TARGET = "tinygpt", "tinygpt.runs._lm_eval_model:TinyGPT"


def start() -> int:
    """Its exit code."""
    from tinygpt.runs._lm_eval_model import template_lm

    template_lm()  # or a clear error
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)
    cli_evaluate()
    return 0


def main() -> None:
    """The script."""
    sys.exit(_exit.run(start))


if __name__ == "__main__":
    main()
