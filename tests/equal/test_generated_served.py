"""`synthesize` and `magpie` write through a server of ours what the model writes in their process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nano
import serving
from e2e.shell import good


def _said(path: Path) -> list[Any]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def test_answers_under_schema_grammar_and_none(live: serving.Live, tmp_path: Path) -> None:
    nano.require("jsonschema")
    (tmp_path / "schema.json").write_text(json.dumps(serving.SCHEMA), encoding="utf-8")
    (tmp_path / "yes.gbnf").write_text('root ::= "yes" | "no" " "*', encoding="utf-8")
    rows = [{"prompt": f"{i}?"} for i in range(5)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ways = {
        "free": ("--keep-cut",), "schema": ("--schema", tmp_path / "schema.json"),
        "grammar": ("--grammar", tmp_path / "yes.gbnf"), "regex": ("--regex", "[0-9]{1,9}"),
        "choice": ("--choices", "a,b"),
    }  # fmt: skip
    for name, how in ways.items():
        both = [tmp_path / f"{name}-{where}.jsonl" for where in ("here", "there")]
        for out, teacher in zip(both, (live.model, f"{live.url}/v1"), strict=True):
            given = ("--inputs", tmp_path / "in.jsonl", "--out", out, "--temperature", 1, "--max-tokens", 60)
            good("synthesize", "--teacher", teacher, *given, *how, "--retries", 3, "--quiet")
        here, there = map(_said, both)
        assert here == there and here


def test_conversations(live: serving.Live, tmp_path: Path) -> None:
    loose = ("--max-user", 200, "--max-assistant", 200, "--min-letters", 1, "--max-repetition", 1)
    words = ("--count", 3, "--temperature", 1, *loose, "--quiet")
    good("magpie", live.model, "--out", tmp_path / "here.jsonl", *words)
    there = ("--url", f"{live.url}/v1", "--tokenizer", live.model)
    good("magpie", serving.NAME, *there, "--out", tmp_path / "there.jsonl", *words)
    assert _said(tmp_path / "here.jsonl") == _said(tmp_path / "there.jsonl")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of the tiny chat model."""
    folder = tmp_path_factory.mktemp("served")
    with serving.serve(serving.tiny_chat_model(folder), folder) as found:
        yield found
