"""Make rows of a GitHub repository: issues with what closed them, review remarks, or commits.

A token in GITHUB_TOKEN allows more requests; it goes to the API's own address only. Where GitHub's limits are
reached, the command waits up to --max-wait, or ends with a line that says for how long; --resume goes on.

Example:

    tinygpt fetch-github owner/repo --label bug --limit 200 --out bugs.jsonl
    tinygpt fetch-github --multi-repo repos.txt --kind commits --out commits.jsonl --resume
"""

from __future__ import annotations

from typing import Any

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table, visible
from tinygpt.runs.fetch_github import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())
    out.result(found, lambda: _render(found))


def _render(found: dict[str, Any]) -> None:
    head = list(found["repos"][0])
    lines = [[_cell(one[key]) for key in head] for one in found["repos"]]
    table([key.replace("_", " ") for key in head], lines)
    if "out" in found:
        left = [(f"  {visible(why)}", n) for why, n in found["reasons"].items()]
        table(["what", "number"], [("rows", found["rows"]), ("left out", found["left_out"]), *left])
        print(f"wrote {found['out']}, card {found['card']}")


def _cell(value: Any) -> Any:
    return visible(value) if isinstance(value, str) else value


main = from_config(Config, call, arguments=("repo",))
