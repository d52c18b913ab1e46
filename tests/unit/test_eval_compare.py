"""Comparison tables: what shares a line, what is averaged, what wins."""

from __future__ import annotations

from typing import Any

import pytest

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.rows import EvalRow, wilson
from tinygpt.eval.compare import compare, differences, lower_is_better, unbounded, with_intervals


def _row(model: str, score: float, **more: Any) -> EvalRow:
    base = {"task": "t", "metric": "accuracy", "n_examples": 10, "wall_seconds": 1.0, "data_version": "v1"}
    return EvalRow(model_path="", model_name=model, score=score, **{**base, **more})


def test_models_are_columns_and_baselines_come_first() -> None:
    rows = [_row("b", 0.6, interval=(0.5, 0.7)), _row("a", 0.7), _row("rules", 0.5, baseline=True)]
    (table,) = compare(rows)
    assert table.columns == ("rules", "b", "a") and table.lines[0].label == "t" and table.lines[0].best == 2
    cell = table.lines[0].cells[1]
    assert cell is not None and (cell.score, cell.low, cell.high, cell.n, cell.n_rows) == (
        0.6,
        0.5,
        0.7,
        10,
        1,
    )
    assert compare(rows, sort=True)[0].columns == ("rules", "a", "b")


def test_repeated_rows_become_a_mean_with_an_interval() -> None:
    (table,) = compare([_row("a", s) for s in (0.4, 0.5, 0.6)])
    cell = table.lines[0].cells[0]
    assert cell is not None and cell.score == pytest.approx(0.5) and cell.n_rows == 3
    assert cell.low == pytest.approx(0.5 - 1.96 * 0.1 / 3**0.5)
    assert table.lines[0].best is None


def test_unlike_things_never_share_a_line() -> None:
    rows = [
        _row("a", 0.5), _row("a", 2.0, metric="loss"), _row("a", 0.3, subtask="names"),
        _row("a", 0.9, data_version="v2"),
    ]  # fmt: skip
    lines = compare(rows)[0].lines
    assert [(line.label, line.metric) for line in lines] == [
        ("t @v1", "accuracy"), ("t", "loss"), ("t/names", "accuracy"), ("t @v2", "accuracy"),
    ]  # fmt: skip
    assert all(cell is None or cell.n_rows == 1 for line in lines for cell in line.cells)


def test_lower_is_better_where_the_metric_says_so() -> None:
    names = (
        "loss",
        "val_loss",
        "perplexity",
        "bits_per_byte",
        "wer",
        "error_rate",
        "wall_seconds",
        "tinystories-ppl",
        "peak_memory_bytes",
        "itl_ms_p50",
        "brier_score",
    )
    assert all(lower_is_better(name) for name in names)
    assert not any(
        lower_is_better(name) for name in ("accuracy", "exact_match", "state_correct", "lossless", "power")
    )
    assert unbounded("val_loss") and unbounded("wall_seconds") and not unbounded("error_rate")
    lines = compare([_row("a", 2.0, metric="loss"), _row("b", 1.0, metric="loss")])[0].lines
    assert lines[0].best == 1
    assert compare([_row("a", 1.0), _row("b", 1.0)])[0].lines[0].best is None


def test_steps_of_the_model_with_most_rows() -> None:
    rows = [_row("a", s / 10, model_step=s) for s in (3, 1, 2)] + [
        _row("b", 0.1, model_step=9),
        _row("a", 0.2),
    ]
    (table,) = compare(rows, by="step")
    assert table.title == "a" and [line.label for line in table.lines] == ["1", "2", "3"]
    assert table.columns == ("t accuracy",) and "left out: b" in table.notes[0]
    with pytest.raises(ConfigError, match="step"):
        compare([_row("a", 1.0)], by="step")


def test_a_ranking_for_each_task() -> None:
    rows = [_row(m, s, metric=metric) for metric in ("loss", "accuracy") for m, s in (("a", 0.1), ("b", 0.2))]
    loss, accuracy = compare(rows, by="task")
    assert [line.label for line in loss.lines] == ["a", "b"] and loss.lines[0].lower_is_better
    assert [line.label for line in accuracy.lines] == ["b", "a"]


def test_notes_and_refusals() -> None:
    rows = [_row("a", 0.1, n_failed=2, n_truncated=1, model_hash="x"), _row("a", 0.1, model_hash="y")]
    notes = " ".join(compare(rows)[0].notes)
    assert "2 answers failed" in notes and "1 were cut off" in notes and "different weights" in notes
    with pytest.raises(DataError, match="no eval row"):
        compare([])
    with pytest.raises(ConfigError, match="model"):
        compare(rows, by="modle")


