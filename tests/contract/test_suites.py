"""Every suite against scripted endpoints: all right, all wrong, failed, and rows that fit the schema."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import problems
import row_suites
from scripted import ScriptedEndpoint
from tinygpt.core.family import Family
from tinygpt.core.rows import read_rows, write_rows
from tinygpt.eval.compare import lower_is_better
from tinygpt.eval.endpoint import Prompt, Reply

SUITES = Family("tinygpt.eval.suites", verb="score")
# Those that compare probabilities, and those whose figures have no right or wrong, have tests of their own.
ASKED = [name for name in SUITES.names() if name not in ("heldout_loss", "memorisation", "milu", "mteb")]
ANSWERED = [name for name in ASKED if name not in ("judge", "scaledown")]


def _config(name: str, folder: Path) -> Any:
    """A small config: suites that read a file get one."""
    cls = SUITES.config(name)
    if name == "heldout_loss":
        (folder / "a.txt").write_text(
            "one line\nand another, long enough for two windows of sixty-four bytes.\n" * 2
        )
        (folder / "b.txt").write_text("é")
        return cls(paths=(folder,))
    if name == "memorisation":
        (folder / "known.txt").write_text("one line\nand another, long enough for two windows.\n" * 2)
        (folder / "other.txt").write_text("some words that nobody has read before them, or so.\n" * 2)
        return cls(paths=(folder / "known.txt",), control=(folder / "other.txt",), n=4, prefix=12, go_on=9)
    if name == "exact_match":
        rows = [{"prompt": f"{i}+1?", "answer": str(i + 1)} for i in range(9)]
        call = {"name": "ls", "arguments": {"path": "a"}}
        rows.append(
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]}
        )
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return cls(path=folder / "rows.jsonl")
    if name == "gsm8k":
        rows = [{"question": f"{i} and {i}?", "answer": f"{i} + {i}\n#### {2 * i}"} for i in range(5)]
        (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return cls(data=folder / "problems.jsonl")
    if name in ("humaneval", "mbpp"):
        problems.need_sandbox()
        rows = problems.HUMANEVAL if name == "humaneval" else problems.MBPP
        return cls(data=problems.write(folder / "problems.jsonl", rows))
    if name == "mteb":
        return cls(data=(row_suites.beir(folder / "beir"), row_suites.write("sts", folder)))
    if name == "judgement":
        return cls(data=row_suites.FIXTURES)
    if name in row_suites.ROWS:
        return cls(data=row_suites.write(name, folder))
    small = {"n": 6}
    return cls(**small)


def _run(name: str, folder: Path, wrong: Any = None, **options: Any) -> Any:
    suite, config = SUITES.load(name), _config(name, folder)
    examples = suite.load(config)
    right: dict[str, Any] = {}
    if name in ASKED:
        for item in examples.items:
            right[repr(item.get("messages") or item["prompt"])] = suite.gold(item)

    def answer(prompt: Prompt) -> Any:
        if name == "memorisation":
            return "?"
        return right[repr(prompt)] if wrong is None else wrong

    return suite.score(ScriptedEndpoint(answer, **options), examples, config)


def marked(names: Sequence[str], *slow: str) -> list[Any]:
    """Suites that start programs are slow."""
    slow += ("humaneval", "mbpp", "sql")
    return [pytest.param(n, marks=[pytest.mark.wide] if n in slow else []) for n in names]


def best(metric: str) -> float:
    return 0.0 if lower_is_better(metric) else 1.0


@pytest.mark.parametrize("name", marked(ANSWERED))
def test_all_right_is_one(name: str, tmp_path: Path) -> None:
    result = _run(name, tmp_path)
    assert result.rows and all(row.score == best(row.metric) for row in result.rows)
    assert all(example["correct"] for example in result.examples)


@pytest.mark.parametrize("name", marked(ANSWERED))
def test_all_wrong_is_zero(name: str, tmp_path: Path) -> None:
    # A bare question mark: no answer, no refusal, no question that names a candidate.
    result = _run(name, tmp_path, wrong="?")
    assert result.rows and all(row.score == 1 - best(row.metric) for row in result.rows)
    assert result.rows[0].n_failed == result.rows[0].n_truncated == 0


@pytest.mark.parametrize("name", marked(ANSWERED))
def test_failed_and_cut_answers_are_counted(name: str, tmp_path: Path) -> None:
    failed = _run(name, tmp_path, wrong=Reply.failed("the server is gone"))
    assert failed.rows[0].score == 0.0 and failed.rows[0].n_failed == failed.rows[0].n_examples
    assert failed.examples[0]["error"] == "the server is gone"
    cut = Reply(message={"role": "assistant", "content": "?"}, text="?", finish_reason="length", n_tokens=1)
    assert (row := _run(name, tmp_path, wrong=cut).rows[0]).n_truncated == row.n_examples


def test_held_out_loss_of_certainty_is_zero_and_of_a_coin_one_bit(tmp_path: Path) -> None:
    scores = {row.metric: row.score for row in _run("heldout_loss", tmp_path).rows}
    assert scores == {"loss": 0.0, "perplexity": 1.0, "bits_per_byte": 0.0}
    coin = {row.metric: row.score for row in _run("heldout_loss", tmp_path, logprob=-math.log(2)).rows}
    assert coin == pytest.approx({"loss": math.log(2), "perplexity": 2.0, "bits_per_byte": 1.0})


@pytest.mark.parametrize("name", marked(SUITES.names()))
def test_rows_fit_the_schema_and_records_are_json(name: str, tmp_path: Path) -> None:
    result = _run(name, tmp_path)
    write_rows(tmp_path / "rows.out", result.rows)
    back, invalid = read_rows(tmp_path / "rows.out")
    assert not invalid and [dataclasses.asdict(r) for r in back] == [
        json.loads(json.dumps(dataclasses.asdict(r))) | {"interval": r.interval} for r in result.rows
    ]
    for row in result.rows:
        assert row.model_name == "scripted" and row.model_step == 7 and row.data_version
        low, high = row.interval or (row.score, row.score)
        assert low - 1e-9 <= row.score <= high + 1e-9
    assert json.dumps(result.examples)


@pytest.mark.parametrize("name", marked(SUITES.names(), "executed_state"))
def test_same_config_same_examples(name: str, tmp_path: Path) -> None:
    suite, config = SUITES.load(name), _config(name, tmp_path)
    assert suite.load(config).version == suite.load(config).version
    found = SUITES.describe(name)
    assert found.summary and found.body and found.paper and found.differs
