"""Automix on the command line: of two corpora, the one that is like the target is found."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from e2e.shell import NANO, good, refused, sentences, tinygpt


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences, numbers, and a target of other sentences."""
    folder = tmp_path_factory.mktemp("automix")
    draw = random.Random(2)
    numbers = " ".join(str(draw.randrange(10**6)) for _ in range(3000))
    (folder / "words.txt").write_text(sentences(600, 1), encoding="utf-8")
    (folder / "numbers.txt").write_text(numbers, encoding="utf-8")
    (folder / "target.txt").write_text(sentences(60, 2), encoding="utf-8")
    return folder


def automix(root: Path, *more: object) -> tuple[object, ...]:
    return (
        "automix", "--corpus", f"words={root / 'words.txt'}", "--corpus", f"numbers={root / 'numbers.txt'}",
        "--target", root / "target.txt", "--out", root / "automix-report.jsonl", "--proxy-runs", 3,
        "--max-iters", 2, "--proxy-steps", 50, "--lr", 0.003, *NANO, *more,
    )  # fmt: skip


def test_finds_the_corpus_that_is_like_the_target(root: Path) -> None:
    plan = good(*automix(root, "--dry-run", "--json"))
    assert plan.json["runs"] == 7 and plan.json["tokens_per_run"] == 50 * 4 * 32
    assert len(plan.json["rows"]) == 3 and not (root / "automix-report.jsonl").exists()
    done = good(*automix(root))
    found = json.loads((root / "automix-recommendation.json").read_text())
    assert found["ratio"]["words"] >= 0.8 and found["gain"] > 0.05 and found["runs"] == 7
    assert not found["dry_run"] and found["proxy_steps"] == 50
    assert "better than the even mixture by" in done.out and "best: words" in done.out
    rows = [json.loads(line) for line in (root / "automix-report.jsonl").read_text().splitlines()]
    assert [r["ratio"] for r in rows[:3]] == [r["ratio"] for r in plan.json["rows"]]
    assert all(r["score"] == -r["bits_per_byte"] and r["iter"] >= 0 for r in rows)
    # Again: nothing is trained anew, and the same is found. Other settings are another search.
    before = (root / "automix-report.jsonl").read_bytes()
    assert good(*automix(root, "--json")).json["ratio"] == found["ratio"]
    assert (root / "automix-report.jsonl").read_bytes() == before
    refused(tinygpt(*automix(root, "--proxy-steps", 60)), "other settings or other data")


def test_a_target_that_is_trained_on_is_refused(root: Path) -> None:
    (root / "copy.txt").write_bytes((root / "target.txt").read_bytes())
    refused(
        tinygpt(*automix(root, "--corpus", f"copy={root / 'copy.txt'}")),
        "of the target is in the corpus copy",
    )
    refused(tinygpt(*automix(root, "--corpus", "gone=nowhere")), "there is no file or folder")
