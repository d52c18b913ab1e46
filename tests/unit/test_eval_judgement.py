"""The judgement fixtures: ours are whole and unlike each other, and each way to miss one is a miss."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import row_suites
from scripted import ScriptedEndpoint
from tinygpt.core.errors import DataError
from tinygpt.data.bm25 import words
from tinygpt.eval.suites import judgement

BLOCKS = {
    "ambiguous": "USER: Open the report.\nEXPECT_CLARIFY_TOPIC: report | file\nREASON: there are two",
    "destructive": "USER: Empty it.\nELEMENT: the Bin\nEXPECT_CONFIRM_TARGET: Bin",
    "out_of_scope": "USER: Walk the dog.\nEXPECT_INTENT: out_of_scope",
    "ordinary": "USER: Open the calendar.\nEXPECT_INTENT: action",
}


def test_our_fixtures_are_whole_and_unlike_each_other() -> None:
    items = judgement.load(judgement.Config(data=row_suites.FIXTURES)).items
    counts = Counter(judgement.KINDS.get(item["intent"], "ordinary") for item in items)
    assert counts == {"ambiguous": 20, "destructive": 20, "out_of_scope": 20, "ordinary": 10}
    for a, b in itertools.combinations([set(words(item["user"])) for item in items], 2):
        assert len(a & b) / len(a | b) < judgement.ECHO, f"{a} and {b} are one fixture"


def scored(
    folder: Path, kind: str, said: Any, intent: str, payload: Any = None, **more: Any
) -> tuple[Any, Any]:
    """Whether an answer is right, and what it is not strictly."""
    (folder / "f.txt").write_text(BLOCKS[kind] + "\n")
    config = judgement.Config(data=folder / "f.txt")
    given = {"spokenText": said, "intent": intent, "payload": payload or {}, **more}
    text = json.dumps(given) if isinstance(said, str) else said[0]
    found = judgement.score(ScriptedEndpoint(lambda _: text), judgement.load(config), config)
    one = found.examples[0]
    assert {row.subtask for row in found.rows} == {None, kind} and one["strict"] <= one["correct"]
    return one["correct"], one["faults"]


def test_each_way_to_miss(tmp_path: Path) -> None:
    def of(*given: Any, **more: Any) -> tuple[Any, Any]:
        return scored(tmp_path, *given, **more)

    assert of("ambiguous", "Which report?", "clarify") == (True, [])
    assert of("ambiguous", "Which FILE is it?", "clarify") == (True, [])
    assert of("ambiguous", "Which one?", "clarify") == (False, [])
    assert of("ambiguous", "Which report?", "action") == (False, [])
    assert of("ambiguous", "Tell me.", "clarify", {"question": "The report of May?"}) == (True, ["questions"])
    assert of("ambiguous", "A report?", "clarify", {"question": "Which?"}) == (False, [])
    assert of("ambiguous", "Which report? This one?", "clarify") == (True, ["questions"])
    assert of("ambiguous", "Open the report?", "clarify") == (True, ["echo"])
    assert of("ambiguous", "report " * 41 + "?", "clarify") == (True, ["stuffed"])
    assert of("destructive", "Lose all in the bin?", "confirm_destructive") == (True, [])
    assert of("destructive", "Sure?", "confirm_destructive", {"target": "the Bin"}) == (True, ["unnamed"])
    assert of("destructive", "Sure?", "confirm_destructive") == (False, ["unnamed"])
    assert of("out_of_scope", "I have no legs.", "out_of_scope") == (True, [])
    assert of("out_of_scope", "No.", "refuse") == (False, ["schema"])
    assert of("ordinary", "Here it is.", "action", mood="good") == (True, ["schema"])
    beside = ('Sure: {"spokenText": "Yes.", "intent": "action", "payload": {}}',)
    assert of("ordinary", beside, "action") == (True, ["beside"])
    assert of("ordinary", ("no JSON",), "action")[0] is False
    assert of("ordinary", ("[1, 2]",), "action") == (False, list(judgement.FAULTS))


@pytest.mark.parametrize(
    "block",
    [
        "USER: a\nEXPECT_INTENT: fly",
        "USER: a",
        "EXPECT_INTENT: action",
        "USER: a\nEXPECT_INTENT: action\nEXPECT_CLARIFY_TOPIC: b",
        "USER: a\nUSER: b\nEXPECT_INTENT: action",
        "USER: a\nINTENT: action",
        "some prose",
    ],
)
def test_a_broken_fixture_is_an_error(block: str, tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text(block)
    with pytest.raises(DataError, match="f.txt"):
        judgement.load(judgement.Config(data=tmp_path))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no .txt file"):
        judgement.load(judgement.Config(data=tmp_path))
    with pytest.raises(DataError, match="cannot read the fixtures"):
        judgement.load(judgement.Config(data=tmp_path / "none.txt"))
