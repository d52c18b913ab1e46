"""A packaged specialist: what is in it, and that its lock notices every change."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import nano
from tinygpt.core.errors import CheckpointError, DataError
from tinygpt.core.rows import EvalRow
from tinygpt.data.template import chatml
from tinygpt.infer.engine import Piece
from tinygpt.model import checkpoint
from tinygpt.project import specialist
from tinygpt.runs import _conversation, _package, generate, inspect

CARD = specialist.Card(
    name="adder-tiny", summary="It adds.", data="60 sums.", recipe={"command": "tinygpt quickstart"},
    facts={"training_minutes": 1.5}, limits=("Single digits.",), use="`tinygpt chat DIRECTORY`",
    turns=1,
)  # fmt: skip
ROW = EvalRow(
    model_path="m", model_name="trained", task="sums", metric="exact_match", score=0.5, n_examples=60,
    wall_seconds=1.0, interval=(0.38, 0.62),
)  # fmt: skip

BITS = EvalRow(
    model_path="m", model_name="trained", task="sums", metric="answer_perplexity", score=626.14159,
    n_examples=60, wall_seconds=1.0,
)  # fmt: skip


@pytest.fixture
def package(tmp_path: Path) -> Path:
    model = checkpoint.save(tmp_path / "model", nano.model())
    return specialist.package(
        tmp_path / "adder-tiny", model, CARD, [ROW, BITS], prompt="Add.", tools=[{"type": "function"}]
    )


def test_what_is_in_it(package: Path) -> None:
    lock = specialist.verify(package)
    assert lock["schema"] == specialist.SCHEMA and lock["name"] == "adder-tiny"
    on_disk = {str(p.relative_to(package)) for p in package.rglob("*") if p.is_file()}
    assert set(lock["files"]) == on_disk - {specialist.LOCK}
    checkpoint.validate(package / "model")
    card = (package / "model_card.md").read_text()
    assert card.startswith("# adder-tiny\n\nIt adds.\n")
    assert "| sums (trained) | exact_match | 50.0% | 38.0% to 62.0% | 60 |" in card
    assert "| sums (trained) | answer_perplexity | 626.1 | - | 60 |" in card
    assert "- training minutes: 1.5" in card and "- command: tinygpt quickstart" in card
    assert "- Single digits." in card and (package / "prompt.md").read_text() == "Add.\n"
    report = json.loads((package / "eval_report.json").read_text())
    assert report["scores"][0]["interval"] == [0.38, 0.62] and report["recipe"] == CARD.recipe
    assert json.loads((package / "tools.json").read_text()) == [{"type": "function"}]


def swap_byte(package: Path) -> None:
    file = package / "model" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def edit_prompt(package: Path) -> None:
    (package / "prompt.md").write_text("Bdd.\n")


def lose_card(package: Path) -> None:
    (package / "model_card.md").unlink()


def lose_lock(package: Path) -> None:
    (package / specialist.LOCK).unlink()


def break_lock(package: Path) -> None:
    (package / specialist.LOCK).write_text("{")


def add_file(package: Path) -> None:
    (package / "model" / "more.safetensors").write_text("")


def empty_lock(package: Path) -> None:
    (package / specialist.LOCK).write_text("[]")


def sizeless_lock(package: Path) -> None:
    lock = package / specialist.LOCK
    lock.write_text(lock.read_text().replace('"bytes"', '"size"'))


def far_lock(package: Path) -> None:
    lock = package / specialist.LOCK
    lock.write_text(lock.read_text().replace('"prompt.md"', '"../rows.jsonl"'))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap_byte, r"model/model\.safetensors is not the file that was locked"),
        (edit_prompt, r"prompt\.md is not the file that was locked"),
        (lose_card, r"lacks model_card\.md, which its lock lists"),
        (lose_lock, r"has no tinygpt\.lock\.json"),
        (break_lock, r"tinygpt\.lock\.json cannot be read"),
        (add_file, r"holds model/more\.safetensors, which its lock does not list"),
        (empty_lock, r"tinygpt\.lock\.json does not list files with their sizes"),
        (sizeless_lock, r"tinygpt\.lock\.json does not list files with their sizes"),
        (far_lock, r"tinygpt\.lock\.json lists \.\./rows\.jsonl, which lies outside"),
    ],
)
def test_a_change_is_noticed(damage: Callable[[Path], None], message: str, package: Path) -> None:
    damage(package)
    with pytest.raises(CheckpointError, match=message):
        specialist.verify(package)
    with pytest.raises(CheckpointError, match=message):
        inspect.validate(package)


def test_validate_checks_the_lock_and_the_model(package: Path) -> None:
    found = inspect.validate(package)
    assert (found["verdict"], found["path"]) == ("OK", str(package / "model"))
    assert inspect.validate(package / "model")["verdict"] == "OK"


def test_an_existing_package_is_replaced_only_on_request(package: Path) -> None:
    from tinygpt.core.errors import ConfigError

    before = (package / specialist.LOCK).read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        specialist.package(package, package / "model", CARD, [], prompt="")
    assert (package / specialist.LOCK).read_bytes() == before
    specialist.package(package, package / "model", CARD, [], prompt="New.", replace=True)
    assert specialist.verify(package) and (package / "prompt.md").read_text() == "New.\n"


def test_the_shipped_specialists_are_whole_and_small() -> None:
    shipped = [
        path.parent for path in (Path(__file__).parents[2] / "specialists").glob("*/" + specialist.LOCK)
    ]
    assert shipped, "specialists/ holds at least one package"
    for package in shipped:
        assert specialist.verify(package)
        assert inspect.validate(package)["verdict"].startswith("OK")
        assert sum(p.stat().st_size for p in package.rglob("*") if p.is_file()) <= 8_000_000
        report = json.loads((package / "eval_report.json").read_text(encoding="utf-8"))
        card = (package / "model_card.md").read_text(encoding="utf-8")
        trained = [row for row in report["scores"] if row["model_name"] == "trained"]
        assert trained and all(f"{row['score']:.1%}" in card for row in trained)
        assert str(report["recipe"]["command"]) in card
        assert {row["model_path"] for row in report["scores"]} == {"", "model"}, (
            "no path of the maker's machine"
        )


def test_a_broken_lock_bounds_no_conversation(tmp_path: Path) -> None:
    for text in ("{", "[]", "[" * 100_000, '{"turns": "x"}'):
        (tmp_path / _package.LOCK).write_text(text)
        assert _package.turns(tmp_path) == 0


class Scripted:
    """An engine that answers "ok"; a letter is a token."""

    context = 100
    template = chatml

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def limit(self, config: object) -> int:
        return self.context

    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        self.seen.append([m["content"] for m in messages if m["role"] == "user"])
        return [0] * sum(len(m["content"]) for m in messages)

    def request(self, ids: list[int], config: object) -> list[int]:
        return ids


class AtOnce:
    """A lane of it."""

    def __init__(self, engine: Scripted) -> None:
        self.engine = engine

    def submit(self, request: list[int], deliver: Callable[[Piece], None]) -> SimpleNamespace:
        deliver(Piece(text="ok", token=0, finish_reason="stop"))
        return SimpleNamespace(finish_reason="stop")

    def end_all(self) -> None:
        """Nothing grows."""


def test_a_message_that_is_too_long_costs_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Scripted()
    monkeypatch.setattr(_conversation, "open_engine", lambda *_: engine)
    monkeypatch.setattr(_conversation.ChatConfig, "lane", lambda _, engine, *__: AtOnce(engine))
    talk = generate.Conversation(generate.ChatConfig(model=Path("m"), system="Add."))
    for letter in "abcd":  # 75 letters fit beside an answer
        assert "".join(talk.say(letter * 20)) == "ok"
    assert engine.seen[-1] == ["b" * 20, "c" * 20, "d" * 20] and talk.n_forgotten == 1
    before = list(talk.messages)
    with pytest.raises(DataError, match="the message has 76 tokens and leaves no room"):
        list(talk.say("e" * 72))
    assert talk.messages == before and talk.n_forgotten == 1
    assert "".join(talk.say("f" * 71)) == "ok"
    assert engine.seen[-1] == ["f" * 71] and talk.n_forgotten == 4


@pytest.mark.parametrize(("turns", "shown"), [(1, ["c"]), (2, ["b", "c"]), (0, ["a", "b", "c"])])
def test_a_chat_shows_no_more_turns_than_training_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int, shown: list[str]
) -> None:
    engine = Scripted()
    monkeypatch.setattr(_conversation, "open_engine", lambda *_: engine)
    monkeypatch.setattr(_conversation.ChatConfig, "lane", lambda _, engine, *__: AtOnce(engine))
    card = dataclasses.replace(CARD, turns=turns)
    model = checkpoint.save(tmp_path / "model", nano.model())
    folder = specialist.package(tmp_path / "p", model, card, [ROW], prompt="Add.")
    talk = generate.Conversation(generate.ChatConfig(model=folder))
    for text in "abc":
        assert "".join(talk.say(text)) == "ok"
    assert engine.seen[-1] == shown
    assert talk.messages[0] == {"role": "system", "content": "Add."}
