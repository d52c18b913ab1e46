"""Classifiers end to end: trained, judged, saved, and put to use by three commands."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import nano
from e2e.shell import good, refused, snapshot, tinygpt
from tinygpt.data.classifier import Classifier

CITIES = ["Paris", "Rome", "Oslo", "Lima", "Cairo", "Tokyo", "Delhi", "Quito", "Accra", "Hanoi"]
THINGS = ["river", "bridge", "book", "film", "song", "plant", "engine", "planet", "metal", "bird"]
ASKED = {
    "single-hop": ["Who wrote the {t} of {c}?", "When was the {t} in {c} built?", "Where is the {t} of {c}?"],
    "multi-hop": [
        "Who was the mayor of the city where the {t} of {c} was made?",
        "In which country was the author of the {t} about {c} born?",
        "What is the birthplace of the person who built the {t} in {c}?",
    ],
    "comparison": [
        "Is the {t} of {c} older than the {u} of {d}?",
        "Which is larger, {c} or {d}?", "Are {c} and {d} both old?",
    ],
    "other": ["Write a poem about the {t} of {c}.", "Translate {t} into the language of {c}.",
              "Sum up the {t}."],
}  # fmt: skip
GOOD = [
    "the",
    "study",
    "shows",
    "that",
    "because",
    "measured",
    "results",
    "over",
    "many",
    "years",
    "however",
    "differ",
    "between",
    "regions",
]
POOR = [
    "click",
    "here",
    "buy",
    "now",
    "free",
    "win",
    "cheap",
    "best",
    "deal",
    "offer",
    "subscribe",
    "login",
    "cookie",
    "share",
    "menu",
]


def question(depth: str, draw: random.Random) -> str:
    t, u, c, d = draw.choice(THINGS), draw.choice(THINGS), draw.choice(CITIES), draw.choice(CITIES)
    said = draw.choice(ASKED[depth]).format(t=t, u=u, c=c, d=d)
    return draw.choice(["Please tell me: ", "", "", ""]) + said


def labelled(path: Path, counts: dict[str, int], seed: int = 0, wrong: float = 0.05) -> Path:
    """Questions with their depth; one label in twenty is wrong."""
    draw, rows = random.Random(seed), list[dict[str, Any]]()
    for depth, n in counts.items():
        for _ in range(n):
            said = depth if draw.random() > wrong else draw.choice(list(ASKED))
            rows.append({"prompt": question(depth, draw), "reasoning_depth": said})
    draw.shuffle(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pages(path: Path, words: list[str], n: int, seed: int) -> Path:
    """Documents mostly of some words, a third of the other kind's."""
    draw = random.Random(seed)
    both = [*words, *words, *GOOD, *POOR]
    path.write_text("\n".join(" ".join(draw.choices(both, k=25)) + "\n" for _ in range(n)), encoding="utf-8")
    return path


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def quality(tmp_path: Path) -> Path:
    nano.require("matplotlib")
    files = [
        pages(tmp_path / f"{name}.txt", words, 120, i)
        for i, (name, words) in enumerate({"good": GOOD, "poor": POOR}.items())
    ]
    out = tmp_path / "quality.tinygpt"
    good(
        "train-quality-classifier",
        "--positive",
        files[0],
        "--negative",
        files[1],
        "--out",
        out,
        "--vocab",
        4096,
    )
    return out


