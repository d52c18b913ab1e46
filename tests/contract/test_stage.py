"""What every stage of rows promises."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.config import Pick, from_dict
from tinygpt.core.errors import ConfigError
from tinygpt.data.stages import STAGES, Context, Step

LONG = "It was a fine day, and everybody went to the lake to swim and to eat bread with cheese."
MAIL, KEY = "jo@mail.example.org", "hf_" + "aBcDe" * 7
# By stage: (options, rows, what becomes of each: True where it stays as it is); a new one adds its own.
GIVES: dict[str, list[tuple[dict[str, Any], list[Any], list[Any]]]] = {
    "length": [
        ({"max_chars": 4}, [{"text": "a b"}, {"text": "abcde"}], [True, "longer than 4 letters"]),
        ({}, [{"text": ""}, {"text": "a"}], ["shorter than 1 letters", True]),
        (
            {"max_chars": 1},
            [{"messages": [{"role": "user", "content": "a"}], "metadata": {"n": "long"}}],
            [True],
        ),
    ],
    "match": [
        ({"pattern": "^a"}, [{"text": "ab"}, {"text": "b"}], [True, "the pattern is not in it"]),
        ({"pattern": "^a", "keep": False}, [{"text": "ab"}, {"text": "b"}], ["the pattern is in it", True]),
        (
            {"pattern": "user"},
            [{"messages": [{"role": "user", "content": "a"}]}],
            ["the pattern is not in it"],
        ),
    ],
    "shape": [
        (
            {"format": "sft"},
            [{"q": 1}, {"prompt": "a", "answer": "b"}],
            ["no sft shape has the columns: q", {"instruction": "a", "response": "b"}],
        ),
    ],
    "exact": [
        ({}, [{"text": "A  b"}, {"text": "a b", "id": 2}, {"text": "ab"}], [True, "a duplicate", True]),
        ({"fold": False}, [{"text": "A  b"}, {"text": "a b"}], [True, True]),
    ],
    "sample": [({"share": 1}, [{"text": "a"}], [True]), ({"share": 1e-9}, [{"text": "a"}], ["not drawn"])],
    "language": [({"languages": ["de"]}, [{"text": LONG}, {"text": "ok"}], ["another language", True])],
    "repetition": [({}, [{"text": "spam " * 60}, {"text": LONG}], ["repetition", True])],
    "pii": [
        ({}, [{"text": f"to {MAIL}"}, {"text": "to no one"}], [{"text": "to [EMAIL]"}, True]),
        ({"pii": ["email"], "drop": True}, [{"text": MAIL}], ["private data"]),
        ({"pii": ["ip"]}, [{"text": MAIL}], [True]),
    ],
    "secrets": [
        ({}, [{"text": f"it is {KEY}"}, {"text": MAIL}], [{"text": "it is [SECRET]"}, True]),
        ({"drop": True}, [{"text": KEY}], ["a secret"]),
    ],
    "quality": [
        ({"model": "good"}, [{"text": LONG, "id": "x"}, {"text": "a"}], [True, "quality below 0.5"]),
        ({"model": "good", "least": 0.01}, [{"text": "a"}], [True]),
    ],
}
# By stage: options that cannot be meant, beside one that is unknown.
REFUSED: dict[str, list[dict[str, Any]]] = {
    "match": [{}, {"pattern": "("}],
    "shape": [{"format": "stf"}],
    "sample": [{"share": 0}, {"share": 1.5}],
    "language": [{}, {"languages": []}, {"languages": ["xx"]}],
    "pii": [{"pii": ["e-male"]}],
    "quality": [{}],
}


class Longer:
    """A classifier to which long texts are good."""

    def score(self, texts: Sequence[str]) -> list[float]:
        return [min(1.0, len(text) / 50) for text in texts]


def opened(name: str, options: dict[str, Any], seed: int = 0) -> Step:
    def classifier(path: Path) -> Longer:
        assert path == Path("good")
        return Longer()

    options = Pick(name, options).resolve(STAGES, "stages").options
    return STAGES.load(name).build(options, Context(seed=seed, classifier=classifier))


@pytest.mark.parametrize("name", STAGES.names())
def test_keeps_changes_or_says_why(name: str) -> None:
    for options, rows, wanted in GIVES[name]:
        step, before = opened(name, options), copy.deepcopy(rows)
        found = [step(row) for row in rows]
        assert found == [row if right is True else right for row, right in zip(rows, wanted, strict=True)]
        assert rows == before, "the rows that came are left as they were"


@pytest.mark.parametrize("name", STAGES.names())
def test_every_opening_begins_anew_and_gives_the_same(name: str) -> None:
    for options, rows, _ in GIVES[name]:
        first, second = (opened(name, options) for _ in range(2))
        assert first(rows[0]) == second(rows[0]), "what one has seen is nothing to the other"


@pytest.mark.parametrize("name", STAGES.names())
def test_what_cannot_be_meant_is_refused(name: str) -> None:
    for options in [*REFUSED.get(name, []), GIVES[name][0][0] | {"nonsense": 1}]:
        with pytest.raises(ConfigError):
            opened(name, options)


def test_which_rows_are_drawn_depends_on_them_and_on_the_seed() -> None:
    rows = [{"text": str(i)} for i in range(2000)]

    def kept(given: list[Any], seed: int) -> list[Any]:
        step = opened("sample", {"share": 0.3}, seed)
        return [row for row in given if not isinstance(step(row), str)]

    first = kept(rows, 0)
    assert 530 < len(first) < 670  # 600, four deviations of 20.5 and some
    assert first == kept(rows[::-1], 0)[::-1], "wherever a row is"
    assert first != kept(rows, 1)


def test_a_file_names_them_as_tables() -> None:
    from tinygpt.runs._prep_settings import Config

    data = {"out": "x", "sources": [{"path": "a"}], "stages": [{"name": "length", "max_chars": 5}, "exact"]}
    config = from_dict(Config, data)
    assert [name for name, _ in config.steps()] == ["length", "exact"]
    with pytest.raises(ConfigError, match=r"unknown config key 'stages\[0\].max'"):
        from_dict(Config, data | {"stages": [{"name": "length", "max": 5}]})
    with pytest.raises(ConfigError, match="a technique's name"):
        from_dict(Config, data | {"stages": [{"max": 5}]})
