"""Held-out loss: windows count every token once, bytes are those of the text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted import ScriptedEndpoint
from tinygpt.core.errors import ConfigError, DataError, UnsupportedError
from tinygpt.data import corpus
from tinygpt.eval.suites import heldout_loss
from tinygpt.eval.suites._result import Examples
from tinygpt.eval.suites.heldout_loss import Config, load, score, windows


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 90), st.integers(1, 20), st.data())
def test_windows_score_every_target_once_with_context(n: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context))
    scored: list[int] = []
    for start, first in windows(n, context, stride):
        end = min(start + context, n)
        assert first < end, "a window without a target"
        scored += range(first, end)
        # Target t reads ids start..t; only a document's first token may have nothing but the start token.
        assert start == 0 or first - start >= context - stride
    assert scored == list(range(n))


def _one(text: str, **options: object) -> tuple[ScriptedEndpoint, dict[str, float]]:
    endpoint = ScriptedEndpoint(lambda prompt: "", logprob=-0.5, context=8)
    result = score(endpoint, Examples.of([{"id": "x", "text": text}]), Config(**options))  # type: ignore[arg-type]
    return endpoint, {row.metric: row.score for row in result.rows}


def test_numbers_of_a_text_worked_out_by_hand() -> None:
    endpoint, scores = _one("abcdefghijé", stride=4)  # 12 bytes are 12 tokens: windows at 0 and 4
    eos = endpoint.tokenizer.eos_id
    assert [row[0] for row in endpoint.scored] == [eos, ord("d")]
    assert [len(row) for row in endpoint.scored] == [9, 9]
    assert scores["loss"] == pytest.approx(0.5) and scores["perplexity"] == pytest.approx(math.exp(0.5))
    assert scores["bits_per_byte"] == pytest.approx(12 * 0.5 / math.log(2) / 12)


def test_counts_and_conditions_are_in_the_row() -> None:
    endpoint = ScriptedEndpoint(lambda prompt: "", logprob=-1.0, context=8)
    examples = Examples.of([{"id": "a", "text": "ab"}, {"id": "b", "text": ""}, {"id": "c", "text": "é"}])
    result = score(endpoint, examples, Config())
    found = result.rows[0].settings
    assert (found["n_bytes"], found["n_tokens"], found["n_documents"]) == (4, 4, 3)
    assert (found["context"], found["stride"]) == (8, 4)
    assert [e["scores"]["bits_per_byte"] for e in result.examples] == pytest.approx(
        [1 / math.log(2), 0, 1 / math.log(2)]
    )


def test_what_does_not_fit_is_refused() -> None:
    for bad in ({"context": 9}, {"stride": 9}, {"context": 4, "stride": 5}):
        with pytest.raises(ConfigError, match="does not fit"):
            _one("abc", **bad)
    for name in ("context", "stride", "limit_bytes"):
        with pytest.raises(ConfigError, match=f"'{name}' must not be negative"):
            Config(**{name: -1})
    with pytest.raises(ConfigError, match="no text to read") as refusal:
        load(Config())
    assert "--corpus" in refusal.value.hint
    with pytest.raises(DataError, match="empty"):
        _one("")
    endpoint = ScriptedEndpoint(lambda prompt: "")
    endpoint.tokenizer = None  # type: ignore[assignment]
    with pytest.raises(UnsupportedError, match="does not show its tokens"):
        score(endpoint, Examples.of([{"id": "x", "text": "a"}]), Config())


def test_documents_are_read_and_bad_ones_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"no": 1}\n{"text": "two"}\n')
    found = load(Config(paths=(tmp_path / "rows.jsonl",)))
    assert [item["text"] for item in found.items] == ["one", "two"] and "1 rows were left out" in found.notes[
        0
    ]
    assert len(load(Config(paths=(tmp_path / "rows.jsonl",), limit_bytes=2)).items) == 1
    (tmp_path / "latin.txt").write_bytes(b"ok\ncaf\xe9")
    with pytest.raises(DataError, match="byte 6, on line 2"):
        load(Config(paths=(tmp_path / "latin.txt",)))


def test_documents_are_those_of_training(tmp_path: Path) -> None:
    """A byte order mark is no text; a bad file in a folder is left out with a note, one named by hand is
    refused."""
    (tmp_path / "a.txt").write_bytes("\ufeffone\n".encode())
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="b.txt is not UTF-8"):
        load(Config(paths=(tmp_path / "a.txt", tmp_path / "b.txt")))
    found = load(Config(paths=(tmp_path,)))
    assert [item["text"] for item in found.items] == ["one\n"]
    assert found.notes[0].startswith("1 of 2 files and 0 rows were left out: ") and "b.txt" in found.notes[0]
    facts = {"bad_files": 0, "bad_rows": 0, "first_bad": []}
    wanted = [t for file in (tmp_path / "a.txt", tmp_path / "b.txt") for t in corpus.documents(file, facts)]
    assert [item["text"] for item in found.items] == wanted


def test_windows_are_asked_in_small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heldout_loss, "AT_ONCE", 2)
    assert _one("x" * 50)[1]["loss"] == pytest.approx(0.5)


def test_the_interval_is_that_of_the_documents(tmp_path: Path) -> None:
    """Weighed by their tokens: a mean of the records is the row, and it lies in its interval."""
    for i in range(9):
        (tmp_path / f"{i}.txt").write_text("ab" * (i + 1))
    config = heldout_loss.Config(paths=(tmp_path,))

    class Uneven(ScriptedEndpoint):
        def token_logprobs(self, rows: Any) -> list[list[float]]:
            return [[-1.0 / len(row)] * (len(row) - 1) for row in rows]

    result = heldout_loss.score(Uneven(lambda _: "", context=32), heldout_loss.load(config), config)
    rows = {row.metric: row for row in result.rows}
    for metric in ("loss", "bits_per_byte"):
        pairs = [(e["scores"][metric], e["weights"][metric]) for e in result.examples]
        mean = sum(v * w for v, w in pairs) / sum(w for _, w in pairs)
        low, high = rows[metric].interval or (0, 0)
        assert rows[metric].score == pytest.approx(mean) and low < mean < high < 1
    low, high = rows["loss"].interval or (0, 0)
    assert rows["perplexity"].interval == pytest.approx((math.exp(low), math.exp(high)))
