"""The generated pages are what the code says, and the surface has lost nothing and gained nothing unseen."""

from __future__ import annotations

import json
import re

import docs

import golden
from house.tree import ROOT


def test_pages_are_current() -> None:
    stale = docs.stale(ROOT)
    assert not stale, "\n" + "\n".join(stale)


def test_no_command_or_flag_is_gone() -> None:
    known = json.loads((ROOT / golden.SURFACE).read_text(encoding="utf-8"))
    _, removed = golden.changes(known, golden.surface())
    assert not removed, (
        f"gone, which breaks people's scripts: {', '.join(removed)} (see scripts/golden.py --remove)"
    )


def test_new_commands_and_flags_are_seen() -> None:
    known = json.loads((ROOT / golden.SURFACE).read_text(encoding="utf-8"))
    added, _ = golden.changes(known, golden.surface())
    assert not added, f"new on the surface: {', '.join(added)}. Run `make golden` and look at the diff"


def test_written_pages_point_at_files_that_exist() -> None:
    for page in (ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), (
                    f"{page.name} points at {target}, which does not exist"
                )
