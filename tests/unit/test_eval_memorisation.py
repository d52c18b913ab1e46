"""The probe of memorisation: models that know the text, that know another, and none."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from row_suites import figures
from scripted import ScriptedEndpoint
from tinygpt.core.errors import ConfigError, RemoteError, UnsupportedError
from tinygpt.core.rows import wilson
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.eval.compare import lower_is_better, unbounded
from tinygpt.eval.endpoint import Prompt, Reply
from tinygpt.eval.suites import memorisation
from tinygpt.eval.suites.memorisation import Config


def words(kind: str) -> str:
    """Text of which no 16 bytes stand twice."""
    return " ".join(f"é{hashlib.sha256(f'{kind}{i}'.encode()).hexdigest()[:7]}" for i in range(300))


TEXTS = {"trained": words("trained"), "control": words("control")}


def config(folder: Path, texts: dict[str, str] = TEXTS, **settings: Any) -> Config:
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    paths = {"paths": (folder / "trained.txt",), "control": (folder / "control.txt",)}
    return Config(**{**paths, "n": 12, "prefix": 16, "go_on": 12, **settings})


def spelled(ids: Prompt) -> str:
    """The bytes of a prompt, without its start token."""
    assert isinstance(ids, tuple) and all(type(i) is int for i in ids)
    return bytes(i for i in ids if i < 256).decode()


def knows(*texts: str) -> Any:
    """A model that goes on with the texts it knows, and writes question marks otherwise."""

    def answer(ids: Prompt) -> Reply:
        prompt = spelled(ids)
        text = next((text for text in texts if prompt in text), "")
        said = text[text.find(prompt) + len(prompt) :][:30] if text else "?" * 30
        return Reply(
            message={"role": "assistant", "content": said}, text=said, finish_reason="length", n_tokens=30
        )

    return ScriptedEndpoint(answer)


def run(endpoint: Any, config: Config) -> Any:
    return memorisation.score(endpoint, memorisation.load(config), config)


def test_text_that_is_known_scores_one_and_other_text_zero(tmp_path: Path) -> None:
    asked = config(tmp_path)
    all_, none = run(knows(*TEXTS.values()), asked), run(knows(), asked)
    for found, score in ((all_, 1.0), (none, 0.0)):
        assert figures(found) == {
            ("trained", "verbatim"): score, ("trained", "verbatim_share"): score,
            ("control", "verbatim"): score, ("control", "verbatim_share"): score,
            (None, "verbatim_excess"): 0.0,
        }  # fmt: skip
        assert {row.n_examples for row in found.rows} == {12, 24}
        assert found.rows[0].interval == pytest.approx(wilson(12 * score, 12))
        assert not any(row.n_truncated or row.n_failed for row in found.rows), "no more was asked for"
    learned = run(knows(TEXTS["trained"]), asked)
    assert figures(learned)[(None, "verbatim_excess")] == 1.0
    low, high = learned.rows[-1].interval
    assert 0.6 < low < 1 and high == 1.0
    assert [one["correct"] for one in learned.examples] == [True] * 12 + [False] * 12
    for row in learned.rows:
        mine = [e for e in learned.examples if row.subtask in e["subtasks"] and row.metric in e["scores"]]
        assert len(mine) == (row.n_examples if row.subtask else 0)


def test_windows_are_whole_text_of_the_asked_length(tmp_path: Path) -> None:
    found = run(knows(), config(tmp_path, n=40))
    assert len({one["id"] for one in found.examples}) == len(found.examples) > 60
    for one in found.examples:
        assert one["prompt"] + one["expected"] in TEXTS[one["of"]]
        assert 16 <= len(one["prompt"].encode()) <= 20 and 12 <= len(one["expected"].encode()) <= 16
    again = run(knows(), config(tmp_path, n=40))
    other = run(knows(), config(tmp_path, n=40, seed=1))
    assert [e["id"] for e in again.examples] == [e["id"] for e in found.examples]
    assert [e["id"] for e in other.examples] != [e["id"] for e in found.examples]


def test_a_document_begins_with_the_start_token(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": TEXTS["trained"][at : at + 60]}) + "\n" for at in range(0, 600, 60))
    (tmp_path / "rows.jsonl").write_text(rows)
    seen: list[Any] = []
    asked = config(tmp_path, paths=(tmp_path / "rows.jsonl",), control=(), n=30)
    run(ScriptedEndpoint(lambda ids: seen.append(ids) or "?"), asked)  # type: ignore[func-returns-value]
    begun = [ids[0] == ByteTokenizer().eos_id for ids in seen]
    starts = {row["text"][:6] for row in map(json.loads, rows.splitlines())}
    assert begun == [spelled(ids)[:6] in starts for ids in seen] and 0 < sum(begun) < len(begun)


def test_half_an_answer_is_half(tmp_path: Path) -> None:
    def half(prompt: Prompt) -> str:
        at = TEXTS["trained"].find(spelled(prompt)) + len(spelled(prompt))
        return "  " + TEXTS["trained"][at : at + 6].lstrip() + "#" * 20

    found = run(ScriptedEndpoint(half), config(tmp_path, control=()))
    assert figures(found)[("trained", "verbatim")] == 0.0
    assert 0.3 < figures(found)[("trained", "verbatim_share")] < 0.6
    assert len(found.rows) == 2 and "without a control text" in found.rows[0].settings["notes"][-1]


def test_a_control_that_was_trained_on_is_none(tmp_path: Path) -> None:
    texts = {**TEXTS, "control": TEXTS["trained"][:600] + " " + TEXTS["control"]}
    found = run(knows(TEXTS["trained"]), config(tmp_path, texts, n=30))
    assert found.rows[0].settings["control"]["trained_on"] > 3
    assert figures(found)[("control", "verbatim")] == 0.0
    with pytest.raises(memorisation.DataError, match=r"the control text has no window .* trained on"):
        run(knows(), config(tmp_path, {**TEXTS, "control": TEXTS["trained"]}))


def test_an_answer_that_did_not_come_is_in_no_figure(tmp_path: Path) -> None:
    asked, right = config(tmp_path), knows(TEXTS["trained"])
    odd = memorisation.score(right, memorisation.load(asked), asked).examples[3]["prompt"]

    def answer(prompt: Prompt) -> Reply:
        return Reply.failed("gone") if spelled(prompt) == odd else right.complete([prompt], max_tokens=9)[0]

    found = run(ScriptedEndpoint(answer), asked)
    rows = {(row.subtask, row.metric): row for row in found.rows}
    assert rows["trained", "verbatim"].score == 1.0
    assert [(row.n_examples, row.n_failed) for row in found.rows] == [(11, 1)] * 2 + [(12, 0)] * 2 + [(23, 1)]
    with pytest.raises(RemoteError, match="no answer of scripted came: gone"):
        run(ScriptedEndpoint(lambda _: Reply.failed("gone")), asked)


def test_the_interval_of_the_difference_is_newcombes() -> None:
    """His example: 56 of 70 and 48 of 80."""
    found = [{"of": "trained", "correct": i < 56} for i in range(70)]
    found += [{"of": "control", "correct": i < 48} for i in range(80)]
    difference, interval = memorisation._excess(found)
    assert difference == pytest.approx(0.2) and interval == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_less_is_better_and_it_is_a_share() -> None:
    for metric in ("verbatim", "verbatim_share", "verbatim_excess"):
        assert lower_is_better(metric) and not unbounded(metric)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no training text"):
        memorisation.load(Config())
    with pytest.raises(ConfigError, match="'go_on' must be at least 1"):
        Config(go_on=0)
    with pytest.raises(ConfigError, match="do not fit the context 64"):
        run(knows(), config(tmp_path, prefix=50))
    with pytest.raises(memorisation.DataError, match=r"no window .*12 places with fewer than 28 tokens"):
        run(knows(), config(tmp_path, {**TEXTS, "trained": "too short"}))
    blind = knows()
    blind.tokenizer = None
    with pytest.raises(UnsupportedError, match="does not show its tokens"):
        run(blind, config(tmp_path))
