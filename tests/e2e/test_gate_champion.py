"""The champion of the judgement fixtures: it goes only where it is beaten on all three kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import row_suites
from e2e.shell import tinygpt
from fake_openai import FakeOpenAI, chat
from tinygpt.core.rows import read_rows
from tinygpt.eval.suites import judgement

GATE = Path(row_suites.FIXTURES) / "champion-gate.json"
KINDS = ("ambiguous", "out_of_scope", "destructive")


class Planner:
    """A server that is right on the first fixtures of each kind, as many as it is told."""

    def __init__(self, folder: Path, **change: Any) -> None:
        self.items = judgement.load(judgement.Config(data=row_suites.FIXTURES)).items
        self.right: dict[str, int] = {}
        self.folder, self.change = folder, change

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/models"):
            return {"data": [{"id": name} for name in ("first", "second")]}
        item = next(one for one in self.items if one["messages"] == body["messages"])
        kind = judgement.KINDS.get(item["intent"], "ordinary")
        mine = [one["id"] for one in self.items if one["intent"] == item["intent"]]
        return chat(
            judgement.gold(item) if mine.index(item["id"]) < self.right.get(kind, 0) else "I cannot say."
        )

    def gate(self, name: str, *right: int, update: bool = True) -> tuple[int, Any]:
        """The exit code and the result of the gate with a planner that has so many right of each kind."""
        self.right = dict(zip(KINDS, right, strict=True))
        spec = json.loads(GATE.read_text(encoding="utf-8"))
        spec["suites"][0] |= {"options": {"data": str(row_suites.FIXTURES)}, **self.change}
        with FakeOpenAI(self.answer).serving() as server:
            spec |= {"url": server.url, "model": name}
            (self.folder / "eval-gate.json").write_text(json.dumps(spec), encoding="utf-8")
            words = ["--update-baseline"] if update else []
            out = self.folder / "result.json"
            done = tinygpt("eval-gate", "--spec", self.folder / "eval-gate.json", "--out", out, *words)
        return done.code, json.loads(out.read_text(encoding="utf-8"))

    @property
    def champion(self) -> set[str]:
        return {row.model_name for row in read_rows(self.folder / "champion.jsonl")[0]}


def test_a_champion_goes_only_where_it_is_beaten_on_every_kind(tmp_path: Path) -> None:
    planner = Planner(tmp_path)
    code, found = planner.gate("first", 4, 10, 6)
    assert code == 0 and [one["verdict"] for one in found["suites"]] == ["new"] * 3
    assert planner.champion == {"first"}
    code, found = planner.gate("second", 20, 20, 7)  # ahead on the third kind too, and that may be chance
    verdicts = {one["subtask"]: one["verdict"] for one in found["suites"]}
    assert code == 1 and verdicts == {"ambiguous": "pass", "out_of_scope": "pass", "destructive": "fail"}
    (why,) = (one["why"] for one in found["suites"] if one["verdict"] == "fail")
    assert "may be chance (p = 0.5)" in why and planner.champion == {"first"}
    code, found = planner.gate("second", 9, 15, 11)
    assert code == 0 and planner.champion == {"second"}, found
    scores = {one["subtask"]: one["candidateScore"] for one in found["suites"]}
    assert scores == {"ambiguous": 0.45, "out_of_scope": 0.75, "destructive": 0.55}


@pytest.mark.parametrize(
    ("wants", "right", "code", "why"),
    [
        ({"wants": "ahead"}, (5, 11, 7), 0, None),
        ({"wants": "ahead"}, (20, 20, 6), 1, "it is not ahead of the champion"),
        ({"wants": "ahead", "threshold": 10}, (6, 12, 7), 1, "it is not ahead of the champion by 10 pp"),
        ({"wants": "level"}, (4, 10, 6), 0, None),
        ({"wants": "level"}, (20, 20, 5), 1, "it is below the champion"),
        ({"wants": "win"}, (4, 10, 6), 1, "it is not ahead of the champion"),
    ],
)
def test_what_a_candidate_must_show(
    tmp_path: Path, wants: dict[str, Any], right: tuple[int, ...], code: int, why: str | None
) -> None:
    planner = Planner(tmp_path, **wants)
    assert planner.gate("first", 4, 10, 6)[0] == 0
    got, found = planner.gate("second", *right, update=False)
    of = {one["subtask"]: one for one in found["suites"]}
    assert got == code and of["destructive"]["why"] == why and planner.champion == {"first"}


def test_a_champion_of_other_fixtures_is_not_replaced(tmp_path: Path) -> None:
    planner = Planner(tmp_path)
    assert planner.gate("first", 4, 10, 6)[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "champion.jsonl").read_text().splitlines()]
    told = "".join(json.dumps(row | {"data_version": "other"}) + "\n" for row in rows)
    (tmp_path / "champion.jsonl").write_text(told)
    code, found = planner.gate("second", 20, 20, 20)
    assert code == 2 and "has the version" in found["suites"][0]["why"] and planner.champion == {"first"}