def test_a_classifier_of_quality_keeps_what_is_good(
    quality: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = json.loads((quality / "report.json").read_text())
    assert report["macro_f1"] > 0.9 and report["ece"] < 0.2 and report["rows"] == 48
    assert (quality / "calibration.png").read_bytes()[:4] == b"\x89PNG"
    crawl, draw = tmp_path / "crawl.jsonl", random.Random(9)
    rows = [
        {"id": f"d{i}", "text": " ".join(draw.choices(GOOD if i % 4 == 0 else POOR, k=20))} for i in range(40)
    ]
    crawl.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"text": ""}\n', encoding="utf-8")
    out, side = tmp_path / "kept.jsonl", tmp_path / "scores.jsonl"
    done = good("quality-filter", crawl, "--classifier", quality, "--out", out, "--score", side, "--json")
    assert lines(out) == rows[::4] and done.json["dropped"] == {"without text": 1, "below the threshold": 30}
    scores = {line["doc_id"]: line["score"] for line in lines(side)}
    assert len(scores) == 40 and scores["d0"] > 0.5 > scores["d1"]
    card = json.loads((tmp_path / "kept.card.json").read_text())
    assert card["stages"][0]["n_in"] == 41 and card["stages"][0]["n_out"] == 10
    judged, score = list[int](), Classifier.score
    monkeypatch.setattr(Classifier, "score", lambda c, texts: [judged.append(len(texts)), score(c, texts)][1])
    best = good(
        "quality-filter",
        crawl,
        "--classifier",
        quality,
        "--out",
        out,
        "--keep-percent",
        5,
        "--force",
        "--json",
    )
    assert best.json["kept"] == len(lines(out)) == 2 and sum(judged) == 40, "each is judged once"
    assert {row["id"] for row in lines(out)} == set(sorted(scores, key=lambda i: -scores[i])[:2])
    few = good(
        "quality-filter",
        crawl,
        "--classifier",
        quality,
        "--score",
        tmp_path / "few.jsonl",
        "--max-docs",
        3,
        "--json",
    )
    assert few.json["read"] == 3


def test_the_same_texts_give_the_same_classifier(quality: Path, tmp_path: Path) -> None:
    before, files = (
        snapshot(quality),
        ("--positive", tmp_path / "good.txt", "--negative", tmp_path / "poor.txt"),
    )
    again = ("train-quality-classifier", *files, "--vocab", 4096, "--out", quality)
    refused(tinygpt(*again), "exists", hint="--force")
    good(*again, "--force")
    assert snapshot(quality) == before
    good(*again, "--force", "--seed", 1)
    assert snapshot(quality)["model.safetensors"] != before["model.safetensors"]


def test_per_line_keeps_good_lines(quality: Path, tmp_path: Path) -> None:
    page, out = tmp_path / "page.jsonl", tmp_path / "lines.jsonl"
    fine, poor = " ".join(GOOD), " ".join(POOR)
    page.write_text(json.dumps({"text": f"{fine}\n{poor}\n\n{fine}", "n": 1}) + "\n", encoding="utf-8")
    good("quality-filter", page, "--classifier", quality, "--out", out, "--per-line")
    assert lines(out) == [{"text": f"{fine}\n{fine}", "n": 1}]
    text, left = tmp_path / "page.txt", tmp_path / "left.txt"
    text.write_text(f"{fine}\n{poor}\n\n{fine}\nmore {fine}\n", encoding="utf-8")
    good("quality-filter", text, "--classifier", quality, "--out", left, "--per-line")
    assert left.read_text() == f"{fine}\n{fine}\nmore {fine}\n"


