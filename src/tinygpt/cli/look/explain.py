"""Explain a technique: the idea, its equation and paper, and its knobs.

Example:

    tinygpt explain adamw
    tinygpt explain            (all families)
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tinygpt.cli._options import Json
from tinygpt.cli._render import Output


def names() -> list[str]:
    from tinygpt.runs._families import KINDS

    return sorted(name for kind in KINDS for name in [kind.family.noun, *kind.family.names()])


def main(
    name: Annotated[
        str | None, typer.Argument(help="Technique, family or family/technique.", autocompletion=names)
    ] = None,
    json_: Json = False,
) -> None:
    from tinygpt.runs import explain

    out = Output(json=json_)
    if name is None:
        families = explain.families()
        out.result(families, lambda: listing(families))
    else:
        found = explain.explain(name)
        out.result(found, lambda: print("\n\n".join(page(t) for t in found)))


def listing(families: list[dict[str, Any]]) -> None:
    for family in families:
        choose = f"   ({family['choose']})" if family["choose"] else ""
        print(f"{family['family']}: {family['title']}{choose}")
        for name, summary in family["techniques"].items():
            print(f"  {name:<12} {summary}")
        print()
    print("tinygpt explain NAME shows one of them with its equation, paper and knobs.")


def page(t: dict[str, Any]) -> str:
    lines = [f"{t['family']}/{t['name']}   {t['file']}", "", t["summary"]]
    lines += ["", t["body"]] if t["body"] else []
    lines += [f"\nPaper:   {t['paper']}"] if t["paper"] else []
    lines += [f"Differs: {t['differs']}"] if t["differs"] else []
    lines += [f"\nChoose it with: {t['choose']}"] if t["choose"] else []
    if t["knobs"]:
        lines += ["", "Knobs:"]
        for knob in t["knobs"]:
            default = knob["default"]
            shown = ", ".join(map(str, default)) if isinstance(default, list) else default
            lines.append(f"  {knob['name']} ({knob['type']}, default {shown}): {knob['help']}")
            lines += [f"      {knob['set']}"] if knob["set"] else []
    return "\n".join(lines)
