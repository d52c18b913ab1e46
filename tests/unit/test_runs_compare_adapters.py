"""Base against adapters: the same windows, the same questions, rows known by heart, a page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_map

import nano
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError, DataError
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.bm25 import BM25
from tinygpt.data.tokenizer import byte
from tinygpt.eval import conditions, paired
from tinygpt.eval.memorise import memorised
from tinygpt.eval.suites import heldout_loss
from tinygpt.model import checkpoint
from tinygpt.peft import _adapter
from tinygpt.runs import _compare_page, _compared
from tinygpt.runs._local_endpoint import LocalEndpoint
from tinygpt.runs.compare_adapters import Config, run

QUIET = Events(MemorySink())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adapter that is nothing (a/final), and one that is something (b/final)."""
    place = tmp_path_factory.mktemp("compare")
    tokenizer = byte.load(None)
    model = nano.model(vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    base = checkpoint.save(place / "base", model, write_tokenizer=tokenizer.save)
    _adapter.attach(model, Pick("lora"), seed=1)
    for name in ("a", "b"):
        _adapter.save_adapter(place / name / "final", model, Pick("lora"), base=base)
        model.update(tree_map(lambda w: w + 0.1, model.trainable_parameters()))
    (place / "text.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 20)
    rows = [{"prompt": f"what is {i}?", "completion": f"it is {i}"} for i in range(6)]
    (place / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (place / "docs").mkdir()
    (place / "docs" / "one.txt").write_text("what is known of 4\n\nsomething else")
    return place


def config(place: Path, *names: str, **more: Any) -> Config:
    return Config(base=place / "base", adapter=tuple(place / n / "final" for n in names), **more)


def test_losses_are_those_of_the_suite_and_differences_are_paired(place: Path) -> None:
    found = run(config(place, "a", "b", corpus=(place / "text.txt",), windows=0, context=50), QUIET)
    base, same, other = found["models"]
    assert [m["name"] for m in found["models"]] == ["base", "a/final", "b/final"]
    assert same["loss"] == base["loss"] and same["difference"]["value"] == 0
    assert not same["difference"]["clear"] and other["loss"] != base["loss"]
    gap = other["difference"]
    assert gap["value"] == pytest.approx(other["loss"] - base["loss"])
    assert gap["low"] < gap["value"] < gap["high"]
    assert base["perplexity"] == pytest.approx(math.exp(base["loss"]))
    size = len((place / "text.txt").read_bytes())
    assert base["bits_per_byte"] == pytest.approx(
        base["loss"] * found["corpus"]["tokens"] / math.log(2) / size
    )
    endpoint = LocalEndpoint.open(place / "base", place / "b" / "final")
    texts = heldout_loss.load(heldout_loss.Config(paths=(place / "text.txt",)))
    suite = heldout_loss.score(endpoint, texts, heldout_loss.Config(context=50, stride=50)).rows
    assert other["loss"] == pytest.approx(suite[0].score, rel=1e-5)


def test_the_matrix_asks_everyone_the_same(place: Path) -> None:
    found = run(
        config(place, "b", data=place / "rows.jsonl", documents=place / "docs", shots=2, max_tokens=4), QUIET
    )
    names = [m["condition"] for m in found["matrix"]]
    assert names == ["base", "base + few-shot", "b/final", "b/final + retrieval"]
    assert all(m["rows"] == 4 and m["left_out"] == 0 for m in found["matrix"]), "two rows became examples"
    assert "answer_loss_difference" not in found["matrix"][0]
    assert len({m["answer_loss"] for m in found["matrix"]}) == 4
    assert [s["prompt"] for s in found["samples"]] == ["what is 2?", "what is 3?", "what is 4?"]
    endpoint = LocalEndpoint.open(place / "base")
    row = {"messages": [{"role": "user", "content": "what is 2?"}], "tools": None,
           "expected": {"role": "assistant", "content": "it is 2"}}  # fmt: skip
    ids, own = _compared.answer_ids(endpoint, row)
    assert endpoint.tokenizer.decode([i for i, mine in zip(ids, own) if mine]).startswith("it is 2")
    assert sum(own) == len(b"it is 2") + 1, "the answer and its end"


@pytest.mark.wide
def test_what_does_not_fit_is_left_out_of_every_condition(place: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "p" * n, "completion": "yes"} for n in (5, 5, 5, 170)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "shots.jsonl").write_text(json.dumps({"prompt": "q" * 60, "completion": "no"}) + "\n")
    found = run(
        config(place, "b", data=tmp_path / "rows.jsonl", examples=tmp_path / "shots.jsonl", max_tokens=2),
        QUIET,
    )
    assert {(m["rows"], m["left_out"]) for m in found["matrix"]} == {(3, 1)}


def test_rows_known_by_heart() -> None:
    rows = [list(range(10)), list(range(5, 20)), [1, 2]]

    def count(prompts: list[list[int]], n: int) -> list[list[int]]:
        return [list(range(p[-1] + 1, p[-1] + 1 + n)) for p in prompts]

    whole = memorised(rows, count, prefix=4, length=3)
    assert (whole.verbatim, whole.share, whole.matched) == (2, 1.0, 1.0)
    half = memorised(rows, lambda prompts, n: [[4, 5, 6], [9, 0, 0]], prefix=4, length=3)
    assert (half.rows, half.verbatim, half.short) == (2, 1, 1) and half.matched == pytest.approx(4 / 6)
    with pytest.raises(DataError, match="none of the 3 rows has 40 tokens"):
        memorised(rows, lambda prompts, n: [], prefix=20, length=20)


def test_memorised_rows_through_the_models(place: Path, tmp_path: Path) -> None:
    """What the model itself goes on with is verbatim, what it does not is not."""
    endpoint = LocalEndpoint.open(place / "base")
    write = _compared._writer(endpoint)
    prompt = endpoint.engine.encode("abcdefgh")
    own = endpoint.tokenizer.decode(write([prompt], 1)[0])
    rows = [{"text": "abcdefgh" + own + "x" * 9}, {"text": "abcdefgh" + ("z" if own != "z" else "y") * 9}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = run(config(place, "a", memorise=tmp_path / "rows.jsonl", prefix=len(prompt), go_on=1), QUIET)
    for model in found["models"]:
        assert (model["memorised"]["rows"], model["memorised"]["verbatim"]) == (2, 1)


def test_a_prefix_that_ends_in_the_prompt_is_told(place: Path, tmp_path: Path) -> None:
    """sft learns no prompt, so a model that knows every answer by heart looked as if it knew nothing."""
    row = {"messages": [{"role": "user", "content": "a" * 40}, {"role": "assistant", "content": "b" * 9}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    told: list[int] = []
    for prefix in (30, 1):
        sink = MemorySink()
        end = {30: 4, 1: 60}[prefix]  # the second reaches into the answer
        run(config(place, "a", memorise=tmp_path / "rows.jsonl", prefix=prefix, go_on=end), Events(sink))
        told.append(sum("a longer --prefix" in e.text for e in sink.events if e.kind == "note"))  # type: ignore[union-attr]
    assert told == [1, 0]


def test_prompts_get_longer_and_answers_stay() -> None:
    row = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "the cat?"}],
           "tools": None, "expected": {"role": "assistant", "content": "mat"}}  # fmt: skip
    shot = {**row, "messages": [{"role": "system", "content": "t"}, {"role": "user", "content": "dog?"}]}
    few = conditions.few_shot(row, [shot])
    assert [m["content"] for m in few["messages"]] == ["s", "dog?", "mat", "the cat?"]
    near = conditions.retrieved(row, BM25(["a cat sat", "a dog"]), 1)
    assert "a cat sat" in near["messages"][1]["content"] and near["messages"][1]["content"].endswith(
        "the cat?"
    )
    assert conditions.retrieved(row, BM25(["zebra"]), 1) is row and few["expected"] is row["expected"]
    assert conditions.f1("a b c", "b c d d") == pytest.approx(2 * 2 / 7)
    assert conditions.f1("", "") == 1 and conditions.f1("", "x") == 0


def test_the_interval_is_the_paired_bootstraps() -> None:
    rng = np.random.default_rng(1)
    old, gain, weights = rng.normal(5, 3, 400), rng.normal(-0.2, 0.5, 400), rng.integers(1, 9, 400)
    found = paired.difference(old + gain, old, weights)
    assert found.value == pytest.approx(gain.sum() / weights.sum())
    spread = 1.96 * np.std(gain - found.value * weights) / weights.mean() / math.sqrt(400)
    assert found.high - found.value == pytest.approx(spread, rel=0.15)
    assert found.value - found.low == pytest.approx(spread, rel=0.15) and found.clear
    assert not paired.difference([1.0, -1.0], [0.0, 0.0], [1, 1]).clear


@pytest.mark.wide
def test_a_page_of_each_kind(place: Path, tmp_path: Path) -> None:
    settings = {"corpus": (place / "text.txt",), "prompt": ("<b>The | ```",), "max_tokens": 4, "windows": 4}
    for kind in ("html", "md", "json"):
        found = run(config(place, "b", out=tmp_path / f"page.{kind}", **settings), QUIET)
    page = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;The" in page and "<b>The" not in page and "<svg" in page
    assert f"{found['models'][1]['loss']:.4f}" in page and "| b/final |" in (tmp_path / "page.md").read_text()
    assert json.loads((tmp_path / "page.json").read_text())["models"][0]["name"] == "base"
    assert [len(lines) for _, _, lines in _compare_page.tables(found)] == [2]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "nothing to compare on"),
        ({"corpus": ("t.txt",), "shots": 2}, "--shots"),
        ({"prompt": ("x",), "out": Path("page.pdf")}, "ends in none of"),
        ({"prompt": ("x",), "max_tokens": 0}, "--max-tokens must be at least 1"),
    ],
)
def test_settings_that_mean_nothing(more: dict[str, Any], said: str, place: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        config(place, "a", **more)
    with pytest.raises(ConfigError, match="nothing to compare the base with"):
        config(place, prompt=("x",))


@pytest.mark.wide
def test_an_adapter_of_another_base_needs_force(place: Path, tmp_path: Path) -> None:
    tokenizer = byte.load(None)
    other = nano.model(vocab_size=tokenizer.vocab_size, max_position_embeddings=256, seed=4)
    checkpoint.save(tmp_path / "base", other, write_tokenizer=tokenizer.save)
    given: dict[str, Any] = {"base": tmp_path / "base", "adapter": (place / "b" / "final",),
                             "corpus": (place / "text.txt",), "windows": 2}  # fmt: skip
    with pytest.raises(CheckpointError, match="other weights"):
        run(Config(**given), QUIET)
    assert run(Config(**given, force=True), QUIET)["models"][1]["loss"] > 0
