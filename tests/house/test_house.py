"""The house keeps its rules: each is a function of a root folder that says file, line and cure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from house import budgets, commands, families, hygiene, layers, ledger
from house.tree import ROOT

RULES: dict[str, Callable[[Path], list[str]]] = {
    "layers": layers.check,
    "budgets": budgets.check,
    "families": families.check,
    "commands": commands.check,
    "hygiene": hygiene.check,
    "ledger": ledger.check,
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str) -> None:
    breaches = RULES[rule](ROOT)
    assert not breaches, "\n" + "\n".join(breaches)
