"""The search for a mixture: the surrogate's formulas, exact shares, a planted best mixture, reports."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, MemorySink, Progress
from tinygpt.runs._search import Plan, Report, Search
from tinygpt.runs._surrogate import Surrogate, drawn, expected_improvement, kernel, tidy
from tinygpt.runs.automix import Config, run


def scores(mixtures: Any) -> Any:
    """A smooth function whose best mixture is (0.7, 0.2, 0.1)."""
    return 1 - ((np.sqrt(mixtures) - np.sqrt([0.7, 0.2, 0.1])) ** 2).sum(axis=-1)


def test_the_surrogate_is_the_gaussian_posterior() -> None:
    """The joint normal of known and unknown scores, conditioned by way of its precision matrix."""
    known, unknown = drawn(5, 3, 1), drawn(4, 3, 2)
    found = Surrogate(known, scores(known))
    every = np.concatenate([known, unknown])
    joint = found.scale * (kernel(every, every, found.length) + found.noise * np.diag([1] * 5 + [0] * 4))
    precision = np.linalg.inv(joint + 1e-13 * np.eye(9))[5:, 5:]  # of the unknown, given the known
    cross = np.linalg.inv(joint + 1e-13 * np.eye(9))[5:, :5]
    mean = scores(known).mean() - np.linalg.solve(precision, cross @ (scores(known) - scores(known).mean()))
    means, deviations = found.predict(unknown)
    assert means == pytest.approx(mean, rel=1e-3)
    assert deviations == pytest.approx(np.sqrt(np.diag(np.linalg.inv(precision))), rel=0.05, abs=1e-5)
    at_known, unsure = found.predict(known)
    assert at_known == pytest.approx(scores(known), abs=0.02) and (unsure < deviations.max()).all()


def test_length_and_noise_are_the_likeliest() -> None:
    known = drawn(6, 3, 5)
    y = scores(known) - scores(known).mean()
    found = Surrogate(known, scores(known))

    def likelihood(length: float, noise: float, scale: float) -> float:
        covariance = scale * (kernel(known, known, length) + noise * np.eye(6))
        return float(-0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(covariance)[1]))

    best = likelihood(found.length, found.noise, found.scale)
    for length, noise, scale in ((0.2, 0.1, 1), (1.5, 1e-4, 1), (0.7, 1e-3, 1.3), (0.45, 1e-2, 0.7)):
        assert likelihood(length, noise, scale * found.scale) <= best + 1e-9


def test_expected_improvement_is_the_mean_of_what_is_gained() -> None:
    x = np.linspace(-12, 12, 200001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    for mean, deviation, best in ((0.0, 1.0, 0.0), (-1.0, 0.5, 0.2), (2.0, 0.3, 1.0)):
        numeric = np.sum(np.maximum(0, mean + deviation * x - best) * density) * (x[1] - x[0])
        assert expected_improvement(mean, deviation, best) == pytest.approx(numeric, abs=1e-6)
    assert expected_improvement(1.0, 0.0, 0.25) == 0.75 and expected_improvement(0.0, 0.0, 1.0) == 0.0


def test_mixtures_are_whole_thousandths() -> None:
    for mixture in drawn(50, 4, 3):
        found = tidy(mixture)
        assert math.fsum(found) == pytest.approx(1, abs=1e-12) and min(found) >= 0
        assert np.abs(np.array(found) - mixture).max() <= 1e-3
    assert tidy(np.full(3, 1 / 3)) == (0.334, 0.333, 0.333)


def search(
    tmp_path: Path, events: Events | None = None, *, noise: float = 0.0, **more: Any
) -> tuple[Search, list]:
    asked: list[tuple[tuple[float, ...], int]] = []
    stop_after = more.pop("stop_after", 99)

    def measure(shares: tuple[float, ...], seed: int, task: str) -> dict[str, Any] | None:
        if len(asked) == stop_after:
            return None
        asked.append((shares, seed))
        shaken = noise * np.random.default_rng([seed, *(int(1000 * s) for s in shares)]).normal()
        return {"bits_per_byte": 3 - float(scores(np.array(shares))) + shaken, "seconds": 60.0}

    plan = Plan(**{"proxy_runs": 5, "max_iters": 8, "seed": 1, **more})
    report = Report(tmp_path / "automix-report.jsonl", "key")
    return Search(plan, ["a", "b", "c"], report, measure, events or Events()), asked


def test_finds_a_planted_mixture(tmp_path: Path, memory: MemorySink) -> None:
    one, asked = search(tmp_path, Events(memory))
    assert one.run() == "done" and len(asked) == 15
    found = one.recommendation()
    best = np.array(list(found["ratio"].values()))
    assert np.abs(best - [0.7, 0.2, 0.1]).max() < 0.12 and found["best_score"] > -2.02
    assert found["best_score"] > max(row["score"] for row in one.rows if row["source"] == "sample")
    assert found["gain"] > 0.05 and found["noise"] == pytest.approx(0, abs=1e-12) and found["clear"]
    assert [r["source"] for r in one.rows] == ["sample"] * 5 + ["propose"] * 8 + ["check"] * 2
    assert one.rows[0]["ratio"] == {"a": 0.334, "b": 0.333, "c": 0.333}, "the even one is the first"
    assert all("predicted" in r for r in one.rows if r["source"] == "propose")
    assert [e.done for e in memory.of(Progress)] == list(range(1, 16))


def test_a_gain_within_the_noise_is_said_to_be(tmp_path: Path) -> None:
    one, _ = search(tmp_path, noise=1.0, max_iters=1, seed=3)
    one.run()
    found = one.recommendation()
    assert found["noise"] > 0.1 and len(found["gains"]) == 2
    assert found["gain"] == pytest.approx(np.mean(found["gains"]))
    assert found["noise"] == pytest.approx(np.std(found["gains"], ddof=1) / math.sqrt(2))
    assert found["clear"] == (found["gain"] > 2 * found["noise"] and found["gains"][1] > 0)


def test_a_rounding_error_is_no_gain(tmp_path: Path) -> None:
    """Corpora that are all alike: what differs is the order of sums."""
    plan = Plan(proxy_runs=3, max_iters=0, seed=1)

    def measure(shares: tuple[float, ...], seed: int, task: str) -> dict[str, Any]:
        return {"bits_per_byte": 3 - 4e-9 * shares[0], "seconds": 1.0}

    one = Search(plan, ["a", "b"], Report(tmp_path / "automix-report.jsonl", "key"), measure, Events())
    one.run()
    found = one.recommendation()
    assert found["noise"] == 0 and 0 < found["gain"] < 1e-8 and not found["clear"]


def test_a_search_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    straight, asked = search(tmp_path / "straight", max_iters=3)
    straight.run()
    first, before = search(tmp_path / "stopped", max_iters=3, stop_after=7)
    assert first.run() == "interrupted" and len(before) == 7
    second, after = search(tmp_path / "stopped", max_iters=3)
    assert second.run() == "done" and before + after == asked
    assert second.rows == straight.rows and second.recommendation() == straight.recommendation()
    third, more = search(tmp_path / "stopped", max_iters=4)
    third.run()
    assert len(more) <= 3, "a longer search trains what is new"


def test_a_search_stops_early(tmp_path: Path) -> None:
    one, asked = search(tmp_path / "threshold", ei_threshold=10.0)
    assert one.run() == "converged" and len(asked) == 7, "five drawn and two to check"
    two, asked = search(tmp_path / "time", max_minutes=0.5)
    assert two.run() == "time" and len(asked) == 1, "the next would end too late"
    assert two.recommendation()["gain"] == 0 and two.recommendation()["noise"] is None
    none, _ = search(tmp_path / "none", stop_after=0)
    assert none.run() == "interrupted" and none.recommendation() == {"runs": 0}


def test_a_report_of_something_else_is_left_alone(tmp_path: Path) -> None:
    one, _ = search(tmp_path, max_iters=0)
    one.run()
    path = tmp_path / "automix-report.jsonl"
    with pytest.raises(ConfigError, match="other settings or other data"):
        Report(path, "another key")
    assert Report(path, "another key", force=True).rows == [] and len(Report(path, "key").rows) == 7
    mine = tmp_path / "automix-recommendation.json"
    mine.write_text('{"my": "notes"}')
    for force in (False, True):
        with pytest.raises(DataError, match="is no recommendation of automix"):
            Report(path, "key", force=force)
    mine.unlink()
    Report(path, "key").recommend({"runs": 7, "ratio": {"a": 1.0}, "proxy_steps": 5})
    assert len(Report(path, "key").rows) == 7, "its own is written again"
    for content in ("my notes", '{"a": 1}\n', "[1]\n", "[" * 100_000 + "]" * 100_000):
        path.write_text(content, encoding="utf-8")
        for force in (False, True):
            with pytest.raises(DataError, match="is no automix report"):
                Report(path, "key", force=force)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": ["a=x"]}, "nothing to mix"),
        ({"corpus": ["a=x", "a=y"]}, "two corpora are called a"),
        ({"corpus": ["a=x", "y"]}, "--corpus y is not name=path"),
        ({"target": []}, "judged on a target"),
        ({"proxy_runs": 0}, "--proxy-runs must be at least 1"),
        ({"max_iters": -1}, "--max-iters must be at least 0"),
        ({"proxy_steps": 0}, "--proxy-steps must be at least 1"),
        ({"target_bytes": -1}, "--target-bytes must be at least 0"),
        ({"batch": 0}, "--batch must be at least 1"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(from_dict(Config, {"corpus": ["a=x", "b=y"], "target": ["t"], **changes}), Events())
