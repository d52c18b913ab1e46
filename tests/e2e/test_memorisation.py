"""The probe of memorisation through its commands: of servers that know a text or not, of a model here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from e2e.shell import refused, tinygpt
from fake_openai import FakeOpenAI, Reply, completion
from serving import tiny_chat_model
from tinygpt.core.rows import beside, read_rows


def words(kind: str) -> str:
    return " ".join(hashlib.sha256(f"{kind}{i}".encode()).hexdigest()[:7] for i in range(99))


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, Path]:
    found = {kind: tmp_path / f"{kind}.txt" for kind in ("known", "other")}
    for kind, path in found.items():
        path.write_text(words(kind))
    return found


def server(*known: str, fails: str = "none") -> FakeOpenAI:
    """Goes on with the texts it knows."""

    def answer(path: str, body: dict[str, Any]) -> Reply:
        if path.endswith("/models"):
            return {"data": [{"id": "fake"}]}
        prompt = bytes(i for i in body["prompt"] if i < 256).decode()
        if fails in prompt:
            return 400, {}, {"error": {"message": "no"}}
        text = next((text for text in known if prompt in text), "")
        at = text.find(prompt) + len(prompt)
        return completion(text[at : at + body["max_tokens"]] if text else "?" * 20)

    return FakeOpenAI(answer)


def settings(texts: dict[str, Path]) -> list[str]:
    values = {"paths": texts["known"], "control": texts["other"], "n": 20, "prefix": 16, "go_on": 12}
    return [
        word for key, value in values.items() for word in ("--set", f"options.memorisation.{key}={value}")
    ]


def test_the_key_scores_one_and_other_text_zero(texts: dict[str, Path], tmp_path: Path) -> None:
    both = (words("known"), words("other"))
    for known, trained, control in ((both, 1.0, 1.0), (both[:1], 1.0, 0.0), ((), 0.0, 0.0)):
        out = tmp_path / f"{len(known)}" / "rows.jsonl"
        out.parent.mkdir()
        with server(*known).serving() as fake:
            call = ("eval", "fake", "--url", fake.url, "--tokenizer", "byte", "--suite", "memorisation")
            done = tinygpt(*call, *settings(texts), "--out", out)
        assert done.code == 0, done.err
        rows = {(row.subtask, row.metric): row for row in read_rows(out)[0]}
        assert {key: row.score for key, row in rows.items()} == {
            ("trained", "verbatim"): trained, ("trained", "verbatim_share"): trained,
            ("control", "verbatim"): control, ("control", "verbatim_share"): control,
            (None, "verbatim_excess"): trained - control,
        }  # fmt: skip
        records = [json.loads(line) for line in beside(out).read_text().splitlines()]
        assert len(records) == rows[None, "verbatim_excess"].n_examples
        mine = [one["scores"]["verbatim"] for one in records if "trained" in one["subtasks"]]
        assert sum(mine) / len(mine) == trained


def test_answers_that_fail_end_the_command(texts: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    odd = words("other").split()[40]
    with server(words("known"), fails=odd).serving() as fake:
        call = ("eval", "fake", "--url", fake.url, "--suite", "memorisation", *settings(texts), "--out", out)
        refused(tinygpt(*call), "does not show its tokens", hint="--tokenizer")
        done = tinygpt(*call, "--set", "options.memorisation.n=60", "--tokenizer", "byte", "--tries", 1)
    assert done.code == 2 and "answers failed to come" in done.err
    rows = {(row.subtask, row.metric): row for row in read_rows(out)[0]}
    assert rows["control", "verbatim"].n_failed == rows[None, "verbatim_excess"].n_failed > 0
    assert rows["trained", "verbatim"].n_failed == 0 and rows["trained", "verbatim"].score == 1.0


def test_a_model_of_this_machine(texts: dict[str, Path], tmp_path: Path) -> None:
    """One that learned nothing knows nothing; what it writes is compared letter by letter."""
    model = tiny_chat_model(tmp_path)
    call = ("run-bench", model, "--tasks", "sort-6", "--limit", 5, "--prefix", 9, "--go-on", 7)
    done = tinygpt(*call, "--memorise", texts["known"], "--control", texts["other"], "--json")
    assert done.code == 0, done.err
    rows = [row for row in done.json if row["task"] == "memorisation"]
    assert [(row["metric"], row["n_failed"]) for row in rows][::2] == [
        ("verbatim", 0), ("verbatim", 0), ("verbatim_excess", 0)
    ]  # fmt: skip
    assert rows[0]["n_examples"] == 5 and rows[0]["settings"]["prefix"] == 9
    call = ("run-bench", model, "--memorise", tmp_path / "none.txt")
    refused(tinygpt(*call), "there is no file or folder")
