"""The picture of a benchmark, drawn by matplotlib."""

from __future__ import annotations

from pathlib import Path

import pytest

from nano import require
from tinygpt.runs._bench_plot import draw

pytestmark = pytest.mark.parity
require("matplotlib")


def test_a_benchmark_is_drawn(tmp_path: Path) -> None:
    settings = [
        {"batch_size": n, "prompt_tokens": length, "tok_s": 10.0 * n, "ttft_ms_p50": 3.0, "ttft_ms_p99": 4.0,
         "itl_ms_p50": 1.0, "itl_ms_p99": 1.5}
        for n in (1, 8) for length in (16, 64)
    ]  # fmt: skip
    draw(tmp_path / "new" / "load.png", settings, by="batch_size", title="a model")
    assert (tmp_path / "new" / "load.png").read_bytes().startswith(b"\x89PNG")
    draw(tmp_path / "load.svg", settings, by="batch_size", title="a model")
    assert (tmp_path / "load.svg").read_text().count("<path") > 50
