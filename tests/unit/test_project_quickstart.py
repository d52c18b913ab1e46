"""Quickstart on one's own rows: a split without overlap, a recipe that fits, words that do not flatter."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nano
from scripted import ScriptedEndpoint
from tinygpt.cli import _specialist
from tinygpt.core.backend import mx
from tinygpt.core.config import fields
from tinygpt.core.errors import ConfigError, DataError, Interrupted
from tinygpt.core.events import Events, MemorySink, Note
from tinygpt.core.rows import EvalRow
from tinygpt.data import rows
from tinygpt.data.rows import Conversation
from tinygpt.data.source import chat
from tinygpt.data.template import _choice
from tinygpt.data.tokenizer import byte
from tinygpt.eval.endpoint import Reply
from tinygpt.infer.engine import Engine
from tinygpt.project import _build, demo, quickstart, start
from tinygpt.runs.evaluate import LocalEndpoint
from tinygpt.train.loop import Result
from tinygpt.train.objective import response


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


@pytest.mark.parametrize(("wanted", "told"), [(2, False), (5, False), (6, True)])
def test_fewer_held_out_rows_than_were_asked_for_are_told(
    wanted: int, told: bool, tmp_path: Path, memory: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.write(tmp_path / "my.jsonl", ({"prompt": f"q{i % 50}", "completion": "a"} for i in range(60)))
    monkeypatch.setattr(quickstart, "choose", stop)
    config = quickstart.Config(data=tmp_path / "my.jsonl", out=tmp_path / "q", n_held_out=wanted)
    with pytest.raises(Stop):
        quickstart.run(config, Events(memory))
    notes = [e.text for e in memory.of(Note) if "kept apart, not" in e.text]
    assert bool(notes) == told
    assert not told or notes[0].startswith("5 of 50 distinct rows are kept apart, not 6: at most a tenth")


def test_nothing_is_made_inside_a_checkpoint(tmp_path: Path) -> None:
    rows.write(tmp_path / "my.jsonl", [{"prompt": "q", "completion": "a"}] * 2)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tinygpt.json").touch()
    with pytest.raises(ConfigError, match="lies inside the checkpoint"):
        quickstart.run(quickstart.Config(data=tmp_path / "my.jsonl", out=tmp_path / "model" / "q"), Events())


class Stop(Exception):
    """Enough was seen."""


def stop(*_: object) -> None:
    raise Stop


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


def both(model: Any, held_out: list[Conversation], path: Path) -> tuple[dict[str, Any], float]:
    """Rows of answer_loss by metric, and the loss of training's objective on the same rows."""
    tokenizer = byte.load(None)
    rows.write(path, ({"messages": c.messages, "tools": c.tools} for c in held_out))
    source = chat.build(chat.Config(paths=(path,), held_out=0), tokenizer, length=256, batch_size=1)
    sums = [0.0, 0.0]
    for i in range(len(source)):
        batch = source[i]
        arrays = {n: mx.array(getattr(batch, n)) for n in ("tokens", "targets", "weights", "positions")}
        arrays["segments"] = mx.array(batch.segments)
        weight = float(batch.weights.sum())
        sums[0] += weight * float(response.build(model).loss(arrays)[0].item())
        sums[1] += weight
    endpoint = LocalEndpoint(Engine(model, tokenizer, _choice.of(tokenizer)), name="m")
    return {r.metric: r for r in quickstart.answer_loss(endpoint, held_out)}, sums[0] / sums[1]


CALL = {"name": "ls", "arguments": {"path": "é"}}


def test_the_answers_loss_is_that_of_training(tmp_path: Path) -> None:
    held_out = [
        talk("What is 2 + 2?", "four"),
        talk("List é.", "", tool_calls=[CALL, CALL]),
        Conversation(messages=[*talk("a", "b").messages, *talk("c", "d").messages]),
    ]
    tokenizer = byte.load(None)
    found, wanted = both(
        nano.model(vocab_size=tokenizer.vocab_size, max_position_embeddings=256),
        held_out,
        tmp_path / "x.jsonl",
    )
    row = found["answer_loss"]
    assert row.score == pytest.approx(wanted, rel=1e-4) and (row.task, row.n_examples) == ("held_out", 3)
    assert found["answer_perplexity"].score == pytest.approx(math.exp(wanted), rel=1e-3)
    call = '<tool_call>\n{"name": "ls", "arguments": {"path": "é"}}\n</tool_call>'
    n_bytes = len(f"four{call}\n{call}bd".encode())
    assert row.settings["n_bytes"] == n_bytes, "markup of turns and prompts are no bytes of the answers"
    bits = wanted * row.settings["n_tokens"] / math.log(2) / n_bytes
    assert found["answer_bits_per_byte"].score == pytest.approx(bits, rel=1e-4)


def test_only_answers_count_and_long_rows_are_counted() -> None:
    class Knows(ScriptedEndpoint):
        """Is sure of answers' tokens only: what comes before them is far from what it expects."""

        def token_logprobs(self, rows: Any) -> list[list[float]]:
            head = len(self.tokenizer.encode("user\nq" + "assistant\n")) + 4
            return [[-9.0] * (head - 1) + [-1e-6] * (len(ids) - head) for ids in rows]

    found = {r.metric: r for r in quickstart.answer_loss(Knows(lambda _: ""), [talk("q"), talk("q" * 99)])}
    assert found["answer_bits_per_byte"].score == pytest.approx(0, abs=1e-5)
    assert found["answer_perplexity"].score == pytest.approx(1, abs=1e-5)
    assert {(r.n_examples, r.n_truncated) for r in found.values()} == {(1, 1)}
    assert quickstart.answer_loss(Knows(lambda _: ""), [talk("q" * 99)]) == []


