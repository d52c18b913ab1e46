"""Quickstart on a base: what rows are like, which base, which recipe, and whether it was worth it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.rows import EvalRow
from tinygpt.data.rows import Conversation
from tinygpt.project import gallery, recipe, start
from tinygpt.project import survey as surveys
from tinygpt.project._few_shot import worth
from tinygpt.project.gallery import Entry
from tinygpt.project.recipe import Base, Machine

GB = 10**9
MACHINE = Machine(memory=16 * GB, gflops=100.0, value_bytes=2)
BASE = Base(parameters=600_000_000, context=32768, layers=28, width=1024)


def talk(question: str, answer: str = "yes", turns: int = 1, **more: Any) -> Conversation:
    one = [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **more}]
    return Conversation(messages=one * turns)


def test_a_survey_counts_copies_and_prompts_with_two_answers() -> None:
    rows = [talk("A?"), talk("A?"), talk("a !", "no"), talk("B?", "maybe so")]
    found = surveys.survey(rows)
    assert (found.n_rows, found.n_copies, found.n_same_prompt) == (4, 1, 2)
    assert found.task == "instruction" and found.turns == 1
    assert found.long == len("B?\nmaybe so") and found.answer == len("yes")
    assert surveys.survey([talk("A?", turns=2)]).task == "chat"
    assert surveys.survey([talk("A?", "", tool_calls=[{"name": "ls", "arguments": {}}])]).task == "tools"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The cat is in the garden, and it was there for a while.", "English"),
        ("Die Katze ist nicht in dem Garten, und das ist von der Frau.", "German"),
        ("Le chat est dans les rues et la ville, pour une nuit.", "French"),
        ("Что такое любовь", "Cyrillic letters"),
        ("これは猫です", "Japanese"),
        ("这是一只猫", "Chinese characters"),
        ("xkcd qwrt zzz plk", "Latin letters"),
        ("123 + 4", "no language: there are no letters"),
    ],
)
def test_the_language_of_texts(text: str, language: str) -> None:
    assert surveys.language([text]) == language


def test_rows_that_training_gives_away() -> None:
    poem = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    train = [talk("What is A?"), talk("Write", poem)]
    held_out = [
        talk("what is a"),
        talk("Other", poem),
        talk("New", "a short answer"),
        talk("New?", poem[30:]),
    ]
    assert surveys.leaks(train, held_out) == [0, 1]


def test_the_gallery_takes_the_largest_that_fits_and_was_made_for_the_task() -> None:
    entries = (
        Entry(id="s", where="s", parameters=100_000_000, tags=("chat",)),
        Entry(id="m", where="m", parameters=1_000_000_000, tags=("tools",)),
        Entry(id="l", where="l", parameters=2_000_000_000, tags=("chat",)),
        Entry(id="g", where="g", parameters=3_000_000_000, tags=("chat",), gated=True),
    )
    assert gallery.choose(entries, "chat", 16 * GB).id == "l"
    assert gallery.choose(entries, "chat", 2 * GB).id == "s"
    assert gallery.choose(entries, "tools", 16 * GB).id == "m"
    assert gallery.choose(entries, "tools", GB // 2).id == "s", "none for the task fits: any"
    assert gallery.choose(entries, "chat", 16 * GB, gated=True).id == "g"
    with pytest.raises(ConfigError, match="the smallest, s, takes"):
        gallery.choose(entries, "chat", GB // 100)
    assert gallery.choose(gallery.BUILT_IN, "tools", 16 * GB).where.startswith("hf://")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is not JSON"),
        ("{}", "has no list 'models'"),
        ('{"models": [{}]}', r"models\[0\] must be an object with an 'id'"),
        ('{"models": [{"id": "x"}]}', "has no 'file'"),
        ('{"models": [{"id": "x", "file": "y"}]}', "has no 'paramCount'"),
        ('{"models": [{"id": "x", "file": "y", "paramCount": 1, "tags": 3}]}', "'tags' must be a list"),
    ],
)
def test_a_manifest_that_is_wrong_says_where(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text(content)
    with pytest.raises(DataError, match=told):
        gallery.read(tmp_path / "g.json")


def test_a_manifest_names_paths_beside_itself_and_leaves_out_what_cannot_be_tuned(tmp_path: Path) -> None:
    models = [
        {"id": "a", "file": "models/a", "paramCount": 5, "tags": ["chat"]},
        {"id": "b", "file": "hf://o/b", "paramCount": 6, "kind": "mac-safetensors-hf"},
        {"id": "c", "file": "c.gguf", "paramCount": 7, "kind": "mac-gguf"},
    ]
    (tmp_path / "g.json").write_text(json.dumps({"version": 1, "models": models}))
    a, b = gallery.read(tmp_path / "g.json")
    assert (a.where, b.where) == (str(tmp_path / "models/a"), "hf://o/b")
    assert gallery.find((a, b), "b") == b and gallery.find((a, b), "c") is None


def survey_of(n: int, task: Any = "instruction") -> surveys.Survey:
    return surveys.Survey(
        n_rows=n, n_copies=0, n_same_prompt=0, task=task, turns=1, median=100, long=900, answer=40,
        language="English",
    )  # fmt: skip


@pytest.mark.parametrize(("n", "rank"), [(100, 8), (499, 8), (500, 16), (4999, 16), (5000, 32)])
def test_the_rank_grows_with_the_rows(n: int, rank: int) -> None:
    plan = recipe.resolve(survey_of(n), (100, 300), BASE, MACHINE)
    assert (plan.rank, plan.alpha) == (rank, 2 * rank)
    assert f"{n} rows" in plan.reasons[0]


def test_the_steps_are_the_epochs_of_packed_rows() -> None:
    plan = recipe.resolve(survey_of(1000), (100, 300), BASE, MACHINE)
    assert plan.context == 512 and plan.batch == 8
    assert plan.steps == math.ceil(3 * 1000 / (5 * 8))  # five rows of 100 tokens in one of 512
    assert recipe.resolve(survey_of(10**6), (100, 300), BASE, MACHINE).steps == recipe.MOST_STEPS
    assert recipe.resolve(survey_of(1000), (100, 300), BASE, MACHINE, steps=7).steps == 7
    few = recipe.resolve(survey_of(40), (100, 300), BASE, MACHINE)
    assert few.batch == 1 and few.steps == 40


def test_what_a_plan_goes_by() -> None:
    plain = recipe.resolve(survey_of(1000), (100, 9000), BASE, MACHINE)
    assert plain.context == 4096 and "longer rows lose their beginning" in plain.reasons
    short = recipe.resolve(survey_of(1000), (100, 9000), dataclasses.replace(BASE, context=700), MACHINE)
    assert short.context == 700 and any("the base reads no more" in reason for reason in short.reasons)
    assert (
        plain.neftune == 5 and recipe.resolve(survey_of(1000, "tools"), (9, 99), BASE, MACHINE).neftune == 0
    )
    quiet = recipe.resolve(survey_of(1000), (9, 99), dataclasses.replace(BASE, noise=False), MACHINE)
    assert quiet.neftune == 0 and any("mlx_lm runs this base" in reason for reason in quiet.reasons)
    large = dataclasses.replace(BASE, parameters=8 * GB)
    packed = recipe.resolve(survey_of(1000), (100, 300), large, MACHINE)
    assert packed.qlora and packed.memory_bytes < 16 * GB and not plain.qlora
    lying = recipe.resolve(survey_of(1000), (100, 300), dataclasses.replace(large, packed=True), MACHINE)
    assert not lying.qlora, "what is packed already stays as it is"
    slow = recipe.resolve(survey_of(1000), (100, 300), BASE, dataclasses.replace(MACHINE, gflops=50.0))
    assert slow.seconds == 2 * recipe.resolve(survey_of(1000), (100, 300), BASE, MACHINE).seconds


@pytest.mark.parametrize(
    ("width", "lr"), [(4096, 2e-4), (2048, 2e-4), (1024, 4e-4), (256, 1.6e-3), (32, 5e-3)]
)
def test_a_narrow_base_learns_at_a_higher_rate(width: int, lr: float) -> None:
    plan = recipe.resolve(survey_of(300), (100, 300), dataclasses.replace(BASE, width=width), MACHINE)
    assert plan.lr == pytest.approx(lr) and f"learning rate {lr:g}: a base of width {width}" in plan.reasons


def exact(name: str, score: float) -> EvalRow:
    return EvalRow(
        model_path="", model_name=name, task="held_out", metric="exact_match", score=score, n_examples=10,
        wall_seconds=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "scores", "end"),
    [
        ((2.0, 1.5, 1.0), (0.1, 0.2, 0.5), "The adapter was worth training."),
        ((2.0, 1.0, 1.0), (0.1, 0.5, 0.5), "The adapter beats the base, but examples in the prompt"),
        ((1.0, 1.0, 1.0), (0.5, 0.5, 0.5), "The adapter was not worth training"),
        ((2.0, 1.5, 1.0), (0.9, 0.9, 0.2), "The adapter was not worth training"),
    ],
)
def test_the_verdict(losses: tuple[float, ...], scores: tuple[float, ...], end: str) -> None:
    names = ("base", "base + examples", "adapter")
    means = {name: [loss + 0.01 * (i % 3) for i in range(10)] for name, loss in zip(names, losses)}
    assert worth(means, [exact(n, s) for n, s in zip(names, scores)])[-1].startswith(end)


def judged(base: list[float], examples: list[float], *right: float) -> list[str]:
    names = ("base", "base + examples", "adapter")
    means = dict(zip(names, (base, examples, [1.0 + 0.01 * (i % 3) for i in range(len(base))])))
    return worth(means, [exact(n, s) for n, s in zip(names, right)])


def test_what_was_not_measured_is_not_judged() -> None:
    """Examples that fit no prompt do not "do about as well", and a few rows say nothing."""
    two, none = [2.0] * 10, [math.nan] * 10
    told = judged(two, none, 0.1, 0.0, 0.5)
    assert told[-1].startswith("The adapter was worth training; examples do not fit")
    assert told[-2] == "Exactly right: base 1 of 10, adapter 5 of 10."
    assert "was not measured" in judged(none, none, 0.0, 0.0, 0.0)[-1]
    assert "do better" in judged(two, [0.5] * 10, 0.1, 0.5, 0.5)[-1]
    assert "exactly right" in judged(two, two, 0.0, 0.0, 0.0)[-1]
    told = judged([2.0] * 5, [2.0] * 5, 0.1, 0.1, 0.5)
    assert "5 rows, too few" in told[0] and "so few rows" in told[-1]
    assert "surely lower" in judged([2.0] * 6, [2.0] * 6, 0.1, 0.1, 0.5)[0]


def test_noise_is_not_a_gain() -> None:
    losses = {"adapter": [1.0] * 40, "base": [0.5, 1.5] * 20, "base + examples": [1.5] * 40}
    told = worth(losses, [exact(name, 0.5) for name in losses])
    assert "not surely different" in told[0] and "surely lower" in told[1]
    assert told[-1].startswith("The adapter was not worth training")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "say what to build"),
        ({"demo": True, "data": Path("x")}, "say what to build"),
        ({"demo": True, "strict": True}, "--strict says nothing to the demo"),
        ({"data": Path("x"), "n_train": 5}, "--n-train says nothing to a specialist from nothing"),
        ({"data": Path("x"), "dry_run": True}, "--dry-run says nothing to a specialist from nothing"),
        ({"data": Path("x"), "base": "auto", "minutes": 3.0}, "--minutes says nothing to tuning a base"),
        ({"demo": True, "wait": True, "lock": False}, "--wait"),
    ],
)
def test_settings_that_say_nothing_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        start.Config(**given)