def _records(run_id: str, right: range, n: int = 40) -> list[dict[str, Any]]:
    same = {"run_id": run_id, "task": "t", "subtasks": [None]}
    return [{**same, "id": str(i), "scores": {"accuracy": float(i in right)}} for i in range(n)]


def test_models_are_compared_example_by_example_where_records_allow() -> None:
    base = _row("base", 0.5, n_examples=40, run_id="1")
    tuned, other = (
        _row("tuned", 0.75, n_examples=40, run_id="2"),
        _row("other", 0.9, n_examples=40, run_id="3"),
    )
    records = _records("1", range(20)) + _records("2", range(30))
    (table,) = differences([base, tuned, other], records)
    assert table.columns == ("tuned", "other") and table.kind == "differences"
    cell, none = table.lines[0].cells
    assert none is None and cell is not None and (cell.score, cell.n) == (0.25, 40)
    assert cell.p == pytest.approx(2 / 2**10) and cell.low is not None and 0 < cell.low < 0.25
    assert not differences([base, other], records)
    broken = [*records, {**records[0], "id": "x"}]
    assert not differences([base, tuned], broken)


def test_only_shared_examples_are_compared() -> None:
    rows = [_row("a", 0.5, n_examples=40, run_id="1"), _row("b", 1.0, n_examples=10, run_id="2")]
    (table,) = differences(rows, _records("1", range(20)) + _records("2", range(10), 10))
    cell = table.lines[0].cells[0]
    assert cell is not None and (cell.n, cell.score, cell.p) == (10, 0.0, 1.0)


def test_a_row_without_an_interval_gets_that_of_its_records() -> None:
    given = [_row("a", 0.5, n_examples=40, run_id="1"), _row("b", 0.1, interval=(0.0, 0.2)), _row("c", 0.3)]
    found = with_intervals(given, _records("1", range(20)))
    assert found[0].interval == wilson(20, 40) and found[1:] == given[1:]
    graded = [
        {**r, "scores": {"accuracy": 0.5 + (i - 19.5) / 100}} for i, r in enumerate(_records("1", range(0)))
    ]
    (row,) = with_intervals(given[:1], graded)
    assert row.interval is not None and 0.45 < row.interval[0] < 0.5 < row.interval[1] < 0.55


def test_when_an_ability_appeared() -> None:
    def row(step: int, score: float, metric: str = "accuracy", half: float = 0.05) -> EvalRow:
        return _row("a", score, model_step=step, metric=metric, interval=(score - half, score + half))

    rows = [row(s, v) for s, v in ((0, 0.1), (10, 0.3), (20, 0.12), (30, 0.4), (40, 0.5))]
    rows += [row(s, v, "loss") for s, v in ((0, 3.0), (10, 2.0), (20, 1.5), (30, 1.4), (40, 2.98))]
    notes = compare(rows, by="step")[0].notes
    assert notes[0] == "t accuracy: clear of that of step 0 from step 30 on"
    assert notes[1] == "t loss: not clear of that of step 0"
    assert "no intervals" in compare([_row("a", 0.1, model_step=1)], by="step")[0].notes[0]


def test_runs_that_agree_are_no_surer_than_one() -> None:
    """The same examples answered alike again."""
    runs = [_row("a", 0.7, interval=(0.6, 0.8)) for _ in range(3)]
    cell = compare(runs)[0].lines[0].cells[0]
    assert cell is not None and (cell.low, cell.high) == pytest.approx((0.6, 0.8)) and cell.n_rows == 3
    runs = [_row("a", score, interval=(score - 0.01, score + 0.01)) for score in (0.2, 0.5, 0.8)]
    cell = compare(runs)[0].lines[0].cells[0]
    assert cell is not None and cell.low is not None and cell.low < 0.2


def test_scores_whose_sum_is_no_number_have_a_mean() -> None:
    for scores, mean in (((1e308, 1e308), 1e308), ((-1e308, 1e308, 1e308), 1e308 / 3)):
        (table,) = compare([_row("a", score, metric="nll") for score in scores])
        cell = table.lines[0].cells[0]
        assert cell is not None and cell.score == pytest.approx(mean)
        assert cell.low is None or cell.low <= cell.score


def test_records_whose_sum_is_no_number_are_told() -> None:
    rows = [_row(name, 1e308, metric="nll", n_examples=2, run_id=name) for name in "ab"]
    told = {"task": "t", "scores": {"nll": 1e308}}
    records = [{"run_id": name, "id": id, **told} for name in "ab" for id in "xy"]
    (table,) = compare(with_intervals(rows, records))
    assert table.lines[0].cells[0] is not None
    differences(rows, records)
