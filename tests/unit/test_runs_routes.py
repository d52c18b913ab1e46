"""The registry of `serve --route`: what is armed, what is not and why, and what is wrong with a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving import tiny_chat_model
from tinygpt.core.errors import ConfigError, TinyGPTError
from tinygpt.core.events import Events, MemorySink, Note
from tinygpt.model import checkpoint
from tinygpt.runs import _prompt_cache, _routes, _served

ROUTE = {"model": "sql", "router": "router", "labels": ["query"], "report": "gate.json"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place with a model and what passes for a router."""
    tiny_chat_model(tmp_path).rename(tmp_path / "sql")
    (tmp_path / "router").mkdir()
    report(tmp_path)
    return tmp_path


def report(folder: Path, **changes: Any) -> None:
    suite = {"baselineScore": 0.5, "candidateScore": 0.6, "direction": "higherIsBetter"}
    own = checkpoint.identity(folder / "sql")
    told = {"passed": True, "suites": [suite], "protocol": {"modelHashes": [own]}} | changes
    (folder / "gate.json").write_text(json.dumps(told))


def read(folder: Path, *routes: dict[str, Any], adapters: Any = (), **more: Any) -> _routes.Plan:
    path = folder / "registry.json"
    path.write_text(json.dumps({"routes": list(routes), **more}))
    return _routes.read(path, _served.Source(models={"big": folder / "big"}, adapters=adapters))


def test_a_route_is_armed_where_its_report_says_that_it_wins(folder: Path) -> None:
    plan = read(folder, ROUTE)
    assert plan.armed == ["sql"] and plan.general == "big"
    assert plan.source.models == {"big": folder / "big", "sql": folder / "sql"}
    assert plan.specialists[0].router == folder / "router" and plan.specialists[0].threshold == 0.7
    assert plan.facts == [{"model": "sql", "armed": True, "reason": "the gate passed"}]
    named = read(folder, {**ROUTE, "model": "mine=sql"}, general="mine")
    assert named.armed == ["mine"] and named.general == "mine"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"passed": False}, "the gate did not pass"),
        ({"suites": []}, "no score is better"),
        ({"suites": [{"baselineScore": 0.5, "candidateScore": 0.5}]}, "no score is better"),
        ({"suites": [{"baselineScore": None, "candidateScore": 0.5}]}, "no score is better"),
        (
            {"suites": [{"baselineScore": 1, "candidateScore": 2, "direction": "lowerIsBetter"}]},
            "no score is better",
        ),
        ({"protocol": {"modelHashes": ["another"]}}, "is of another model"),
        ({"suites": None}, "is no result of eval-gate"),
        ({"suites": ["won"]}, "no score is better"),
        ({"protocol": {}}, "does not say of which"),
        ({"protocol": ["odd"]}, "is no result of eval-gate"),
        ({"protocol": {"modelHashes": ["OWN", "another"]}}, "is of another model"),
        ({"protocol": {"modelHashes": ["OWN"], "adapterHashes": ["one"]}}, "is of other adapters"),
    ],
)
def test_what_does_not_win_is_not_armed(folder: Path, changes: dict[str, Any], why: str) -> None:
    own = checkpoint.identity(folder / "sql")
    report(folder, **json.loads(json.dumps(changes).replace("OWN", own)))
    plan = read(folder, ROUTE)
    assert not plan.armed and why in plan.reasons[0]
    sink = MemorySink()
    plan.tell(Events(sink))
    (note,) = [event for event in sink.events if isinstance(event, Note)]
    assert note.level == "warning" and "route to sql: not armed" in note.text


def test_without_a_report_that_can_be_read_nothing_is_armed(folder: Path) -> None:
    bare = {key: value for key, value in ROUTE.items() if key != "report"}
    assert read(folder, bare).reasons == [_routes.NO_REPORT]
    assert "No such file" in read(folder, {**ROUTE, "report": "none.json"}).reasons[0]
    (folder / "gate.json").write_text("no JSON")
    assert "gate.json" in read(folder, ROUTE).reasons[0]
    (folder / "gate.json").write_bytes(b"\xff")
    assert "gate.json: it is not UTF-8" in read(folder, ROUTE).reasons[0]


def test_a_report_is_of_the_model_with_its_adapters(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "adapter_model.safetensors").write_text(name)
    adapters = [_served.Adapter(name=name, path=folder / name) for name in ("one", "two")]
    hashed = _prompt_cache.worn([folder / "one"])
    own = checkpoint.identity(folder / "sql")
    report(folder, protocol={"modelHashes": [own], "adapterHashes": [hashed]})
    bare = {**ROUTE, "model": "sql"}
    routes = [bare, *({**ROUTE, "model": f"sql+{name}"} for name in ("one", "two"))]
    plan = read(folder, *routes, adapters=adapters)
    assert plan.armed == ["sql+one"] and "of other adapters" in plan.reasons[0]
    always = [_served.Adapter(name="", path=folder / "one")]
    assert read(folder, bare, adapters=always).armed == ["sql"]
    halved = [_served.Adapter(name="", path=folder / "one", weight=0.5)]
    assert not read(folder, bare, adapters=halved).armed
    with pytest.raises(ConfigError, match="unknown adapter 'three'"):
        read(folder, bare, {**ROUTE, "model": "sql+three"}, adapters=adapters)


def test_a_specialist_takes_no_other_models_place(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "sql").rename(folder / "more" / "big")
    with pytest.raises(ConfigError, match="two models are called 'big'"):
        read(folder, {**ROUTE, "model": "more/big"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"router": "none"}, "there is no router at"),
        ({"labels": []}, "has no labels"),
        ({"threshold": 1.5}, "must be in"),
        ({"model": "nowhere"}, "there is nothing at"),
        ({"treshold": 0.5}, "unknown config key"),
    ],
)
def test_what_is_wrong_with_a_registry_is_said(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TinyGPTError, match=message):
        read(folder, {**ROUTE, **changes})
    with pytest.raises(ConfigError, match="unknown model 'other'"):
        read(folder, ROUTE, general="other")
    with pytest.raises(ConfigError, match="has no routes"):
        read(folder)
