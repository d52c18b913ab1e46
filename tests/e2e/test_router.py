"""A router end to end: trained, stopped and gone on with, reported on, asked, and scored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nano
from e2e.shell import good, refused, snapshot, tinygpt
from tinygpt.core.events import Events
from tinygpt.runs.extract import Config, run

TOOLS = {"cat": "SHOW ME {}", "rm": "Delete {} For Good", "wc": "COUNT THE WORDS OF {}", None: "SING OF {}"}
SMALL = (
    "--set", "model.hidden_size=16", "--set", "model.num_hidden_layers=1", "--context", 48, "--batch", 8,
    "--grams", 2, "--vectors", 256, "--lr", 0.01, "--no-lock", "--no-compile",
)  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"query": said.format(f"file{i}"), "tool": tool} for tool, said in TOOLS.items() for i in range(20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"query": "odd"}\n', encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(pairs: Path) -> Path:
    nano.require("matplotlib")
    out = pairs.parent / "router"
    tools = pairs.parent / "tools.json"
    tools.write_text('[{"name": "rm", "description": "Delete a file."}]', encoding="utf-8")
    done = good("train-extractor", pairs, "--out", out, "--steps", 60, "--tools", tools, *SMALL)
    assert "1 of 81 rows left out" in done.err and "bm25-requests" in done.out
    return out


def test_the_report_has_every_figure_with_its_interval(trained: Path) -> None:
    report: Any = json.loads((trained / "final" / "report.json").read_text())
    assert report["accuracy"]["value"] > 0.9 > report["baselines"]["majority"]["accuracy"]["high"]
    for name in ("accuracy", "macro_f1", "ece"):
        one = report[name]
        assert one["low"] <= one["value"] <= one["high"], name
    assert report["baselines"]["majority"]["lead"]["clear"] is True
    assert set(report["abstain"]) == {"precision", "recall", "rows"} and report["calibration"]["requests"] > 4
    assert set(report["classes"]) == {"cat", "rm", "wc", "none"} and report["rows"] == 16
    assert list(report["readers"]) == ["encoder", "linear", "neighbours"]
    assert report["readers"]["linear"]["accuracy"]["value"] > 0.9 and report["readers"]["linear"]["trust"] > 0
    assert (trained / "final" / "calibration.png").stat().st_size > 1000
    assert (trained / "events.jsonl").read_text().count("held_out") >= 1
    good("validate", trained / "final")


def test_stopped_and_gone_on_with_it_is_the_same_router(trained: Path, pairs: Path, tmp_path: Path) -> None:
    line = ("train-extractor", pairs, "--out", tmp_path / "r", "--vocab-size", 300, *SMALL, "--steps", 6)
    good(*line, "--save-every", 3, "--save-history")
    whole = (tmp_path / "r" / "final" / "model.safetensors").read_bytes()
    for gone in ("final", "steps/000006"):
        for file in (tmp_path / "r" / gone).iterdir():
            file.unlink()
        (tmp_path / "r" / gone).rmdir()
    good(*line, "--save-every", 3, "--save-history", "--resume")
    assert (tmp_path / "r" / "final" / "model.safetensors").read_bytes() == whole
    refused(tinygpt(*line, "--save-every", 3, "--resume", "--balance", 1), "balance")


def test_requests_are_learned_as_they_are_asked(pairs: Path, tmp_path: Path) -> None:
    """In small letters, unless capitals are to count."""
    loud = tmp_path / "loud.jsonl"
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    loud.write_text("".join(json.dumps(row | {"query": row["query"].upper()}) + "\n" for row in rows))
    weights: dict[str, bytes] = {}
    for name, data, more in (("a", pairs, ()), ("b", loud, ()), ("c", loud, ("--no-lower",))):
        good("train-extractor", data, "--out", tmp_path / name, "--steps", 2, *more, *SMALL)
        weights[name] = (tmp_path / name / "final" / "model.safetensors").read_bytes()
    assert weights["a"] == weights["b"] != weights["c"]


def test_it_is_asked_one_by_one_by_lines_and_by_rows(trained: Path, pairs: Path, tmp_path: Path) -> None:
    [one] = [json.loads(good("extract", trained, "--query", "delete file77 for good", "--json").out)]
    assert one["predictions"][0]["tool"] == "rm" and len(one["predictions"]) == 3 and one["latency_ms"] > 0
    probabilities = [p["prob"] for p in one["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True) and one["predictions"][0]["class_idx"] == 1
    lines = good("extract", trained, "--stdin", "--top-k", 1, "--json", stdin="show me x\n\nsing of y\n").out
    found = [json.loads(line)["predictions"][0]["tool"] for line in lines.splitlines()]
    assert found == ["cat", "none"]
    none = good("extract", trained, "--query", "q", "--threshold", 1).out
    assert "none is probable enough" in none
    out = tmp_path / "methods.jsonl"
    line = ("extract", trained, "--data", pairs, "--batch", 7, "--predictions", out, "--method", "head")
    done = good(*line)
    assert "1 row" not in done.out and len(out.read_text().splitlines()) == 80
    rows = {row["metric"]: row for row in good("eval-router", "--predictions", out, "--json").json}
    assert rows["accuracy"]["score"] > 0.9 and rows["accuracy"]["n_examples"] == 80
    refused(tinygpt(*line), "exists")


def test_lines_are_answered_as_they_come(trained: Path) -> None:
    taken: list[int] = []

    def lines() -> Iterator[str]:
        for i in range(4):
            taken.append(i)
            yield f"show me {i}\n"

    found = run(Config(router=trained, stdin=True, batch=2), lines(), Events())
    assert next(found)["query"] == "show me 0" and taken == [0, 1], "no later line is waited for"
    assert [one["query"] for one in found] == ["show me 1", "show me 2", "show me 3"]


def test_a_dry_run_counts_and_writes_nothing(pairs: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    extra = tmp_path.parent / f"{tmp_path.name}.jsonl"
    extra.write_text('{"query": "what is love"}\n{"query": "show me file1"}\n', encoding="utf-8")
    line = ("train-extractor", pairs, "--out-of-scope", extra, "--out", tmp_path / "r", "--dry-run", "--json")
    found = good(*line).json
    assert found["classes"] == 4 and sum(found["requests"].values()) == 80, "one more, one contradiction less"
    assert found["tools"]["none"]["learn"] >= 14 and snapshot(tmp_path) == before


def test_requests_of_the_report_are_not_learned(pairs: Path, tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text('{"query": "Show me file3", "tool": "cat"}\n', encoding="utf-8")
    done = good("train-extractor", pairs, "--test", test, "--out", tmp_path / "r", "--dry-run", "--json")
    assert done.json["requests"]["test"] == 1 and sum(done.json["requests"].values()) == 80
    assert "among those that the report is made on" in done.err


def test_refusals(trained: Path, pairs: Path, tmp_path: Path) -> None:
    refused(tinygpt("extract", trained, "--query", "a", "--stdin"), "one of --query, --stdin and --data")
    refused(tinygpt("extract", trained), "one of --query")
    refused(tinygpt("extract", pairs.parent, "--query", "a"), "")
    refused(tinygpt("extract", trained, "--stdin"), "there is no request")
    refused(tinygpt("extract", trained, "--query", "a", "--threshold", 2), "--threshold")
    refused(tinygpt("train-extractor", tmp_path / "no.jsonl", "--dry-run"), "no.jsonl")
    odd = ("train-extractor", pairs, "--set", "model.vocab_size=9", "--out", tmp_path / "r")
    assert "model.vocab_size of a router follows" in tinygpt(*odd).err
    refused(tinygpt("train-extractor", pairs, "--out", trained), "exists")
