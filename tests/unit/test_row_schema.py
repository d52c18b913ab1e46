"""The published schema takes what suites write, and refuses what `read_rows` refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import nano
from scripted import ScriptedEndpoint
from tinygpt.core.rows import EvalRow, read_rows
from tinygpt.eval.suites import sort_6

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/eval-row.schema.json").read_text(encoding="utf-8"))


def errors(schema: Any, value: Any) -> list[str]:
    jsonschema = nano.require("jsonschema")
    return [e.message for e in jsonschema.Draft202012Validator(schema).iter_errors(value)]


def test_rows_and_records_of_a_suite_fit() -> None:
    config = sort_6.Config()
    found = sort_6.score(ScriptedEndpoint(lambda prompt: "1"), sort_6.load(config), config)
    rows = [json.loads(json.dumps(dataclasses.asdict(row))) for row in found.rows]
    records = [json.loads(json.dumps({"run_id": "r", **record})) for record in found.examples]
    assert rows and records
    assert not [e for row in rows for e in errors(SCHEMA, row)]
    assert not [e for record in records for e in errors(SCHEMA["$defs"]["record"], record)]


@pytest.mark.parametrize(
    "change",
    [{"score": None}, {"score": "high"}, {"interval": [0.1]}, {"n_examples": 1.5}, {"decoding": 1}]
    + [{name: -1} for name in ("n_examples", "n_failed", "n_truncated", "wall_seconds")],
)
def test_what_readers_refuse_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    row = dataclasses.asdict(
        EvalRow(
            model_path="", model_name="m", task="t", metric="a", score=1.0, n_examples=1, wall_seconds=0.0,
            interval=(0.0, 1.0),
        )
    )  # fmt: skip
    path = tmp_path / "rows.jsonl"
    for value, good in ((row, True), ({**row, **change}, False)):
        path.write_text(json.dumps(value))
        assert bool(read_rows(path)[0]) == good
        assert (not errors(SCHEMA, json.loads(json.dumps(value)))) == good
