"""Recall and precision on planted texts, those that recognisers were not made with."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from tinygpt.data import scrub, secrets

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("planted_pii"), importlib.import_module("planted_held_out")


@pytest.mark.wide
def test_every_class_is_found_and_little_else(planted: tuple[ModuleType, ModuleType]) -> None:
    """60 values of each class; scripts/planted_pii.py has more, and prints the table."""
    script, texts = planted
    scores, _ = script.measure(texts, 60, seed=7)
    low = {k: (s.recall, s.precision) for k, s in scores.items() if s.recall < 0.95 or s.precision < 0.90}
    assert not low
    assert set(scrub.PII.names()) <= set(scores)
    assert {kind for kind, *_ in secrets.SHAPES} - {"telegram"} <= set(scores)


def test_leaks_and_wrong_finds_are_counted(
    planted: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    script, texts = planted
    monkeypatch.setattr(scrub.Scrubber, "find", lambda *_: [(0, 1, "email")])
    scores, wrong = script.measure(texts, 2)
    assert scores["iban"].recall == 0 and scores["email"].precision < 0.5 and wrong
