"""uv.lock belongs to this pyproject.toml: a changed dependency needs `make lock`."""

from __future__ import annotations

import re
import tomllib

from house.tree import ROOT

project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))


def test_the_lock_knows_every_requirement() -> None:
    extras = project["optional-dependencies"]
    wanted = {(name, "") for name in project["dependencies"]}
    wanted |= {(name, extra) for extra, names in extras.items() for name in names}
    ours = next(p for p in lock["package"] if p["name"] == project["name"])
    locked = {
        (r["name"], r.get("specifier", ""), re.sub(r".*extra == '([\w-]+)'.*|.*", r"\1", r.get("marker", "")))
        for r in ours["metadata"]["requires-dist"]
    }
    assert {(*parts(text), extra) for text, extra in wanted} == locked, "run `make lock`"
    assert lock["requires-python"] == project["requires-python"]


def parts(requirement: str) -> tuple[str, str]:
    """(name, version specifier) of a requirement, as uv writes them."""
    name, versions = re.fullmatch(r"([\w.-]+)(?:\[[^]]*])?([^;]*)(?:;.*)?", requirement).groups()  # type: ignore[union-attr]
    return name.replace("_", "-"), ",".join(
        sorted(versions.replace(" ", "").split(","), key=lambda v: v[0] != ">")
    )
