"""BFCL without BFCL: which categories are asked, and what is made of files like its own."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import ConfigError, DataError, RemoteError
from tinygpt.core.events import Events
from tinygpt.runs import _bfcl_harness, _bfcl_results, _harness, bfcl
from tinygpt.runs._bfcl_known import EVERY, GROUPS, NETWORK, chosen
from tinygpt.runs._own_server import Subject

NAME = "tinygpt-FC"


def test_groups_leave_out_what_needs_a_network_and_say_so() -> None:
    asked, told = chosen(["all"], native=True)
    assert set(EVERY) - set(asked) == {*NETWORK, "format_sensitivity"} and len(told) == 4
    assert chosen(["all"], native=False)[0] == [*asked, "format_sensitivity"]
    assert chosen(["offline"], native=True) == (asked, [])
    assert chosen(["simple", "relevance", "multi_turn"], native=True)[0] == [
        "simple_python", "live_relevance", *GROUPS["multi_turn"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "native", "why"),
    [
        (["web_search_base"], True, "search engine"),
        (["memory_vector"], False, "encoder"),
        (["format_sensitivity"], True, "--mode prompt"),
        (["multi_turn_bass"], True, "Did you mean 'multi_turn_base'"),
        (["web_search"], True, "no category is left"),
    ],
)
def test_what_cannot_be_asked_is_refused(names: list[str], native: bool, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        chosen(names, native=native)


def write(root: Path, kind: str, category: str, lines: list[Any]) -> Path:
    path = root / kind / NAME / "non_live" / f"BFCL_v4_{category}_{kind}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four examples: one right, one wrong, one cut off and wrong, one that was not answered."""
    calls = [{"light": "{}"}]
    write(tmp_path, "result", "irrelevance", [
        {"id": "irrelevance_0", "result": "no tool fits", "latency": 1.5, "output_token_count": 4},
        {"id": "irrelevance_1", "result": calls, "latency": 1.0, "output_token_count": [[2, 3]]},
        {"id": "irrelevance_2", "result": calls, "latency": 0.5, "finish_reasons": ["stop", "length"]},
        {"id": "irrelevance_3", "result": f"{_bfcl_harness.FAILED}: timed out"},
    ])  # fmt: skip
    errors = [{"id": f"irrelevance_{i}", "error": ["a call"], "error_type": "x"} for i in (1, 2)]
    lost = {"id": "irrelevance_3", "error": {"error_type": "y", "error_message": ["no list"]}}
    head = {"accuracy": 0.25, "correct_count": 1, "total_count": 4}
    write(tmp_path, "score", "irrelevance", [head, *errors, lost])
    return tmp_path


def plan(*more: str, before: tuple[str, ...] = ()) -> dict[str, Any]:
    ids = [*(f"irrelevance_{i}" for i in range(4)), *more]
    return {"ids": ids, "before": list(before), "n_all": 240, "group": "non_live", "data_version": "v"}


def measure(root: Path, plan: dict[str, Any]) -> Any:
    return _bfcl_results.category_row(Subject(name="m", path="p"), root, NAME, "irrelevance", plan)


def test_a_row_counts_what_was_right_lost_and_cut_off(root: Path) -> None:
    row, records = measure(root, plan(before=("irrelevance_prereq_0",)))
    assert (row.task, row.subtask, row.metric, row.score) == ("bfcl", "irrelevance", "accuracy", 0.25)
    assert (row.n_examples, row.n_failed, row.n_truncated) == (4, 2, 1), "what came before is lost, too"
    assert row.interval is not None and row.interval[0] < 0.25 < row.interval[1]
    assert row.wall_seconds == 3.0 and row.data_version == "v"
    assert [r["correct"] for r in records] == [True, False, False, False]
    assert [r["error_type"] for r in records] == ["", "x", "x", "inference_error"]
    assert records[1]["n_tokens"] == 5 and records[3]["error"].endswith("timed out")
    assert row.settings["failures"] == {"x": 2, "inference_error": 1}


def test_what_the_runner_left_out_is_lost(root: Path) -> None:
    row, records = measure(root, plan("irrelevance_9"))
    assert row.n_examples == 5 and row.n_failed == 2 and not records[-1]["correct"]


def test_counts_that_do_not_agree_are_an_error(root: Path) -> None:
    head = {"accuracy": 1.0, "correct_count": 4, "total_count": 4}
    write(root, "score", "irrelevance", [head])  # as BFCL itself scores an answer that did not come
    with pytest.raises(DataError, match="counts 4 right answers of irrelevance"):
        measure(root, plan())
    (root / "score" / NAME / "non_live" / "BFCL_v4_irrelevance_score.json").unlink()
    with pytest.raises(DataError, match="no score of irrelevance"):
        measure(root, plan())


