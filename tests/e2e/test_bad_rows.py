"""Rows that cannot be learned, and settings of tuning that cannot be: one line each, and nothing is made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from e2e.shell import NANO, good, refused, tinygpt
from tinygpt.model import checkpoint

PAIRS = [{"prompt": f"{i}+1", "completion": str(i + 1)} for i in range(30)]


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of a person."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sft(base: Path, data: object, *more: object) -> tuple[object, ...]:
    return ("sft", base, "--data", data, "--out", "run", "--steps", 1, "--batch", 4, "--no-compile", *more)


@pytest.mark.parametrize(
    ("name", "text", "pattern"),
    [
        ("a.jsonl", "", r"a\.jsonl is empty"),
        ("a.jsonl", '{"prompt": "q"}\n[1]\n', "none of the 2 rows of a.jsonl is usable; line 1: no known"),
        ("a.json", '[{"prompt": "q"', r"a\.json is no JSON array"),
        ("a.csv", "prompt,completion\n", r"a\.csv is empty"),
        ("a.csv", "query,reply\na,b\n", "of a.csv is usable; row 1: no known row shape has the keys"),
        ("a.csv", 'prompt,completion\n"q,a\n', r"a\.csv is no table of cells"),
        ("a.tsv", "prompt\tprompt\n", "two columns are called 'prompt'"),
        ("a.parquet", "no table", r"cannot read a\.parquet"),
    ],
)  # fmt: skip
def test_files_of_rows(name: str, text: str, pattern: str, trained: Path, here: Path) -> None:
    (here / name).write_text(text)
    refused(tinygpt(*sft(trained / "run", name)), pattern)
    assert [p.name for p in here.iterdir()] == [name]


def test_columns_are_named(trained: Path, here: Path) -> None:
    lines(here / "a.jsonl", *({"query": r["prompt"], "data": {"reply": r["completion"]}} for r in PAIRS))
    run, named = trained / "run", "prompt=query,completion=data.reply"
    refused(
        tinygpt(*sft(run, "a.jsonl", "--map", "prompt=quere")),
        "there is no column 'quere'. Did you mean 'query'",
    )
    refused(
        tinygpt(*sft(run, "a.jsonl", "--map", "prompts=query")),
        "no shape has a column 'prompts'. Did you mean 'prompt'",
    )
    refused(tinygpt(*sft(run, "a.jsonl", "--map", "query")), "--map query is no new=old", hint="prompt=query")
    refused(
        tinygpt(*sft(run, "a.jsonl")), "no known row shape has the keys: query, data", hint="--map new=old"
    )
    assert not (here / "run").exists()
    told = good(*sft(run, "a.jsonl", "--map", named)).err
    assert "a.jsonl: 30 {prompt, completion} rows" in told


def test_what_is_evaluated_on(trained: Path, here: Path) -> None:
    run, rows = trained / "run", lines(here / "a.jsonl", *PAIRS)
    lines(here / "val.jsonl", *PAIRS[:3], {"prompt": "what", "completion": "that"})
    (here / "none.jsonl").write_text("")
    twice = "3 of 4 rows of --val-data are in --data too"
    refused(tinygpt(*sft(run, rows, "--val-data", "val.jsonl", "--strict")), twice, hint="take them out")
    refused(tinygpt(*sft(run, rows, "--val-data", "none.jsonl")), r"none\.jsonl is empty")
    refused(tinygpt(*sft(run, rows, "--val-data", "no.jsonl")), r"there is no file no\.jsonl")
    refused(tinygpt(*sft(run, f"{rows}:0")), f"--data {rows}:0: the weight must be a finite number above 0")
    both = sft(run, rows, "--val-data", "val.jsonl", "--held-out", 0.2)
    refused(tinygpt(*both), "--val-data and --held-out both say what is held out")
    refused(
        tinygpt(*sft(run, rows, "--patience", 2, "--eval-every", 1, "--held-out", 0)), "nothing is held out"
    )
    assert not (here / "run").exists()
    done = good(*sft(run, rows, "--val-data", "val.jsonl", "--eval-every", 1, "--keep-best"))
    assert f"warning: {twice}" in done.err and "held out: " in done.err and (here / "run" / "best").is_dir()


def test_settings_that_cannot_be(trained: Path, here: Path) -> None:
    run, rows = trained / "run", lines(here / "a.jsonl", *PAIRS)
    for more, pattern in (
        (("--template", "chatlm"), "unknown template 'chatlm'. Did you mean 'chatml'"),
        (("--pack", "tight"), "'pack' cannot be 'tight'"),
        (("--pack", "none", "--length-bucket", 4), "--length-bucket says nothing with --pack none"),
        (("--pack-mode", "bucket", "--length-bucket", 99), "--length-bucket must be from 1 to 16, got 99"),
        (("--truncate", "middle"), "'truncate' cannot be 'middle'"),
        (("--learn", "first"), "'learn' cannot be 'first'"),
        (("--learn", "all", "--prompt-weight", 0.1), "prompt_weight says nothing"),
        (("--epochs", 2), "--epochs and --steps both say how long"),
        (("--epochs", -1), "--epochs must be a number of epochs"),
        (("--data", "a.jsonl:2"), "has no weight, others have"),
        (("--data", "b=a.jsonl:0"), "--data b=a.jsonl:0: the weight must be a finite number above 0"),
    ):  # fmt: skip
        refused(tinygpt(*sft(run, rows, *more)), pattern)
    refused(tinygpt("sft", run, "--out", "run"), "data", hint="")
    assert not (here / "run").exists()


def test_a_base_that_cannot_be_tuned(trained: Path, here: Path) -> None:
    rows = lines(here / "a.jsonl", *PAIRS)
    bare = shutil.copytree(trained / "run" / "final", here / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    checkpoint.seal(bare, kind="model")
    for words in (sft(bare, rows), ("finetune", bare, "--corpus", trained / "corpus.txt", "--out", "run")):
        refused(tinygpt(*words), "tokenizer")
    refused(tinygpt(*sft(here / "no", rows)), "there is nothing at")
    assert not (here / "run").exists()


def test_text_that_cannot_be_learned(trained: Path, here: Path) -> None:
    (here / "t.txt").write_text("short")
    (here / "empty.txt").write_text("")
    tune = ("finetune", trained / "run", "--out", "run", "--steps", 1, "--no-compile")
    refused(
        tinygpt(*tune, "--corpus", "t.txt"),
        "6 tokens to train on, but one row needs 32",
        hint="shorter context",
    )
    refused(tinygpt(*tune, "--corpus", "empty.txt"), "has no text")
    refused(tinygpt(*tune, "--corpus", "no.txt"), r"no file or folder .*no\.txt")
    refused(
        tinygpt("finetune", "--corpus", "t.txt", "--out", "run"), "there is no base to tune", hint="train"
    )
    refused(tinygpt(*tune, "--corpus", "t.txt", "--preset", "tiny"), "finetune has no option --preset")
    refused(tinygpt(*tune, "--corpus", "t.txt", "--epochs", 1), "--epochs and --steps both say how long")
    assert not (here / "run").exists()


def test_long_answers_are_counted_or_refused(trained: Path, here: Path) -> None:
    rows = lines(here / "a.jsonl", *PAIRS, {"prompt": "q", "completion": "long " * 20})
    fresh = ("sft", "--data", rows, "--out", "run", "--steps", 1, "--seed", 1, *NANO)
    lost = "1 answers are longer than a row of 32 tokens"
    refused(tinygpt(*fresh, "--strict"), lost, hint="longer context")
    refused(
        tinygpt(*fresh, "--strict", "--truncate", "drop"), "1 examples are longer than a row of 32 tokens"
    )
    assert not (here / "run").exists()
    assert f"warning: {lost}; their rows were left out" in good(*fresh).err
    assert "lost their end" in good(*fresh, "--truncate", "right", "--force").err