def test_samples_show_no_markup() -> None:
    said = {"role": "assistant", "content": "So:", "tool_calls": [CALL]}
    trained: Any = SimpleNamespace(endpoint=ScriptedEndpoint(lambda _: said))
    line = '{"name": "ls", "arguments": {"path": "é"}}'
    found = quickstart.answer(trained, talk("q", "", tool_calls=[CALL, CALL]))
    assert found == {"asked": "q", "wanted": f"{line}\n{line}", "said": f"So:\n{line}"}
    assert quickstart.answer(trained, talk("q", "plain"))["wanted"] == "plain"
    trained.endpoint = ScriptedEndpoint(lambda _: Reply.failed("too long"))
    assert quickstart.answer(trained, talk("q"))["said"] == "too long"


def scores(bits: float, exact: float, *, n: int = 40, unended: int = 0) -> list[EvalRow]:
    def row(name: str, metric: str, score: float, **more: int) -> EvalRow:
        return EvalRow(
            model_path="", model_name=name, task="held_out", metric=metric, score=score, n_examples=n,
            wall_seconds=0.0, **more,
        )  # fmt: skip

    return [
        row("untrained", "answer_bits_per_byte", 8.1), row("untrained", "exact_match", 0.0),
        row("trained", "answer_bits_per_byte", bits),
        row("trained", "exact_match", exact, n_truncated=unended),
    ]  # fmt: skip


TRAINED: Any = SimpleNamespace(facts={"parameters": 1_234_567, "training_seconds": 360.0})


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
    lines = quickstart.verdict(scores(2.344, exact, unended=20), TRAINED)
    assert lines[0].endswith("with 2.34 bits a byte; before training it was 8.10.")
    assert lines[1] == f"It answers {right} of 40 held-out rows exactly right."
    assert sentence in lines[2] and len(lines) == 3


@pytest.mark.parametrize(("bits", "unended"), [(4.9, 0), (2.3, 21), (8.1, 40)])
def test_the_verdict_claims_no_form_without_evidence(bits: float, unended: int) -> None:
    lines = quickstart.verdict(scores(bits, 0.0, unended=unended), TRAINED)
    assert lines[2].startswith("It has learned next to nothing yet: ") and "form" not in " ".join(lines)


def test_the_verdict_on_few_rows_and_on_none_that_fits() -> None:
    few = quickstart.verdict(scores(2.3, 1.0, n=19), TRAINED)
    assert few[2] == "So few held-out rows say little; more rows would say more." and len(few) == 4
    unmeasured = [r for r in scores(2.3, 0.0) if r.metric == "exact_match"]
    lines = quickstart.verdict(unmeasured, TRAINED)
    assert lines[0].startswith("No held-out row fits the context") and "next to nothing" in lines[2]


def test_next_steps_fit_what_was_run(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"parameters": 10, "steps": 3, "training_seconds": 2.4, "tokens_per_second": 5, "device": "cpu"}
    rows_ = [("trained", "exact_match", 0.5, 4)]
    found = {"rows": rows_, "samples": [], "verdict": ["Fine."], "facts": facts, "data": "my.jsonl",
             "package": "runs/own/my-tiny", "seconds": 130.0}  # fmt: skip
    _specialist.show_own(found)
    out = capsys.readouterr().out
    assert "3 steps in 2.4 seconds" in out and "everything together took 2.2 minutes" in out
    assert "tinygpt quickstart --data my.jsonl --minutes 30 --out runs/longer" in out
    assert "tinygpt sft BASE --data my.jsonl" in out and "your.jsonl" not in out


@pytest.mark.parametrize("changes", [{"minutes": 0}, {"n_held_out": 0}, {"steps": -1}])
def test_settings_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        quickstart.Config(data=Path("x"), **changes)
    with pytest.raises(ConfigError):
        demo.Config(**changes)
    with pytest.raises(ConfigError):
        demo.Config(n_train=99)


def test_an_interrupted_quickstart_packs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = Result(status="interrupted", step=3, seconds=1.0, metrics={})
    monkeypatch.setattr(_build.sft, "run", lambda *_: stopped)
    with pytest.raises(Interrupted, match="interrupted at step 3 of 9; nothing was packaged") as caught:
        _build.train(
            tmp_path / "rows.jsonl", byte.load(None), tmp_path, demo.RECIPE, tmp_path / "run", Events(),
            minutes=1, steps=9, seed=0,
        )  # fmt: skip
    assert caught.value.exit_code == 130 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("given", "product"), [("--demo", demo), ("--data", quickstart)])
def test_the_command_leaves_defaults_to_the_product(
    given: str, product: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):
        pass

    def run(config: Any, events: Events) -> None:
        raise Reached(config)

    monkeypatch.setattr(product, "run", run)
    rows = tmp_path / "rows.jsonl"
    with pytest.raises(Reached) as reached:
        start.run(start.Config(demo=given == "--demo", data=None if given == "--demo" else rows), Events())
    wanted = product.Config() if product is demo else product.Config(data=rows)
    assert reached.value.args == (wanted,)


def test_the_help_tells_the_defaults() -> None:
    helps = {f.name: f.help for f in fields(start.Config)}
    own = quickstart.Config(data=Path("x"))
    assert f"[{demo.Config().minutes:g}, own rows {own.minutes:g}]" in helps["minutes"]
    assert f"[{demo.Config().n_train}]" in helps["n_train"]
    assert f"{own.n_held_out} rows, {demo.Config().n_held_out} tasks" in helps["n_held_out"]
    assert f"{demo.Config().out}, or {own.out}" in helps["out"]
