"""How data look in a terminal: facts of a data set, rows, and what a stage left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tinygpt.cli._render import say, size, table, visible

LONGEST = 300  # letters of a row that are shown


def show(facts: Mapping[str, Any]) -> None:
    """A data set, as hf-inspect finds it."""
    told = ("path", "pinned", "page", "licence", "gated", "format", "confidence", "shape")
    lines = [(key, visible(str(facts[key]))) for key in told if facts.get(key)]
    kinds = ", ".join(f"{n} {kind}" for kind, n in facts["kinds"].items())
    table(["what", "value"], [*lines, ("files", f"{facts['files']} ({kinds}), {size(facts['bytes'])}")])
    splits = [
        (name + (" *" if name == facts["usual"] and len(facts["configs"]) > 1 else ""), split, n)
        for name, found in facts["configs"].items()
        for split, n in found.items()
    ]
    if splits:
        table(["config", "split", "files"], [(visible(a), visible(b), n) for a, b, n in splits])
    if facts.get("features"):
        table(["column", "type"], [(visible(k), visible(v)) for k, v in facts["features"].items()])
    if facts["no_rows"]:
        print(f"no rows are shown: {visible(facts['no_rows'])}")
    rows(facts["rows"])


def rows(found: Sequence[Any]) -> None:
    """Rows, a line each; long ones are cut."""
    for row in found:
        text = json.dumps(row, ensure_ascii=False, default=str)
        say(text if len(text) <= LONGEST else text[:LONGEST] + " ...")


def stages(found: Sequence[Mapping[str, Any]]) -> None:
    """What each stage took away, and why."""
    lines = []
    for one in found:
        why = ", ".join(f"{n:,} {visible(reason)}" for reason, n in one["dropped"].items())
        lines.append((one["name"], one["n_in"], one["n_out"], why))
    table(["stage", "in", "out", "left out"], lines)
