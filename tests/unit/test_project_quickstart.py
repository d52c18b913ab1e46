"""Quickstart on one's own rows: a split without overlap, a recipe that fits, words that do not flatter."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.rows import EvalRow
from tinygpt.data.rows import Conversation
from tinygpt.data.tokenizer import byte
from tinygpt.project import demo, quickstart


def talk(question: str, answer: str = "yes", **more: Any) -> Conversation:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **more}]
    return Conversation(messages=messages)


def test_no_row_is_on_both_sides() -> None:
    rows = [talk(f"q{i % 50}") for i in range(200)]
    train, held_out = quickstart.split(rows, 100)
    asked = [[c.messages[0]["content"] for c in part] for part in (train, held_out)]
    assert not set(asked[0]) & set(asked[1])
    assert sorted(asked[0] + asked[1]) == sorted(f"q{i}" for i in range(50)), "equal rows count once"
    assert len(held_out) == 5, "at most a tenth"
    assert quickstart.split(rows[::-1], 100)[1] == held_out, "the order of the file does not matter"
    assert len(quickstart.split(rows, 2)[1]) == 2
    assert len(quickstart.split([talk("a"), talk("b")], 100)[1]) == 1
    with pytest.raises(DataError, match="only one distinct row"):
        quickstart.split([talk("a"), talk("a")], 1)


def test_the_recipe_follows_the_rows() -> None:
    few = quickstart.choose([talk("q")])
    many = quickstart.choose([talk("q" * 1000, "a" * 1000)] * 200)
    calls = quickstart.choose([talk("q", "", tool_calls=[{"name": "ls", "arguments": {}}])])
    assert few.width < many.width and few.vocab_size < many.vocab_size
    assert (few.pattern, calls.pattern) == ("word", "copy")


def test_the_context_holds_the_rows_and_a_step_keeps_its_size() -> None:
    recipe, tokenizer = quickstart.choose([talk("q")]), byte.load(None)
    for length, context in ((10, 64), (150, 256), (1500, 1024)):
        found = quickstart.with_context(recipe, [talk("q" * length)] * 5, tokenizer)
        assert found.context == context
        assert found.batch == max(4, recipe.batch * recipe.context // context)


def scores(bits: float, exact: float) -> list[EvalRow]:
    def row(name: str, metric: str, score: float) -> EvalRow:
        return EvalRow(
            model_path="", model_name=name, task="held_out", metric=metric, score=score, n_examples=40,
            wall_seconds=0.0,
        )  # fmt: skip

    return [
        row("untrained", "bits_per_byte", 8.1), row("untrained", "exact_match", 0.0),
        row("trained", "bits_per_byte", bits), row("trained", "exact_match", exact),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("exact", "right", "sentence"),
    [
        (0.0, 0, "the form of your answers, not how to find them: 1,234,567 parameters and 6.0 minutes"),
        (0.025, 1, "the form of your answers"),
        (0.5, 20, "It has part of the task."),
        (0.8, 32, "It has learned the task as these rows show it"),
    ],
)
def test_the_verdict_says_what_the_numbers_mean(exact: float, right: int, sentence: str) -> None:
    trained: Any = SimpleNamespace(facts={"parameters": 1_234_567, "training_minutes": 6.0})
    lines = quickstart.verdict(scores(2.345, exact), trained)
    assert lines[0].endswith("with 2.35 bits a byte; before training it was 8.10.") or "2.34" in lines[0]
    assert lines[1] == f"It answers {right} of 40 held-out rows exactly right."
    assert sentence in lines[2] and len(lines) == 3


@pytest.mark.parametrize("changes", [{"minutes": 0}, {"n_held_out": 0}, {"steps": -1}])
def test_settings_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        quickstart.Config(data=Path("x"), **changes)
    with pytest.raises(ConfigError):
        demo.Config(**changes)
    with pytest.raises(ConfigError):
        demo.Config(n_train=99)