def test_known_bad_references_are_marked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bfcl_results, "KNOWN_BAD", frozenset({"irrelevance_1", "other_1"}))
    row, records = measure(root, plan())
    assert row.settings["known_bad"] == 1 and [r.get("known_bad") for r in records] == [
        None,
        True,
        None,
        None,
    ]


def test_answers_are_kept_and_errors_and_torn_lines_asked_again(root: Path) -> None:
    path = next((root / "result").rglob("*_result.json"))
    path.write_text(path.read_text() + '{"id": "irrelevance_4", "resu', encoding="utf-8")
    assert _bfcl_results.keep_answers(root) == 3
    assert [one["id"] for one in _bfcl_results.lines_of(path)] == [f"irrelevance_{i}" for i in range(3)]


def test_the_overall_figure_names_what_was_not_asked(root: Path) -> None:
    row, _ = measure(root, plan())
    (root / "score" / "data_overall.csv").write_text(
        "Rank,Overall Acc,Model,Latency Mean (s),Live Acc,Multi Turn Acc\n1,2.50%,m,N/A,25.00%,N/A\n"
    )
    found = _bfcl_results.overall(Subject(name="m", path="p"), root, [row], 1.0, "v")
    assert (found.subtask, found.metric, found.score, found.n_failed) == (None, "official_overall", 0.025, 1)
    assert found.settings["official"] == {"Live Acc": "25.00%"}
    assert found.settings["not_asked"] == ["Multi Turn Acc"]


def test_looks_into_our_catalogue_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "hops.jsonl"
    path.write_text('{"get_tool_info_hops": 1}\n{"get_tool_info_hops": 2}\n')
    row = _bfcl_results.hops_row(Subject(name="m", path="p"), path, 1.0, "v")
    assert (row.subtask, row.metric, row.score, row.n_examples) == (
        "deferred_tools", "get_tool_info_hops", 1.5, 2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"url": "http://x", "tokenizer": "x"}, "--tokenizer says nothing"),
        ({"limit": -1}, "--limit must not be negative"),
        ({"tool_mode": "deferred"}, "means nothing without --tools"),
        ({"url": "http://x", "tools": Path("t")}, "--tools is for a server of our own"),
        ({"resume": True}, "--resume needs the folder"),
    ],
)
def test_settings_that_mean_nothing_are_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        bfcl.Config(model=Path("m"), **given)


def test_the_environment_is_pinned_and_its_script_knows_nothing_of_us() -> None:
    lines = bfcl.HARNESS.requirements.read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert "bfcl-eval==2026.3.23" in wanted and all(line.count("==") == 1 for line in wanted)
    tree = ast.parse(Path(_bfcl_harness.__file__).read_text(encoding="utf-8"))
    imported = [n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in ast.walk(tree)
                if isinstance(n, ast.Import | ast.ImportFrom)]  # fmt: skip
    assert not [name for name in imported if name and name.startswith("tinygpt")]


def test_an_interpreter_without_the_harness_is_one_line_with_the_command(tmp_path: Path) -> None:
    import sys

    with pytest.raises(ConfigError, match="has no bfcl-eval") as caught:
        _harness.python_of(bfcl.HARNESS, Path(sys.executable), Events())
    assert "pip install --no-deps" in caught.value.hint and "--harness-python" in caught.value.hint
    with pytest.raises(ConfigError, match="cannot be run"):
        _harness.python_of(bfcl.HARNESS, tmp_path / "nowhere", Events())


def test_a_process_that_fails_says_its_last_line(tmp_path: Path) -> None:
    looked: list[int] = []
    _harness.run(["sh", "-c", "echo fine"], tmp_path / "log", what="it", look=lambda: looked.append(1))
    assert looked and (tmp_path / "log").read_text() == "fine\n"
    with pytest.raises(RemoteError, match="it failed: broken"):
        _harness.run(["sh", "-c", "echo first; echo broken; exit 3"], tmp_path / "log", what="it")


def test_a_folder_of_results_is_not_written_over(tmp_path: Path) -> None:
    def entered(path: Path | None, resume: bool = False) -> Path:
        with _harness.folder(path, "asked.json", resume=resume) as found:
            return found

    root = tmp_path / "a"
    assert entered(root) == root.resolve() and entered(root) == root.resolve(), "an empty one is new"
    with pytest.raises(ConfigError, match="holds no run"):
        entered(root, resume=True)
    (root / "asked.json").write_text("{}")
    assert entered(root) and entered(root, resume=True), "nothing was answered yet"
    (root / "result").mkdir()
    (root / "result" / "x.json").write_text("{}")
    with pytest.raises(ConfigError, match="is there already"):
        entered(root)
    assert entered(root, resume=True) and not entered(None).exists()
