"""`eval-compare` with records beside the rows: paired differences, the page, the pictures."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import nano
from e2e.shell import good, refused, tinygpt
from gates import measured, score, write


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    base = write(
        tmp_path / "base.jsonl",
        [measured(160, model_name="base<b>", baseline=True), score(2.0, model_name="base<b>")],
    )
    tuned = write(
        tmp_path / "tuned.jsonl", [measured(170, model_name="tuned"), score(1.5, model_name="tuned")]
    )
    return [base, tuned]


def test_differences_are_shown_everywhere(files: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    shown = good("eval-compare", *files, "--html", page).out
    assert "difference from base<b>" in shown and "+0.0500 [+0.017, +0.082] p=0.002 (n=200)" in shown
    told = good("eval-compare", *files, "--json").json
    assert [table["kind"] for table in told] == ["scores", "differences"]
    assert told[1]["lines"][0]["cells"][0]["p"] == pytest.approx(2 / 2**10)
    text = page.read_text(encoding="utf-8")
    assert "base&lt;b&gt;" in text and "<b>" not in text and text.count("<svg") == 3
    assert "| t | accuracy |" in good("eval-compare", *files, "--markdown").out


def test_broken_records_are_said_and_refused_where_told(files: list[Path]) -> None:
    records = files[1].with_name("tuned.examples.jsonl")
    records.write_text(records.read_text()[:-20])
    done = good("eval-compare", *files)
    assert "tuned.examples.jsonl:200: not JSON" in done.err and "difference" not in done.out
    refused(tinygpt("eval-compare", *files, "--strict"), "not eval rows")


def test_pictures(files: list[Path], tmp_path: Path) -> None:
    nano.require("matplotlib")
    good("eval-compare", *files, "--plot", tmp_path / "models.png")
    steps = [
        measured(right, model_step=step, interval=[right / 200 - 0.05, right / 200 + 0.05])
        for step, right in ((0, 20), (100, 30), (200, 90))
    ]
    rows = write(tmp_path / "steps.jsonl", steps)
    done = good("eval-compare", rows, "--by", "step", "--plot", tmp_path / "steps.png")
    assert "clear of that of step 0 from step 200 on" in done.out
    sizes = []
    for name in ("models.png", "steps.png"):
        head = (tmp_path / name).read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        sizes.append(struct.unpack(">II", head[16:24]))
    assert sizes[0][0] == 3 * sizes[1][0], "two tasks and a difference, a panel each; one task over steps"


def test_names_that_say_no_kind_are_refused(files: list[Path], tmp_path: Path) -> None:
    refused(tinygpt("eval-compare", *files, "--html", tmp_path / "page.txt"), "no name of a page")
    refused(tinygpt("eval-compare", *files, "--plot", tmp_path / "plot.txt"), "ends in none of")


def test_rows_that_are_there_twice_count_once(files: list[Path]) -> None:
    """A file that is named twice is no second run."""
    done = good("eval-compare", *files, files[0])
    assert "2 rows are there twice" in done.err and "runs)" not in done.out
