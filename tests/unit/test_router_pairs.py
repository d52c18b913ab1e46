"""The router's pairs, its calibration, what it is measured against, and its report."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.requests import NOTHING
from tinygpt.data.tally import Tally
from tinygpt.router import baseline, calibrate, pairs
from tinygpt.runs import _router_report
from tinygpt.runs._router_settings import Config

# --- pairs --------------------------------------------------------------------------------------------------


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_that_are_no_pairs_are_counted(tmp_path: Path) -> None:
    rows = [
        {"query": "a", "tool": "t"}, {"query": "b", "tool": None}, {"query": "c", "tool": ""},
        {"query": "", "tool": "t"}, {"tool": "t"}, {"query": "d"}, {"query": "e", "tool": 3}, [1],
        {"query": "f", "gold_tool": "u"}, {"query": "\ud800", "tool": "t"}, {"query": "g", "tool": "\udc00"},
    ]  # fmt: skip
    tally = Tally("rows")
    found = list(pairs.read([write(tmp_path / "a.jsonl", rows)], tally))
    assert found == [("a", "t"), ("b", NOTHING), ("c", NOTHING), ("f", "u")]
    assert tally.n_in == 11 and sum(tally.dropped.values()) == 7
    unserved = pairs.read([tmp_path / "a.jsonl"], Tally("out of scope"), unserved=True)
    assert {tool for _, tool in unserved} == {NOTHING}


def test_a_request_counts_once_and_a_contradiction_never() -> None:
    tally = Tally("requests")
    given = [("Do it", "a"), ("do  it ", "a"), ("Or that", "a"), ("or that", "b"), ("known", "a"), ("z", "b")]
    assert pairs.cleaned(given, tally, known=["known"]) == [("Do it", "a"), ("z", "b")]
    assert tally.dropped == {
        "a duplicate": 1, "the same request with several tools": 2,
        "among those that the report is made on": 1,
    }  # fmt: skip


def test_the_split_has_every_class_on_each_side_and_no_text_on_two() -> None:
    given = [(f"request {tool} {i}", tool) for tool, n in (("a", 100), ("b", 20), ("c", 2)) for i in range(n)]
    learn, watch, test = pairs.split(given, [0.1, 0.2], 0)
    assert sorted(learn + watch + test) == sorted(given)
    counts = Counter(tool for _, tool in test)
    assert counts["a"] in (20, 21) and counts["b"] in (4, 5) and {t for _, t in learn} == {"a", "b", "c"}
    assert pairs.split(given[::-1], [0.1, 0.2], 0) == [learn, watch, test], "whatever the order"
    assert pairs.split(given, [0.1, 0.2], 1)[2] != test


def test_weights_make_up_for_what_is_rare() -> None:
    numbers = [0] * 90 + [1] * 10
    assert pairs.weights(numbers, 2, 0.0).tolist() == [1, 1]
    even = pairs.weights(numbers, 2, 1.0)
    assert even[0] * 90 == pytest.approx(even[1] * 10) and even[0] * 90 + even[1] * 10 == pytest.approx(100)
    assert pairs.labels([("", NOTHING), ("", "b"), ("", "a")]) == ("a", "b", NOTHING)


# --- calibration and baselines ------------------------------------------------------------------------------


def drawn(n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits and classes drawn from them."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (n, 3))
    p = np.exp(calibrate.log_softmax(z))
    return z, np.array([rng.choice(3, p=one) for one in p])


def test_the_temperature_of_one_reader_is_found() -> None:
    z, y = drawn()
    found = calibrate.fitted([3 * z], y.tolist(), [1.0] * 3)
    assert found.trust == pytest.approx((1 / 3,), rel=0.1) and found.prior == () and found.requests == len(y)
    assert np.allclose(found.probabilities([3 * z]).sum(axis=1), 1)


def test_a_reader_that_knows_nothing_is_not_believed_and_two_that_know_parts_are() -> None:
    z, y = drawn()
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 2, z.shape)
    found = calibrate.fitted([z - noise, noise, rng.normal(0, 2, z.shape)], y.tolist(), [1.0] * 3)
    assert found.trust == pytest.approx((1, 1, 0), abs=0.1)


def test_some_requests_that_are_all_right_do_not_make_it_certain() -> None:
    found = calibrate.fitted([10 * np.eye(3)], [0, 1, 2], [1.0] * 3)
    assert 0.6 < found.probabilities([10 * np.eye(3)]).max() < 0.9


@pytest.mark.wide
def test_what_class_weights_shift_is_taken_back() -> None:
    z, y = drawn()
    weights = [4.0, 1.0, 0.25]
    shifted = z + np.log(weights)  # where the minimum of the weighted loss lies
    found = calibrate.fitted([shifted], y.tolist(), weights)
    assert np.allclose(found.prior, -np.log(weights), atol=0.1) and found.trust[0] == pytest.approx(
        1, rel=0.1
    )
    assert np.allclose(calibrate.fitted([z], y.tolist(), weights).prior, 0, atol=0.1)
    assert calibrate.fitted([z[:0]], [], weights) == calibrate.Calibration()


def test_odd_calibrations_are_refused() -> None:
    with pytest.raises(ConfigError, match="believed -1"):
        calibrate.Calibration(trust=(1.0, -1.0))
    for odd in (calibrate.Calibration(trust=(1.0,)), calibrate.Calibration(prior=(0.0,))):
        with pytest.raises(ConfigError, match="another number"):
            odd.check(readers=3, classes=2)


def test_the_baselines_by_hand() -> None:
    learned = [("show the picture", "cat"), ("show a text", "cat"), ("delete everything", "rm")]
    found = baseline.predictions(learned, ["delete a picture", "remove it", "zzz"], {"rm": "remove"})
    assert found["majority"] == ["cat"] * 3
    assert found["bm25-tools"] == ["cat", "rm", "cat"], "no shared word: the commonest"
    assert found["bm25-requests"][0] == "rm" and found["bm25-requests"][2] == "cat"
    assert "get Weather Now" in baseline.spoken("getWeather.now".replace("now", "Now"))


def test_a_bound_tells_when_no_tool_serves() -> None:
    learned = [(f"show file number {i}", "cat") for i in range(6)]
    learned += [(f"sing song number {chr(97 + i)}", NOTHING) for i in range(6)]
    found = baseline.predictions(learned, ["show file number 9", "play music"], {"cat": "show file"})
    assert found["bm25-tools"] == ["cat", NOTHING] and found["bm25-requests"] == ["cat", NOTHING]


def test_a_learned_request_is_not_found_by_itself() -> None:
    """By itself each would be right, and the bound below every score: then what shares a word had a tool."""
    learned = [("show alpha", "cat"), ("show beta", "cat"), ("show gamma", NOTHING), ("show delta", NOTHING)]
    learned += [("hum alpha", NOTHING), ("hum beta", NOTHING)]
    assert baseline.predictions(learned, ["show alpha now"], {})["bm25-requests"] == [NOTHING]


def test_the_report_by_hand() -> None:
    class Known:
        """A router with probabilities as its request says them."""

        labels = ("cat", "rm", NOTHING)
        calibration = calibrate.Calibration(trust=(1.0, 0.0, 0.0))

        def said(self, queries: Any) -> Any:
            z = np.log([json.loads(query) for query in queries])
            return [z, -z, 0 * z]

    test = [
        ("[0.8,0.1,0.1]", "cat"),
        ("[0.7,0.2,0.1]", "rm"),
        ("[0.1,0.1,0.8]", NOTHING),
        ("[0.1,0.1,0.8]", "other"),
    ]
    found = _router_report.report(
        cast(Any, Known()), test, [("x", "cat"), ("y", "cat"), ("z", "rm"), ("w", NOTHING)], {}
    )
    assert found["accuracy"]["value"] == 0.5 and found["rows"] == 4
    f1 = [2 / 3, 0, 2 / 3, 0]
    assert found["macro_f1"]["value"] == pytest.approx(sum(f1) / 4), "a tool that it does not know is wrong"
    assert found["abstain"]["precision"]["value"] == 0.5 and found["abstain"]["recall"]["value"] == 1
    assert found["ece"]["value"] == pytest.approx(0.5 * abs(0.5 - 0.8) + 0.25 * 0.2 + 0.25 * 0.7, abs=0.11)
    assert found["ece"]["low"] <= found["ece"]["value"] <= found["ece"]["high"]
    assert [one["accuracy"]["value"] for one in found["readers"].values()][:2] == [0.5, 0]
    assert found["baselines"]["majority"]["accuracy"]["value"] == 0.25
    lead = found["baselines"]["majority"]["lead"]
    assert lead["value"] == 0.25 and lead["low"] <= 0.25 <= lead["high"]
    taken = _router_report.report(
        cast(Any, Known()), [("[0.8,0.1,0.1]", "cat"), ("[0.1,0.8,0.1]", "cat")], [], {}, baselines=False
    )
    assert taken["macro_f1"]["value"] == pytest.approx(2 / 3), "no row is of the other class that was taken"


@pytest.mark.wide
def test_too_little_is_told(tmp_path: Path) -> None:
    from tinygpt.runs.train_extractor import plan

    sink = MemorySink()
    one = write(tmp_path / "one.jsonl", [{"query": str(i), "tool": "a"} for i in range(9)])
    with pytest.raises(DataError, match="two or more"):
        plan(Config(data=(one,)), Events(sink))
    few = write(tmp_path / "few.jsonl", [{"query": f"{t} {i}", "tool": t} for t in "ab" for i in range(2)])
    with pytest.raises(DataError, match="holds no request"):
        plan(Config(data=(few,), val_split=0.01, held_out=0.01), Events(sink))
