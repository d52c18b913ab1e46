"""Adapters through the command line: several at once, compared with their base, in formats of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.shell import good, tinygpt


@pytest.fixture(scope="module")
def tuned(trained: Path) -> Path:
    """The trained folder with two adapters on its run, a/ and b/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYGPT_CACHE", str(trained / "cache"))
        for name in ("vera", "adalora"):
            good(
                "sft", trained / "run", "--data", trained / "rows.jsonl", "--adapter", name, "--out",
                trained / name, "--steps", 4, "--batch", 4, "--lr", "1e-2", "--seed", 1, "--no-compile",
            )  # fmt: skip
    return trained


def test_several_at_once(tuned: Path) -> None:
    plain = ("eval", tuned / "run", "--corpus", tuned / "corpus.txt", "--json")
    both = ("--adapter", tuned / "vera", "--adapter", tuned / "adalora")
    base, two, none, part = (
        good(*plain, *more).json[0]["score"]
        for more in ((), both, (*both, "--adapter-weight", "0,0"), (*both, "--lora-weight", "0.7,0.3"))
    )
    assert none == pytest.approx(base, abs=1e-6) and len({base, two, part}) == 3
    for words in (("sample",), ("bench", "--gen-tokens", 2, "--prompt-tokens", 2, "--n-runs", 1)):
        good(words[0], tuned / "run", *both, "--adapter-weight", "1,0.5", *words[1:])
    for more, said in (
        (("--adapter-weight", "1"), "1 numbers for 2 adapters"),
        (("--adapter-weight", "1,x"), "adapter_weight[1]"),
    ):
        found = tinygpt("sample", tuned / "run", *both, *more)
        assert found.code == 2 and said in found.err
    assert tinygpt("sample", tuned / "run", "--adapter-weight", "1").code == 2
    assert tinygpt("sample", tuned / "run", "--force").code == 2


def test_compare(tuned: Path) -> None:
    words = ("compare", tuned / "run", "--adapter", tuned / "vera", "--lora", tuned / "adalora")
    found = good(*words, "--corpus", tuned / "corpus.txt", "--windows", 20, "--json").json
    assert [m["name"] for m in found["models"]] == ["base", "vera", "adalora"]
    assert found["corpus"]["windows"] == 20 and found["samples"] == []
    page = tuned / "page.html"
    shown = good(
        *words, "--prompt", "The", "--max-tokens", 2, "--corpus", tuned / "corpus.txt", "--out", page
    )
    assert "loss minus base's" in shown.out and "--- The" in shown.out and "<svg" in page.read_text()
    assert tinygpt(*words, "--prompt", "x", "--out", tuned / "run" / "x.pdf").code == 2


def test_formats(tuned: Path) -> None:
    for format, source, out in (
        ("mlx", "vera", "m"), ("peft", "m", "p"), ("tgla", "p", "t.lora"), ("peft", "t.lora", "q"),
    ):  # fmt: skip
        good(
            "adapter-convert",
            tuned / source,
            "--base",
            tuned / "run",
            "--format",
            format,
            "--out",
            tuned / out,
        )
    scores = [
        good("eval", tuned / "run", "--adapter", tuned / a, "--corpus", tuned / "corpus.txt", "--json")
        for a in ("vera", "m", "p", "t.lora", "q")
    ]
    values = [done.json[0]["score"] for done in scores]
    assert values == pytest.approx([values[0]] * 5, abs=1e-5)
    assert "do not say which technique" in scores[3].err and not scores[1].err
    again = tinygpt("adapter-convert", tuned / "vera", "--out", tuned / "m")
    assert again.code == 2 and "exists" in again.err
    bad = tinygpt("adapter-convert", tuned / "vera", "--format", "mxl", "--out", tuned / "z")
    assert bad.code == 2 and "mlx" in bad.err and not (tuned / "z").exists()
