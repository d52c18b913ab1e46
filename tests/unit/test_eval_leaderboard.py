"""The leaderboard: one task, one metric, one version of the data; speed and memory beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.rows import EvalRow, wilson, write_rows
from tinygpt.eval.leaderboard import board
from tinygpt.runs.leaderboard import run


def row(model: str, score: float, *, task: str = "t", metric: str = "exact_match", **more: object) -> EvalRow:
    facts = dict(n_examples=100, wall_seconds=1.0, data_version="d", model_path=model)
    return EvalRow(model_name=model, task=task, metric=metric, score=score, **{**facts, **more})  # type: ignore[arg-type]


def timed(model: str, tok_s: float, gb: float, batch: int = 1) -> list[EvalRow]:
    figures = {"decode_tok_s": tok_s, "peak_memory_bytes": 1e9 * gb}
    return [
        row(model, value, task="bench", metric=name, subtask="s", batch_size=batch)
        for name, value in figures.items()
    ]


def test_models_are_ranked_by_score_speed_and_memory() -> None:
    rows = [
        row("big", 0.9, interval=wilson(90, 100)), row("small", 0.6), row("untimed", 1.0),
        *timed("big", 50, 8), *timed("big", 9999, 1, batch=32), *timed("small", 100, 1),
        row("small", 0.5, subtask="part"), row("small", 3.0, metric="loss"),
    ]  # fmt: skip
    found = board(rows)
    assert (found.task, found.metric, found.data_version) == ("t", "exact_match", "d")
    told = {e.model: e.composite for e in found.entries}
    assert list(told) == ["small", "big", "untimed"]
    assert told == {"small": 0.6 * 2 * 2, "big": pytest.approx(0.9 / 4), "untimed": None}
    assert found.entries[1].low == wilson(90, 100)[0] and found.entries[0].n == 100


def test_what_does_not_compare_is_refused() -> None:
    one = row("a", 0.5)
    with pytest.raises(ConfigError, match="more than one figure.*--task t --metric f1"):
        board([one, row("a", 0.5, metric="f1")])
    assert board([one, row("a", 0.25, metric="f1")], metric="f1").entries[0].score == 0.25
    with pytest.raises(DataError, match="2 versions of its data"):
        board([one, row("b", 0.5, data_version="e")])
    with pytest.raises(DataError, match="3 answers of b failed"):
        board([one, row("b", 0.5, n_failed=3)])
    with pytest.raises(DataError, match="of b is 50, that of a 0.5, as if one were told in percent"):
        board([one, row("b", 50.0)])
    for scores in ((50.0, 62.5), (50.0, 1.0), (0.5, 1.0)):
        assert len(board([row(str(i), score) for i, score in enumerate(scores)]).entries) == 2
    bleu = [row("a", 0.5, metric="bleu"), row("b", 30.0, metric="bleu")]
    assert len(board(bleu).entries) == 2, "that is no share"
    with pytest.raises(DataError, match="no row is about"):
        board([one], task="u")


def test_pages(tmp_path: Path) -> None:
    path, out = tmp_path / "rows.jsonl", (tmp_path / "board.md", tmp_path / "board.html")
    write_rows(path, [row("a<b>", 0.5, baseline=True), *timed("a<b>", 50, 2), row("c|\nd", 0.1)])
    run([path], out=out)
    assert "| c\\| d | 0.100 | - |" in out[0].read_text()
    assert "| a<b> (baseline) | 0.500 | - | 100 | 50.0 | 2.00 | 0.500 |" in out[0].read_text()
    assert "<td>a&lt;b&gt; (baseline)</td>" in out[1].read_text() and "<b>" not in out[1].read_text()
    with pytest.raises(ConfigError, match=r"board\.txt is no page"):
        run([path], out=[tmp_path / "board.txt"])
    path.write_text(path.read_text() + "torn\n")
    with pytest.raises(DataError, match="1 lines are not eval rows"):
        run([path])
