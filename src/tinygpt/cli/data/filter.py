"""Take private data and secrets out of rows, and leave out rows by length, language, repetition or toxicity.

What a recogniser finds becomes [EMAIL], [PHONE] and so on, in every text of a row; its number is checked
where it has a check digit or a plan. Names of people are a guess: they are looked for with --pii all.

Example:

    tinygpt filter rows.jsonl --out clean.jsonl --sidecar done.jsonl
    tinygpt filter rows.jsonl --out clean.jsonl --pii email,phone --drop-pii --language en --repetition
    tinygpt filter rows.jsonl --out fine.jsonl --toxicity 0.8 --toxicity-model toxic.tinygpt
    tinygpt filter rows.jsonl --dry-run --pii all --where 'score>=0.5'
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table
from tinygpt.data.scrub import PII
from tinygpt.runs.filter import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())

    def show() -> None:
        gone = [(f"left out: {why}", n) for why, n in found["dropped"].items()]
        seen = [(f"found: {name}", n) for name, n in found["found"].items()]
        counts = [
            ("read", found["read"]),
            *gone,
            ("kept", found["kept"]),
            ("changed", found["changed"]),
            *seen,
        ]
        table([f"{found['unit']}s", "n"], counts)
        for what in ("out", "sidecar", "card"):
            if found[what]:
                print(f"wrote {found[what]}")

    out.result(found, show)


main = from_config(
    Config,
    call,
    arguments=["rows"],
    rename={"source": "in"},
    choices={"pii": ["auto", "all", "none", *(name.replace("_", "-") for name in PII.names())]},
)
