"""Print uv.lock as pip constraints for this interpreter, so that pip installs the locked versions.

    .venv/bin/python scripts/constraints.py > .venv/constraints.txt

uv needs none of this: `uv sync` reads the lock itself. Where the lock holds several versions of a package,
the one whose marker fits this Python and platform is printed.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pip._vendor.packaging.markers import Marker

LOCK = Path(__file__).resolve().parent.parent / "uv.lock"


def fits(package: dict[str, Any]) -> bool:
    """Whether a locked version is meant for this interpreter."""
    markers = package.get("resolution-markers")
    return not markers or any(Marker(m).evaluate() for m in markers)


for package in tomllib.loads(LOCK.read_text(encoding="utf-8"))["package"]:
    if "registry" in package["source"] and fits(package):
        print(f"{package['name']}=={package['version']}")
