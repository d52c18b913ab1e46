"""Commands of generated rows write over nothing that is not tinygpt's, and what cannot be is said first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.runs import corrections, escalate_data, gold_clone, reject
from tinygpt.runs._distill import Config

JUDGED = {"prompt": "2 + 2?", "response": "4", "local_correct": True}
MODEL = Path("model")


def escalate(out: Path) -> None:
    source = out.with_name("judged.jsonl")
    source.write_text(json.dumps(JUDGED) + "\n")
    escalate_data.build(source, out, Events())


def correct(out: Path) -> None:
    corrections.record(corrections.Record(intent="a", original="b", corrected="c", dir=out.parent))
    corrections.convert(corrections.Convert(out=out, dir=out.parent), Events())


def clone(out: Path) -> None:
    gold_clone.run(gold_clone.Config(out=out, n=2), Events())


def asked(out: Path) -> None:
    reject.Config(model=MODEL, world="file_ops", out=out)


@pytest.mark.parametrize("write", [escalate, correct, clone, asked])
def test_a_file_of_another_is_not_written_over(write: Callable[[Path], None], tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text("mine\n")
    with pytest.raises(ConfigError, match="no card of tinygpt's beside it"):
        write(out)
    assert out.read_text() == "mine\n"
    out.unlink()
    for _ in range(2):  # its own it may
        write(out)


def test_what_is_read_is_not_written_over(tmp_path: Path) -> None:
    escalate(tmp_path / "rows.jsonl")
    with pytest.raises(ConfigError, match="one of the files that are read"):
        reject.Config(
            model=MODEL, data=(tmp_path / "rows.jsonl",), command="true", out=tmp_path / "rows.jsonl"
        )


def test_a_hint_and_a_cache_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="--hint looks into the teacher"):
        Config(out=Path("out"), hint=Pick("hidden"), teacher_url="http://127.0.0.1:1/v1")


def test_the_temperature_of_on_policy_answers_is_named() -> None:
    with pytest.raises(ConfigError, match="on-policy answers have no temperature below 0"):
        Config(out=Path("out"), on_policy=0.5, on_policy_temperature=-1.0)
