"""Texts cut into units that are kept whole, scored with their neighbours, and chosen within a bound."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, MemorySink, Note
from tinygpt.data.tokenizer import byte
from tinygpt.router import compress
from tinygpt.router.compress_units import joined, units
from tinygpt.runs._compress_settings import Config
from tinygpt.runs.compress import run

TEXT = """# Old Mill

The mill stands in Harwick. It was built in 1823 by Dr. A. Smith for 3.5 thousand crowns, cf. p. 9. Why? Yes!

- First item with
  a second line. And more.
- Another, e.g. a wheel.

```python
x = 1. If y: end.

z = 2
```

| a | b |
| 1 | 2 |

    indented = code
    more = code

1. Step one. Do it.
"""


def kinds(text: str) -> list[tuple[str, str]]:
    return [(unit.kind, unit.text) for unit in units(text)]


def test_numbers_items_and_code_are_not_cut() -> None:
    assert kinds(TEXT) == [
        ("heading", "# Old Mill"),
        ("sentence", "The mill stands in Harwick."),
        ("sentence", "It was built in 1823 by Dr. A. Smith for 3.5 thousand crowns, cf. p. 9."),
        ("sentence", "Why?"),
        ("sentence", "Yes!"),
        ("item", "- First item with\n  a second line. And more."),
        ("item", "- Another, e.g. a wheel."),
        ("code", "```python\nx = 1. If y: end.\n\nz = 2\n```"),
        ("row", "| a | b |"),
        ("row", "| 1 | 2 |"),
        ("code", "indented = code\n    more = code"),
        ("item", "1. Step one. Do it."),
    ]


def test_marks_of_other_scripts_and_a_fence_that_never_closes() -> None:
    assert [text for _, text in kinds("雨です。晴れ？はい。")] == ["雨です。", "晴れ？", "はい。"]
    assert kinds("Hi there.\n~~~\na. B.\n\nC.") == [("sentence", "Hi there."), ("code", "~~~\na. B.\n\nC.")]
    assert [text for _, text in kinds('He said "Go." Then I left. and so on.')] == [
        'He said "Go."', "Then I left. and so on."
    ]  # fmt: skip
    assert units(" \n\n ") == []


def test_all_units_are_the_text_and_gaps_stay_where_something_is_left_out() -> None:
    parts = units(TEXT)
    assert joined(TEXT, parts, range(len(parts))) == TEXT.strip()
    assert all(TEXT[part.start : part.end] == part.text for part in parts)
    assert joined(TEXT, parts, {1, 3}) == "The mill stands in Harwick. Why?"
    assert joined(TEXT, parts, {4, 6}) == "Yes!\n\n- Another, e.g. a wheel."
    assert joined(TEXT, parts, {4, 3}) == "Why? Yes!", "in the text's order, whatever theirs"


@pytest.mark.parametrize(
    "text",
    ["x" * 200_000 + " end. Next. ", "." * 200_000 + "x", "line\n\n" * 50_000, "A b c. " * 50_000],
    ids=["word", "dots", "lines", "sentences"],
)  # fmt: skip
def test_a_huge_text_is_cut_in_a_moment(text: str) -> None:
    began = time.process_time()
    assert units(text)
    assert time.process_time() - began < 3, "the time grew with the square of the length: minutes"


def test_few_lengths_are_counted_where_gaps_are_wide() -> None:
    counted: list[str] = []

    def size(text: str) -> int:
        counted.append(text)
        return len(text)

    text = ("\n" * 30).join(f"Fox {i}." for i in range(300))
    found = compress.compress(text, "fox", compress.by_bm25, room=len(text) // 2, size=size)
    assert len(text) // 2 - 40 < len(found.text) <= len(text) // 2
    assert sum(map(len, counted)) < 20 * len(text)


def test_sentences_without_spaces_are_chosen_by_their_letters() -> None:
    text = "今天下雨。我们去吃饭吧。这座塔建于1823年。狗在睡觉。"
    found = compress.compress(text, "塔是什么时候建的？", compress.by_bm25, room=len(text) // 3)
    assert found.text == "这座塔建于1823年。"


def test_scores_join_their_neighbours() -> None:
    assert compress.with_neighbours([1.0, 0.0, 0.5], 0.2) == pytest.approx([0.8, 0.2, 0.4])
    assert compress.with_neighbours([0.3, 0.9], 0.0) == [0.3, 0.9]
    assert compress.by_bm25("red fox", ["a red fox", "a cow", "red"])[0] == 1.0
    assert compress.by_bm25("blue", ["a red fox", "a cow"]) == [0.0, 0.0]


def test_the_best_that_fit_are_kept_in_order() -> None:
    text = "Rain fell. The red fox ran home. A red hen. Snow fell too."

    def kept(room: int, **how: object) -> str:
        options: dict[str, object] = {"neighbours": 0.0, **how}
        return compress.compress(text, "red fox", compress.by_bm25, room=room, **options).text  # type: ignore[arg-type]

    assert kept(5) == "The red fox ran home.", "the best one stays, however little room there is"
    assert kept(40) == "The red fox ran home. A red hen."
    assert kept(40, threshold=0.9) == kept(40, most=1) == "The red fox ran home."
    assert kept(1000) == text
    lead = compress.compress(text, "red fox", compress.by_place, room=35, neighbours=0, in_order=True)
    assert lead.text == "Rain fell. The red fox ran home." and lead.kept == [0, 1]
    listed = "Rain.\n- a\n- b\n- c"
    whole = compress.compress(listed, "a", compress.by_bm25, room=len(listed))
    assert whole.text == listed and whole.kept == [0, 1, 2, 3]
    for room in range(25, len(text) + 1):
        assert len(kept(room)) <= room


def test_a_neighbour_of_what_names_the_subject_is_kept() -> None:
    text = "Birds sing. Rain fell. Kelm is a town. It goes back to 1823. Cows eat grass. Dogs bark at night."
    alone, joint = (
        compress.compress(text, "how old is Kelm", compress.by_bm25, room=52, neighbours=part).kept
        for part in (0.0, 0.25)
    )
    assert 3 in joint and 3 not in alone


def test_lengths_in_tokens_and_a_bound_that_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Ünïted. Äpfel fallen. Birnen auch.", encoding="utf-8")
    config = Config(query="Birnen", document=path, tokens=20, tokenizer="byte")
    found = run(config, str, Events())
    assert found["unit"] == "tokens" and found["length"] <= 20 and found["kept"].endswith("Birnen auch.")
    assert found["of"] == len(byte.load().encode(path.read_text(encoding="utf-8")))
    sink = MemorySink()
    found = run(Config(query="Birnen", document=path, letters=3), str, Events(sink))
    assert found["kept"] == "Birnen auch." and "12 letters, 3 were wanted" in repr(sink.events)
    with pytest.raises(DataError, match="empty"):
        compress.compress("  \n", "q", compress.by_bm25, room=3)


def test_what_could_not_be_done_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = {"question": "who", "context": "A red hen. A cow."}
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(3)), encoding="utf-8")
    sink = MemorySink()
    run(Config(data=path, letters=3, out=tmp_path / "b.jsonl"), str, Events(sink))
    told = [event.text for event in sink.events if isinstance(event, Note)]
    assert told == [
        "of 3 rows the best sentence alone is longer than was wanted",
        "of 3 rows the beginning is kept: no sentence shares a word with the question",
    ]
    alone = MemorySink()
    found = run(Config(query="who", document=Path("-")), lambda: "A red hen. A cow.", Events(alone))
    assert found["kept"] == "A red hen." and "the text's beginning is kept" in repr(alone.events)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give --query and --in"),
        ({"query": "a"}, "give --query and --in"),
        ({"query": "a", "document": Path("x"), "data": Path("y")}, "give --query and --in"),
        ({"query": "a", "document": Path("x"), "ratio": 0.5, "letters": 4}, "leave one|how much is kept"),
        ({"query": "a", "document": Path("x"), "ratio": 1.5}, "--ratio"),
        ({"query": "a", "document": Path("x"), "tokens": 5}, "of which tokenizer"),
        ({"query": "a", "document": Path("x"), "letters": 5, "tokenizer": "byte"}, "counts no tokens"),
        ({"query": "a", "document": Path("x"), "kind": "head"}, "go together"),
        ({"query": "a", "document": Path("x"), "model": Path("m")}, "go together"),
        ({"query": "a", "document": Path("x"), "neighbours": 1.0}, "--neighbours"),
        ({"query": "a", "document": Path("x"), "kind": "lead", "threshold": 0.1}, "scores nothing"),
        ({"query": "a", "document": Path("x"), "kind": "lead"}, "answers no question"),
        ({"kind": "lead"}, "give --query and --in"),
        ({"query": "a", "document": Path("x"), "max_sentences": -1}, "--max-sentences"),
        ({"data": Path("x")}, "--data needs --out"),
        ({"query": "a", "document": Path("x"), "force": True}, "--out"),
    ],
)
def test_what_does_not_go_together(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Config(**given)  # type: ignore[arg-type]
