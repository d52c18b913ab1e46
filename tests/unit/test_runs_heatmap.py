"""Traces of requests become figures, a line of letters and a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinygpt.cli._render import Output
from tinygpt.cli.look.infer_heatmap import call
from tinygpt.core.errors import DataError
from tinygpt.runs._heatmap_page import bar, page
from tinygpt.runs.heatmap import Config, run


def trace(name: str, times: list[float], **more: Any) -> dict[str, Any]:
    tokens = [
        {"answer": 0, "index": i, "model_ms": ms, "constraint_ms": 1.0, "decode_ms": 0.0}
        for i, ms in enumerate(times)
    ]
    return {
        "request_id": name, "route": "/v1/<chat>", "model": "m", "total_ms": 100.0, "prompt_tokens": 7,
        "generated_tokens": len(times), "cache": {"enabled": True, "hit": name == "a", "prefix_tokens": 3},
        "spans": [{"name": "prefill", "answer": 0, "start_ms": 1.0, "ms": 40.0}], "tokens": tokens, **more,
    }  # fmt: skip


def test_figures_are_those_of_the_tokens(tmp_path: Path) -> None:
    for one in (trace("a", [39.0, 9.0, 1.0]), trace("b", [19.0, 3.0])):
        (tmp_path / f"{one['request_id']}.json").write_text(json.dumps(one))
    found = run(Config(traces=(str(tmp_path), str(tmp_path / "a.json")), html=tmp_path / "page.html"))
    figures = found["summary"]
    assert (figures["requests"], figures["prompt_tokens"], figures["generated_tokens"]) == (2, 14, 5)
    assert (figures["cache_hits"], figures["span_ms"]) == (1, {"prefill": 80.0})
    # The prompt was read from 1 to 41 ms after the request had come.
    assert figures["first_token_ms"] == dict.fromkeys(("p50", "p90", "p99", "p100"), 41.0)
    assert figures["first_token_work_ms"] == {"p50": 20.0, "p90": 40.0, "p99": 40.0, "p100": 40.0}
    assert figures["token_ms"] == {"p50": 4.0, "p90": 10.0, "p99": 10.0, "p100": 10.0}
    assert figures["share"] == {"model": 71 / 76, "constraint": 5 / 76, "decode": 0.0}
    assert bar(found["requests"][0], 0) == "@:"
    said = (tmp_path / "page.html").read_text()
    assert said == page(found["requests"], figures) and said.count("<b title") == 5
    assert "/v1/&lt;chat&gt;" in said and "<chat>" not in said and "http" not in said
    few = run(Config(traces=(str(tmp_path / "*.json"),), summary=True))
    assert few["requests"] == [] and few["summary"] == figures


def test_lines_fit_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = [{"name": "decode", "answer": i, "start_ms": 1.0, "ms": 40.0} for i in range(90)]
    (tmp_path / "a.json").write_text(json.dumps(trace("a", [1.0, *[5.0] * 500], spans=spans)))
    for columns in ("", "60"):
        monkeypatch.setenv("COLUMNS", columns)
        call(Config(traces=(str(tmp_path),)), Output())
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= int(columns or 110)
        assert sum(line.count("@") for line in lines) == 500


def test_files_of_the_original_are_read(tmp_path: Path) -> None:
    tokens = [{"index": i, "model_ms": 2.0, "constraint_ms": 0, "decode_ms": 1.0} for i in range(3)]
    (tmp_path / "old.json").write_text(json.dumps(trace("old", [], tokens=tokens)))
    found = run(Config(traces=(str(tmp_path),)))
    assert bar(found["requests"][0], 0) == "@@" and found["summary"]["token_ms"]["p50"] == 3.0


def test_what_is_no_trace_is_said(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text("{}")
    for text, said in ((str(tmp_path), "is no trace"), (str(tmp_path / "none*.json"), "no trace at")):
        with pytest.raises(DataError, match=said):
            run(Config(traces=(text,)))
