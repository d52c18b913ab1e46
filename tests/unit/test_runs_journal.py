"""The journal of long work: what was kept survives, a torn line is forgotten, other settings are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinygpt.core import hub
from tinygpt.core.errors import ConfigError
from tinygpt.runs import _resumed, _rows_in
from tinygpt.runs._journal import Journal


def test_what_was_kept_is_there_again(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    with Journal(out, {"a": 1}, resume=False) as journal:
        journal.keep("x", {"n": 1})
        journal.keep("y", "why \ud800 not")
        assert journal["x"] == {"n": 1} and "z" not in journal
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b'{"key": "torn", "val')
    with Journal(out, {"a": 1}, resume=True) as again:
        assert len(again) == 2 and again["y"] == "why \ud800 not"
        again.keep("z", None)
        assert again["z"] is None and again["x"] == {"n": 1}
    assert again.path.read_bytes().startswith(whole) and again.path.read_bytes().count(b"\n") == 4
    with pytest.raises(ConfigError, match="begun with other settings"):
        Journal(out, {"a": 2}, resume=True)
    with pytest.raises(ConfigError, match="an interrupted command left"):
        Journal(out, {"a": 2}, resume=False)
    with Journal(out, {"a": 2}, resume=False, force=True) as anew:
        assert not len(anew)
        anew.done()
    assert not list(tmp_path.iterdir())


def test_a_journal_without_work_is_begun_anew(tmp_path: Path) -> None:
    for settings in ({"a": 1}, {"a": 2}):
        _resumed.check(tmp_path / "rows.jsonl", resume=False)
        with Journal(tmp_path / "rows.jsonl", settings, resume=False) as journal:
            assert not len(journal)
    with Journal(tmp_path / "rows.jsonl", {"a": 2}, resume=True) as last:
        last.keep("x", 1)
    with pytest.raises(ConfigError, match="holds answers of an interrupted command"):
        _resumed.check(tmp_path / "rows.jsonl", resume=False)


@pytest.mark.parametrize(
    "text", ["hf://datasets/org/name", "hf:/datasets/org/name", "org/name", "datasets/org/name"]
)
def test_names_of_data_sets(text: str) -> None:
    found = hub.dataset(text, "v1")
    assert (found.repo, found.revision, found.kind) == ("org/name", "v1", "dataset")
    assert str(found) == "hf://datasets/org/name@v1" and found.at("x").kind == "dataset"
    assert str(hub.HubName("org/name")) == "hf://org/name" and found.folder == "datasets--org--name"


@pytest.mark.parametrize(
    "text", ["name", "hf://org/name", "hf://datasets/name", "a/../b", "hf://datasets/a/b/c"]
)
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a data set"):
        hub.dataset(text)
    with pytest.raises(ConfigError, match="names a revision, and so does --revision"):
        hub.dataset("org/name@v1", "v2")


def test_renames_in_both_spellings() -> None:
    assert _rows_in.pairs(["ask:prompt, text=body", "chosen=a.b"]) == [
        ("prompt", ["ask"]), ("text", ["body"]), ("chosen", ["a", "b"]),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no shape has a column 'promt'"):
        _rows_in.pairs(["ask:promt"])
