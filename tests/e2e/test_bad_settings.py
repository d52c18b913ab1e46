"""Settings that no command may take: refused before anything is read, made or replaced."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from e2e.shell import NANO, good, refused, snapshot, tinygpt


@pytest.mark.parametrize(
    "words",
    [
        ("bench", "m", "--seed", "-1"),
        ("bench-train", "--seed", "-1"),
        ("sample", "m", "--seed", "-1"),
        ("chat", "m", "--set", "seed=-1"),
    ],
)
def test_a_negative_seed(words: tuple[str, ...]) -> None:
    refused(tinygpt(*words), "'seed' must not be negative, got -1")


@pytest.mark.parametrize("what", ["--demo", "--data"])
def test_a_quickstart_that_could_only_fail_later(what: str, trained: Path, tmp_path: Path) -> None:
    start = (
        "quickstart",
        what,
        *([trained / "rows.jsonl"] if what == "--data" else []),
        "--out",
        tmp_path / "q",
    )
    for words, pattern in (
        (("--minutes", "nan"), "'minutes' must be a number, got nan"),
        (("--minutes", "0"), "--minutes must be positive"),
        (("--seed", "-1"), "seed. must not be negative"),
        (("--steps", "-1"), "--steps and"),
    ):
        refused(tinygpt(*start, *words), pattern)
    assert not list(tmp_path.iterdir())


def test_what_a_base_brings_along_is_refused_even_at_its_default(trained: Path, tmp_path: Path) -> None:
    run, out = trained / "run", tmp_path / "r"
    train = ("train", "--corpus", trained / "corpus.txt", "--out", out, "--base", run)
    sft = ("sft", run, "--data", trained / "rows.jsonl", "--out", out)
    for command in (train, sft):
        for words in (("--tokenizer", "byte"), ("--preset", "tiny")):
            refused(
                tinygpt(*command, *words), f"{words[0]}: the base .*run brings its own", hint="leave it out"
            )
    refused(tinygpt(*train[:5], "--tokenizer", ""), "--tokenizer is empty", hint="byte")
    assert not out.exists()


def test_names_that_no_file_system_takes(trained: Path, tmp_path: Path) -> None:
    corpus, run, long = trained / "corpus.txt", trained / "run", tmp_path / ("x" * 300)
    before = snapshot(trained)
    for words in (
        ("train", "--corpus", long, "--out", tmp_path / "r", *NANO),
        ("train", "--corpus", corpus, "--out", long, *NANO),
        ("tokenize-train", "--corpus", corpus, "--out", long),
        ("eval", run, "--corpus", corpus, "--out", long),
        ("sample", long),
        ("inspect", long),
        ("quickstart", "--data", trained / "rows.jsonl", "--out", long),
    ):
        refused(tinygpt(*words), "cannot read .*xxx.*: File name too long", hint="check")
    assert snapshot(trained) == before and not list(tmp_path.iterdir())


def test_excluded_names_come_with_commas(trained: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    for folder in ("keep", "site-packages", "test_a"):
        (corpus / folder).mkdir(parents=True)
        (corpus / folder / "t.txt").write_text("the cat sat on a mat\n" * 40)
    found = good(
        "tokenize-train", "--corpus", corpus, "--out", tmp_path / "tok", "--vocab-size", 270, "--exclude",
        "site-packages,test_*", "--json",
    ).json  # fmt: skip
    assert found["files"] == 1
    limits = ("--set", "options.sort_6.n=1", "--set", "options.reverse_16.n=1")
    rows = good("eval", trained / "run", "--suite", "sort_6,reverse-16", *limits, "--json").json
    assert [r["task"] for r in rows] == ["sort-6", "reverse-16"]


def test_what_a_tuned_run_says_to_try_works(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "my run"
    done = good(
        "sft", trained / "run", "--data", trained / "rows.jsonl", "--out", out, "--steps", 1, "--seed", 1,
        *NANO[4:],
    )  # fmt: skip
    name, *words = shlex.split(done.out.splitlines()[-1].removeprefix("try: "))
    assert name == "tinygpt" and str(out / "final") in words
    assert good(*words, "--prompt", "3+4", "--tokens", 2).out.startswith("3+4")


def test_what_would_be_ignored_or_teach_nothing(trained: Path, tmp_path: Path) -> None:
    refused(
        tinygpt("quickstart", "--demo", "--strict", "--out", tmp_path / "q"),
        "--strict says nothing to the demo",
    )
    run, rows, out = trained / "run", trained / "rows.jsonl", tmp_path / "r"
    refused(
        tinygpt("sft", run, "--data", rows, "--out", out, "--alpha", "0"), "alpha must be positive, got 0"
    )
    assert not (tmp_path / "q").exists()
