"""Quickstart on a base on the command line: what it leaves, doing it again, rows that are no use."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from e2e.shell import NANO, good, refused, snapshot, sums, tinygpt
from tinygpt.core import files
from tinygpt.core.errors import ConfigError
from tinygpt.project import tuned

SOON = ("--steps", 2, "--no-lock", "--samples", 1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    data = ("--data", sums(folder / "sums.jsonl", 100), "--seed", 1, "--no-lock", "--steps", 1)
    good("sft", *data, "--out", folder / "base", *NANO, "--context", 96)
    return folder


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def quick(root: Path, data: str, out: str, *more: object) -> tuple[object, ...]:
    return ("quickstart", "--data", root / data, "--base", root / "base", "--out", root / out, *SOON, *more)


def test_it_is_measured_and_can_be_done_again(root: Path) -> None:
    told = good(*quick(root, "sums.jsonl", "made", "--project-out", root / "far" / "p.json", "--json")).json
    assert "plan" in told and told["verdict"] and len(told["samples"]) == 1
    project = json.loads((root / "far" / "p.json").read_text())
    listed = [*project["models"], *project["datasets"], *project["eval"]["suites"]]
    assert all((root / "far" / one["path"]).exists() for one in listed), "paths are seen from its own folder"
    rows = {
        name: (root / "made" / f"{name}.jsonl").read_text().splitlines() for name in ("train", "held_out")
    }
    assert rows["held_out"] and not set(rows["train"]) & set(rows["held_out"])

    before = snapshot(root / "made")
    refused(tinygpt(*quick(root, "sums.jsonl", "made")), "exists", hint="--force")
    refused(tinygpt(*quick(root, "sums.jsonl", "new", "--project-out", root / "far" / "p.json")), "exists")
    refused(tinygpt(*quick(root, "sums.jsonl", "new", "--project-out", root)), "is a folder")
    assert snapshot(root / "made") == before and not (root / "new").exists()

    for gone in ("final", "steps"):  # as an interruption leaves it
        files.remove_directory(root / "made" / "run" / gone)
    os.remove(root / "made" / "rows.jsonl")
    good(*quick(root, "sums.jsonl", "made", "--force", "--project-out", root / "far" / "p.json"))
    good(*quick(root, "sums.jsonl", "made", "--force"))
    assert (root / "made" / "tinygpt.project.json").exists()


def test_rows_that_say_little_are_called_so(root: Path) -> None:
    write(root / "few.jsonl", [{"prompt": f"{i}?", "completion": f"{i}"} for i in range(12)])
    told = good(*quick(root, "few.jsonl", "few", "--json"))
    assert "12 rows are few" in told.err
    assert "cannot be told from so few rows" in told.json["verdict"][-1]
    write(root / "same.jsonl", [{"prompt": "the same?", "completion": f"{i}"} for i in range(70)])
    told = good(*quick(root, "same.jsonl", "same", "--json"))
    assert "All held-out rows stand" in told.err and "they are not measured" not in told.err
    assert "nothing of new rows" in told.json["verdict"][-1]


def test_what_never_began_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else --force, which goes by the run's own file, refused to take its place."""

    def refuse(*_: object) -> None:
        raise ConfigError("no")

    with monkeypatch.context() as patch:
        patch.setattr(tuned.sft, "run", refuse)
        assert tinygpt(*quick(root, "sums.jsonl", "begun")).code == 2
    assert not list((root / "begun").iterdir())
    good(*quick(root, "sums.jsonl", "begun"))


def test_plain_text_is_for_another_command(root: Path) -> None:
    write(root / "text.jsonl", [{"text": "some words"}] * 3)
    refused(tinygpt(*quick(root, "text.jsonl", "no")), "plain text has no question", hint="tinygpt finetune")
    (root / "raw.txt").write_text("some words\n", encoding="utf-8")
    refused(tinygpt(*quick(root, "raw.txt", "no", "--dry-run")), "not JSON", hint="tinygpt finetune")
    assert not (root / "no").exists()
