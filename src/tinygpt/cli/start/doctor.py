"""Show what tinygpt runs on here, and what to do about a slow set-up.

Example:

    tinygpt doctor
"""

from __future__ import annotations

from tinygpt.cli._options import Json
from tinygpt.cli._render import Output, table


def main(json_: Json = False) -> None:
    from tinygpt.runs.doctor import examine

    facts = examine()

    def render() -> None:
        table(["what", "found"], [(k, v) for k, v in facts.items() if k != "advice"])
        for line in facts["advice"]:
            print(f"- {line}")

    Output(json=json_).result(facts, render)
