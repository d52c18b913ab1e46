"""Cards say what data are made of, and carry on what the cards of their sources say."""

from __future__ import annotations

import json
from pathlib import Path

from tinygpt.data import card, rows


def made(path: Path, sources: tuple[card.Source, ...], n_in: int, n_out: int) -> Path:
    stage = card.Stage(name="keep", n_in=n_in, n_out=n_out, dropped={"too short": n_in - n_out})
    rows.write(path, ({"text": str(i)} for i in range(n_out)))
    return card.write(
        path, card.Card(made_by="test", settings={"least": 3}, sources=sources, stages=(stage,))
    )


def test_licences_and_origins_are_carried_on(tmp_path: Path) -> None:
    hub = card.Source(name="hf://datasets/a/b", licence="MIT", revision="c0ffee", n_rows=9)
    other = card.Source(name="hf://datasets/a/c", licence="Apache-2.0", n_rows=1)
    made(tmp_path / "first.jsonl", (hub, other), 10, 8)
    source = card.of_file(tmp_path / "first.jsonl", n_rows=8)
    assert source.licence == "Apache-2.0 AND MIT" and source.origins == (hub, other)
    where = made(tmp_path / "second.jsonl.gz", (source,), 8, 2)
    found = json.loads(where.read_text())
    assert where.name == "second.card.json" and found["licences"] == [
        "Apache-2.0",
        "Apache-2.0 AND MIT",
        "MIT",
    ]
    assert found["file"]["sha256"] and found["stages"][0]["dropped"] == {"too short": 6}
    assert found["sources"][0]["origins"][0]["revision"] == "c0ffee"
    page = where.with_suffix(".md").read_text()
    assert "| keep | 8 | 2 | too short 6 |" in page and "license: other" in page


def test_the_same_data_have_the_same_card(tmp_path: Path) -> None:
    rows.write(tmp_path / "in.jsonl", [{"text": "a"}])
    source = card.of_file(tmp_path / "in.jsonl", n_rows=1)
    assert source.licence == card.UNKNOWN and len(source.sha256) == 64
    first = made(tmp_path / "out.jsonl", (source,), 1, 1).read_bytes()
    assert made(tmp_path / "out.jsonl", (source,), 1, 1).read_bytes() == first
    assert "license: unknown" in (tmp_path / "out.card.md").read_text()


def test_every_file_has_a_card_of_its_own(tmp_path: Path) -> None:
    names = ("rows.jsonl", "rows.clean.jsonl", "rows.v1.2.jsonl")
    for name in names:
        made(tmp_path / name, (card.Source(name="x", licence=f"L-{name}"),), 2, 1)
    assert [card.of_file(tmp_path / name).licence for name in names] == [f"L-{name}" for name in names]
    assert card.beside(Path("a.b.jsonl.GZ")) == Path("a.b.card.json")
    rows.write(tmp_path / "rows.txt", [{"text": "of another"}])
    assert card.of_file(tmp_path / "rows.txt").licence == card.UNKNOWN, "the card is of rows.jsonl"
    (tmp_path / "rows.clean.jsonl").rename(tmp_path / "new.jsonl")
    (tmp_path / "rows.clean.card.json").rename(tmp_path / "new.card.json")
    assert card.of_file(tmp_path / "new.jsonl").licence == "L-rows.clean.jsonl"


def test_files_whose_names_begin_alike_have_cards_of_their_own(tmp_path: Path) -> None:
    names = ("a.jsonl", "a.jsonl.gz", "a.held_out.jsonl", "a.v1.2.jsonl.ZST", "a")
    assert [card.beside(tmp_path / name).name for name in names] == [
        "a.card.json", "a.card.json", "a.held_out.card.json", "a.v1.2.card.json", "a.card.json",
    ]  # fmt: skip


def test_a_licence_that_is_given_wins(tmp_path: Path) -> None:
    made(tmp_path / "a.jsonl", (card.Source(name="x", licence="MIT"),), 1, 1)
    assert card.of_file(tmp_path / "a.jsonl", licence="CC0-1.0").licence == "CC0-1.0"