def test_toxicity_is_a_classifier_one_can_train(quality: Path, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    said = [{"text": " ".join(GOOD)}, {"text": " ".join(POOR)}]
    rows.write_text("".join(json.dumps(row) + "\n" for row in said), encoding="utf-8")
    done = good(
        "filter", rows, "--out", out, "--toxicity", 0.5, "--toxicity-model", quality, "--workers", 2, "--json"
    )
    assert lines(out) == said[1:] and done.json["dropped"] == {"toxic": 1}


def test_a_stage_of_prepared_data(quality: Path, tmp_path: Path) -> None:
    given = [{"text": " ".join(GOOD)}, {"text": " ".join(POOR)}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    stage = f'[[sources]]\npath = "{tmp_path}/in.jsonl"\n[[stages]]\nname = "quality"\nmodel = "{{}}"\n'
    (tmp_path / "good.toml").write_text(stage.format(quality))
    line = ("prep-data", "--out", tmp_path / "out.jsonl", "--quiet", "--config")
    good(*line, tmp_path / "good.toml")
    assert json.loads((tmp_path / "out.jsonl").read_text()) == given[0]
    (tmp_path / "bad.toml").write_text(stage.format(tmp_path))
    refused(tinygpt(*line, tmp_path / "bad.toml", "--force"), "has no tinygpt.json")


def test_depths_are_learned_labelled_and_mixed(tmp_path: Path) -> None:
    nano.require("matplotlib")
    counts = {"single-hop": 160, "multi-hop": 90, "comparison": 60, "other": 40}
    train, model = labelled(tmp_path / "train.jsonl", counts), tmp_path / "depth.tinygpt"
    held = labelled(tmp_path / "held.jsonl", dict.fromkeys(ASKED, 15), seed=5, wrong=0)
    told = good("reasoning-classify", "--train", train, "--heldout", held, "--out", model, "--json").json
    assert told["dropped"]["held out, but learned from"] > 0
    assert told["macro_f1"] > 0.9 and sum(c["rows"] for c in told["classes"].values()) == told["rows"]
    draw, rows, scored = random.Random(3), tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    depths = [draw.choice(list(ASKED)) for _ in range(80)]
    shapes = [
        lambda said: {"prompt": said}, lambda said: {"text": said},
        lambda said: {"messages": [turn("user", "Hi"), turn("assistant", "Yes?"), turn("user", said)]},
    ]  # fmt: skip
    given = [shapes[i % 3](question(depth, draw)) for i, depth in enumerate(depths)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in [*given, {"other": 1}]), encoding="utf-8")
    done = good("reasoning-classify", "--score", rows, "--model", model, "--out", scored, "--json")
    found = lines(scored)
    assert (
        len(found) == 80 and "asks nothing" in done.err and done.json["dropped"] == {"without a question": 1}
    )
    assert sum(row["reasoning_depth"] == depth for row, depth in zip(found, depths)) > 70
    assert all(0.25 <= row["reasoning_score"] <= 1 for row in found)
    mix, out = "single=.25,multi=.5,comparison=.25", tmp_path / "mix.jsonl"
    told = good("reasoning-classify", "--filter", train, "--target-mix", mix, "--out", out, "--json").json
    took = [row["reasoning_depth"] for row in lines(out)]
    assert took.count("single-hop") == took.count("comparison") > 40
    assert took.count("multi-hop") - 2 * took.count("single-hop") in (0, 1)
    assert took.count("other") == 0 and told["kept"] == len(took)
    again = tmp_path / "again.jsonl"
    good("reasoning-classify", "--filter", train, "--target-mix", mix, "--out", again)
    assert again.read_bytes() == out.read_bytes()
    good("reasoning-classify", "--filter", train, "--target-mix", mix, "--seed", 1, "--out", again, "--force")
    assert again.read_bytes() != out.read_bytes()


def test_a_directory_that_is_no_such_classifier_is_refused(quality: Path, tmp_path: Path) -> None:
    rows, out = labelled(tmp_path / "rows.jsonl", {"other": 3}), tmp_path / "out.jsonl"
    refused(tinygpt("reasoning-classify", "--score", rows, "--model", quality, "--out", out), "for quality")
    (quality / "config.json").write_text("{}", encoding="utf-8")
    refused(tinygpt("quality-filter", rows, "--classifier", quality, "--out", out), "config.json")
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("reasoning-classify --out x", "one of --train"),
        ("reasoning-classify --train {at} --filter {at} --out x", "one of --train"),
        ("reasoning-classify --filter {at} --out x", "needs --target-mix"),
        ("reasoning-classify --filter {at} --target-mix single=.5 --out x", "sums to 0.5"),
        ("reasoning-classify --filter {at} --target-mix singel=1 --out x", "single-hop"),
        ("reasoning-classify --filter {at} --target-mix multi=1 --out x", "it has no multi-hop"),
        ("reasoning-classify --score {at} --out x", "needs --model"),
        ("reasoning-classify --train {at} --model m --out x", "belongs to --score"),
        ("reasoning-classify --score {at} --model m --epochs 3 --out x", "belongs to --train"),
        ("reasoning-classify --train {at} --out {out}", "one class"),
        ("train-quality-classifier --positive {at} --negative {at} --out {out}", "both"),
        ("train-quality-classifier --positive {at} --negative no.jsonl --out {out}", "no.jsonl"),
        ("quality-filter {at} --classifier m", "--out or --score"),
        ("quality-filter {at} --classifier m --out x --threshold 2", "between 0 and 1"),
        ("quality-filter {at} --classifier m --out x --threshold .2 --keep-percent 3", "exclude"),
        ("quality-filter {at} --classifier m --score x --keep-percent 3", "without --out"),
        ("quality-filter {at} --classifier m --out {at}", "one of the files that are read"),
    ],
)
def test_refusals(words: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = labelled(tmp_path / "rows.jsonl", {"single-hop": 3}, wrong=0)
    before = snapshot(tmp_path)
    refused(tinygpt(*words.format(at=rows, out=tmp_path / "out").split()), why)
    assert snapshot(tmp_path) == before
