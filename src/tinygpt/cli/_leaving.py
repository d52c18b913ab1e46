"""What would leave this machine, shown on the terminal before it does."""

from __future__ import annotations

import sys

from tinygpt.agent.escalate import Confirm, Preview
from tinygpt.cli._render import line, typed
from tinygpt.core.errors import ConfigError

ASKED = "send this? [y]es, [N]o, [a]ll of the text: "


def confirming(*, yes: bool, quiet: bool = False) -> Confirm:
    """Who says whether something may leave: the person at the terminal, or `yes` for all of it. ConfigError
    where there is neither: silence is no yes."""

    def confirm(preview: Preview) -> bool:
        if yes:
            if not quiet:
                _show(preview.heading())
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise ConfigError(
                f"nobody can be asked whether {preview.out.n_letters:,} letters may go to {preview.host}: "
                "there is no terminal, so nothing was sent",
                hint="--yes sends without asking",
            )
        _show(preview.lines())
        while True:
            print(ASKED, end="", file=sys.stderr, flush=True)
            said = typed().strip().lower()
            if said not in ("a", "all"):
                return said in ("y", "yes")
            _show(preview.lines(None))

    return confirm


def _show(lines: list[str]) -> None:
    for one in lines:
        line(one, sys.stderr)
