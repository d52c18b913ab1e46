"""Ask a stronger model once: OpenAI's, Anthropic's, a server's, or a bigger one of this machine.

What would leave is shown first, without secrets, and goes out after a yes. The key is read from
OPENAI_API_KEY, ANTHROPIC_API_KEY or --key-file, and goes to the host that is named, nowhere else. The answer
streams; Ctrl-C closes the connection at once.

Example:

    tinygpt escalate --provider anthropic --prompt "Why is the sky blue?" --max-tokens 300
"""

from __future__ import annotations

import sys

from tinygpt.cli._leaving import confirming
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, cell, line, say
from tinygpt.core.errors import RemoteError
from tinygpt.runs.escalate import Config, run


def call(config: Config, out: Output) -> int:
    prompt = sys.stdin.read() if config.prompt == "-" else config.prompt

    def tell(piece: str) -> None:
        if not out.json:
            say(piece, end="")

    found = run(
        config, prompt, out.events(), confirm=confirming(yes=config.yes, quiet=out.quiet), on_text=tell
    )  # fmt: skip
    if found is None:
        line("nothing was sent", sys.stderr)
        return 1

    def render() -> None:
        say("")

    out.result(found, render)
    if found["error"]:
        raise RemoteError(
            f"the answer is not whole: {found['error']}"
            if found["text"]
            else f"{found['host']}: {found['error']}",
            hint="raise --max-tokens" if found["finish_reason"] == "length" else "",
        )
    if not out.quiet:
        cut = ", cut off at --max-tokens" if found["finish_reason"] == "length" else ""
        cost = "" if found["cost"] is None else f", cost {cell(found['cost'])}"
        tokens = f"{cell(found['tokens_in'])} tokens read, {cell(found['tokens_out'])} written"
        line(f"{found['model']}: {tokens}, {cell(found['seconds'])} s{cost}{cut}", sys.stderr)
    return 0


main = from_config(Config, call, choices={"provider": ["openai", "anthropic"]})
