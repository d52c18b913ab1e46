"""`distill --cache-teacher`: filled by a model or by a server, read without either."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

import serving
from e2e.shell import good, refused, tinygpt
from tinygpt.data import rows
from tinygpt.distill.store import Key, Store

STEPS = ("--steps", 2, "--batch", 4, "--seed", 1, "--no-compile", "--no-lock", "--full", "--context", 64)


def store(facts: dict[str, object]) -> Store:
    """The store that a command made."""
    path = Path(str(facts["path"]))
    told = json.loads((path / "key.json").read_text())
    del told["version"]
    return Store(path.parent, Key(**told))


def test_a_server_fills_the_cache_as_the_model_itself_does(tmp_path: Path) -> None:
    """Ours, which names tokens by their ids; then nobody is asked any more."""
    model = serving.tiny_chat_model(tmp_path, context=128)
    rows.write(
        tmp_path / "a.jsonl",
        [{"prompt": f"a {i}", "completion": "so it is " * (i % 3 + 1)} for i in range(12)],
    )
    data = ("--data", tmp_path / "a.jsonl", "--held-out", 0.2, *STEPS)
    kept = ("--cache-teacher", tmp_path / "kept", "--top-k", 24)
    line = ("distill", model, *data, *kept)
    local = good(*line, "--teacher", model, "--out", tmp_path / "a", "--cache-only", "--json")
    one = json.loads(local.out)
    assert 0 < one["kl_events"] < 1e-3 and one["bytes_per_place"] < 100
    with serving.serve(model, tmp_path, "--no-lock") as live:
        url = ("--teacher-url", live.url, "--out", tmp_path / "b")
        refused(tinygpt(*line, *url), "logprobs")  # 20 are told, where nobody says more
    with serving.serve(model, tmp_path, "--no-lock", "--max-logprobs", 24) as live:
        url = ("--teacher-url", live.url, "--out", tmp_path / "b")
        two = json.loads(good(*line, *url, "--cache-only", "--json").out)
        done = good(*line, *url)
        assert "the teacher's cache" in done.err and (tmp_path / "b" / "final").is_dir()
    assert two["rows"] == one["rows"] and two["places"] == one["places"] and "measured" not in two
    first, second = store(one), store(two)
    for row in first.at:
        a, b = first.read(row), second.read(row)
        assert b.known.all() and (a.ids == b.ids).mean() > 0.98
        np.testing.assert_allclose(a.log_p, b.log_p, atol=0.05)
    shutil.rmtree(tmp_path / "kept" / second.path.name)
    good(*line, "--out", tmp_path / "c")  # no teacher is named, and the one cache that fits has all
