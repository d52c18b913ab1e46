"""First names that many people have, and words that follow one where no person is meant."""

from __future__ import annotations

from pathlib import Path


def _words(name: str) -> frozenset[str]:
    return frozenset(Path(__file__).with_name(name).read_text(encoding="utf-8").split())


FIRST = _words("_first_names.txt")
# After a first name: places and other things that bear one.
NO_FAMILY = _words("_no_family.txt")
# Before a first name: "San Diego", "Monte Carlo".
PLACES = frozenset(
    [
        "San",
        "Santa",
        "Saint",
        "St",
        "St.",
        "New",
        "Mount",
        "Mt",
        "Mt.",
        "Lake",
        "Port",
        "Fort",
        "Los",
        "Las",
        "Monte",
        "Cape",
        "Camp",
        "East",
        "West",
        "North",
        "South",
        "Villa",
        "Via",
        "Rue",
        "Plaza",
        "Hotel",
        "Casa",
        "Château",
        "Hurricane",
        "Operation",
        "Project",
    ]
)
