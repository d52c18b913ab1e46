"""The pages in docs/explain/ print what they say, and every family is on one of them."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from tinygpt.runs._families import KINDS

PAGES = sorted((Path(__file__).parents[2] / "docs" / "explain").glob("*.md"))


@pytest.mark.wide
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_true(page: Path) -> None:
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 10 and result.failed == 0


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.package)
def test_a_family_is_explained(kind) -> None:
    folder = kind.package.removeprefix("tinygpt.").replace(".", "/") + "/"
    assert any(f"{folder}" in page.read_text(encoding="utf-8") for page in PAGES), folder
