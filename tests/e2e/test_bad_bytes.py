"""Bytes that are no text, options of nothing, and files that are not ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from e2e.shell import NANO, good, refused, snapshot, sums, tinygpt


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Path:
    """An empty folder beside which nothing of a refused command may appear."""
    return tmp_path


def test_bytes_on_stdin_that_are_not_utf8(trained: Path) -> None:
    for words in (("sample", trained / "run", "--prompt", "-"), ("chat", trained / "run")):
        command = [sys.executable, "-m", "tinygpt", *map(str, words)]
        done = subprocess.run(command, input=b"caf\xe9\n", capture_output=True)
        assert done.returncode == 2 and not done.stdout
        assert done.stderr.startswith(b"error: stdin is not UTF-8: byte 0xe9\n  hint: ")


def test_eval_measures_each_suite_once_with_its_own_options(trained: Path) -> None:
    run = trained / "run"
    refused(tinygpt("eval", run, "--suite", "sort_6", "--suite", "sort-6"), "sort_6 is asked for twice")
    wrong = tinygpt("eval", run, "--suite", "sort_6", "--set", "options.sort_5.n=3")
    refused(wrong, "options for 'sort_5', which is not run. Did you mean 'sort_6'", hint="--suite")
    for text in ("options=3", "options.sort_6=3"):
        refused(tinygpt("eval", run, "--suite", "sort_6", "--set", text), "'options.*' must be a table")


def test_eval_writes_over_nothing(trained: Path, here: Path) -> None:
    mine, rows, more = here / "config.json", here / "rows.jsonl", here / "examples.jsonl"
    mine.write_text('{"years": "of work"}\n')
    command = ("eval", trained / "run", "--suite", "sort_6", "--set", "options.sort-6.n=2")
    refused(tinygpt(*command, "--examples", mine), r"--examples: .*config\.json exists", hint="another")
    refused(tinygpt(*command, "--out", mine), r"--out: .*config\.json:1: not an eval row", hint="eval rows")
    refused(tinygpt(*command, "--out", rows, "--examples", here / "." / "rows.jsonl"), "both name .*rows")
    for flag in ("--out", "--examples"):
        refused(tinygpt(*command, flag, here), f"{flag}: .* is a directory", hint="name a file")
    assert snapshot(here) == {"config.json": b'{"years": "of work"}\n'}
    good(*command, "--out", rows, "--examples", more)
    good(*command, "--out", rows)
    assert len(rows.read_text().splitlines()) == 2 and len(more.read_text().splitlines()) == 2


def test_a_row_of_three_thousand_brackets_is_a_bad_row(here: Path) -> None:
    rows = sums(here / "rows.jsonl", 40)
    rows.write_text(rows.read_text() + "[" * 100_000 + "]" * 100_000 + "\n")
    command = ("sft", "--data", rows, "--out", here / "run", "--steps", 1, "--seed", 1, *NANO)
    refused(tinygpt(*command, "--strict"), r"rows\.jsonl line 41: not JSON .* nested too deeply")
    refused(tinygpt("train", "--set", "model=3", "--corpus", rows, "--out", here / "r"), "'model' must be a")
