"""Keep what a person changed in a model's answer, for a later training.

A server started with --corrections-dir keeps what its clients send in the same way.

Example:

    tinygpt record-correction --intent "Make it polite." --original "Go." --corrected "Please go."
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.runs.corrections import Record, record


def call(config: Record, out: Output) -> None:
    found = record(config)
    out.result(found, lambda: print(f"kept as {found['id']} in {found['path']}"))


main = from_config(Record, call)
