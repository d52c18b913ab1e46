"""Write tests/golden/surface.json: every command with its arguments and flags.

python scripts/golden.py             add what is new; refuse to lose what is gone          (make golden)
python scripts/golden.py --remove    lose it on purpose
"""

from __future__ import annotations

import json
import sys

from docs import ROOT, parsed

SURFACE = "tests/golden/surface.json"


def surface() -> dict[str, list[str]]:
    """Every command with its arguments and flags, sorted."""
    found = {}
    for name, (_, command) in sorted(parsed().items()):
        found[name] = sorted(flag for p in command.params for flag in (*p.opts, *p.secondary_opts))
    return found


def changes(golden: dict[str, list[str]], now: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """(added, removed): commands and flags as people type them."""

    def flat(surface: dict[str, list[str]]) -> set[str]:
        return {name for name in surface} | {
            f"{name} {flag}" for name, flags in surface.items() for flag in flags
        }

    return sorted(flat(now) - flat(golden)), sorted(flat(golden) - flat(now))


def main(arguments: list[str]) -> int:
    """0 when written, 1 when something is gone."""
    path = ROOT / SURFACE
    golden = json.loads(path.read_text()) if path.exists() else {}
    now = surface()
    added, removed = changes(golden, now)
    if removed and "--remove" not in arguments:
        print("gone from the surface, which breaks people's scripts:", *removed, sep="\n  ", file=sys.stderr)
        print(
            "put them back, or run `python scripts/golden.py --remove` and say why in docs/log.md",
            file=sys.stderr,
        )
        return 1
    lines = [f"  {json.dumps(name)}: {json.dumps(flags)}" for name, flags in now.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(
        f"{SURFACE}: {len(now)} commands",
        *(f"  + {a}" for a in added),
        *(f"  - {r}" for r in removed),
        sep="\n",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
