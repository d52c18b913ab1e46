"""Every command with --json: JSON on stdout and nothing else, strict enough for any reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.shell import NANO, good, refused, tinygpt
from tinygpt.cli import _root

# What each command is called with; {at} is the folder of a short run, {out} a place that is still free.
LINES = {
    "quickstart": "--data {at}/rows.jsonl --out {out} --steps 1",
    "doctor": "",
    "train": "--corpus {at}/corpus.txt --out {out} --steps 1 {nano}",
    "automix": "--corpus a={at}/corpus.txt --corpus b={at}/rows.jsonl --target {at}/run/run.json --dry-run",
    "es": "{at}/run --data {at}/rows.jsonl --out {out} --steps 1 --population 2 --batch 4 --no-compile",
    "sample": "{at}/run --prompt The --tokens 3 --n 2 --quantize 8 --quantize-group 32",
    "train-heads": "{at}/run --corpus {at}/corpus.txt --out {out} --steps 1 --batch 2 --no-compile",
    "infer-heatmap": "{at}/trace.json",
    "generate": "{at}/run --data {at}/asked.jsonl --out {out} --max-tokens 3",
    "chat": "{wide} --max-tokens 3",
    "tokenize-train": "--corpus {at}/corpus.txt --out {out} --vocab-size 300",
    "finetune": "{at}/run --corpus {at}/corpus.txt --out {out} --steps 1 --batch 4 --no-compile",
    "sft": "{at}/run --data {at}/rows.jsonl --out {out} --steps 1 --batch 4 --no-compile",
    "merge": "{at}/run {at}/run/final --method linear --out {out}",
    "bake-lora": "{at}/run {at}/tuned --out {out}",
    "compare": "{at}/run --adapter {at}/tuned --corpus {at}/corpus.txt --windows 2 --no-sample",
    "adapter-convert": "{at}/tuned --format mlx --out {out}",
    "hf-inspect": "{at}/run",
    "hf-load": "{at}/run --out {out}",
    "dpo": "{wide} --data {at}/pairs.jsonl --out {out} --steps 1 --batch 4 --no-compile",
    "bon": "{at}/run --prompt The --tokens 3 --scan 1,2",
    "eval": "{at}/run --corpus {at}/corpus.txt --out {at}/rows-of-eval.jsonl",
    "eval-compare": "{at}/rows-of-eval.jsonl",
    "run-bench": "{at}/run --limit 2 --perplexity {at}/corpus.txt",
    "bench": "{at}/run --prompt-tokens 2 --gen-tokens 2 --n-runs 1",
    "bench-train": "--preset tiny --batch 1 --context 8 --steps 1 --no-compile",
    "debug-names": "{at}/run",
    "debug-load": "{at}/run",
    "debug-logits": "{at}/run",
    "debug-dtypes": "{at}/run",
    "debug-loss": "{at}/run --text hello",
    "explain": "lora",
    "inspect": "{at}/run --tensors",
    "validate": "{at}/run",
}


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_every_command_is_here() -> None:
    servers = {"serve"}  # they print what they serve at once, and do not end: see test_serve.py
    assert set(LINES) | servers == set(_root.commands()), "give a new command its line"


@pytest.fixture(scope="module")
def wide(trained: Path) -> Path:
    """A run with room for a conversation."""
    corpus, out = trained / "corpus.txt", trained / "wide"
    good("train", "--corpus", corpus, "--out", out, "--steps", 1, *NANO, "--context", 96, "--no-lock")
    return out


@pytest.mark.parametrize("name", LINES)
def test_stdout_is_json_and_nothing_else(name: str, trained: Path, wide: Path, tmp_path: Path) -> None:
    def words(name: str) -> list[str]:
        nano = " ".join(NANO)
        return LINES[name].format(at=trained, wide=wide, out=tmp_path / "out", nano=nano).split()

    if name == "eval-compare" and not (trained / "rows-of-eval.jsonl").exists():
        good("eval", *words("eval"))
    if name == "infer-heatmap":
        told = {"request_id": "a", "route": "/", "total_ms": 1.0, "spans": [], "tokens": []}
        (trained / "trace.json").write_text(json.dumps(told), encoding="utf-8")
    if name == "generate":
        (trained / "asked.jsonl").write_text('{"prompt": "The"}\n', encoding="utf-8")
    if name == "bake-lora":
        given = ("--data", trained / "rows.jsonl", "--out", trained / "tuned", "--steps", 1, "--batch", 4)
        good("sft", trained / "run", *given, "--no-compile", "--no-lock")
    done = good(name, *words(name), "--json", stdin="hello\n\nagain\n")
    found = [json.loads(line, parse_constant=no_constant) for line in done.out.splitlines()]
    assert len(found) == (2 if name == "chat" else 1), "one document, on one line; chat: one a turn"
    assert found[0]


def test_numbers_that_json_lacks_are_null(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tinygpt.cli._render import Output

    Output(json=True).result({"a": [float("nan"), 1.5, float("inf")], "path": trained})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5, None], "path": str(trained)}


def test_markdown_and_json_are_two_answers(tmp_path: Path) -> None:
    done = tinygpt("eval-compare", tmp_path / "no.jsonl", "--markdown", "--json")
    refused(done, "--json and --markdown are two forms", hint="leave one out")
