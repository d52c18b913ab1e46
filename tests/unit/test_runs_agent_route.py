"""A router as the agent asks it: when it is believed, and what it then allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import ConfigError
from tinygpt.data.requests import NOTHING
from tinygpt.router.router import Router
from tinygpt.runs._agent_tools import Route

SAID = {
    "read": ("cat", 0.7),
    "perhaps": ("cat", 0.69),
    "sing": (NOTHING, 0.9),
    "sing perhaps": (NOTHING, 0.6),
    "mail": ("send", 0.99),
}


class Known:
    labels, abstain = ("cat", "rm", "send", NOTHING), NOTHING

    def __call__(self, request: str) -> list[tuple[str, float]]:
        return [SAID[request]]


def route(monkeypatch: pytest.MonkeyPatch, path: Path, names: list[str]) -> Route:
    def opened(path: Path) -> Any:
        return Known()

    monkeypatch.setattr(Router, "open", opened)
    return Route(path, 0.7, names)


@pytest.mark.parametrize(
    ("request_", "allowed"),
    [("read", ["cat"]), ("perhaps", None), ("sing", []), ("sing perhaps", None), ("mail", None)],
)
def test_it_narrows_from_its_threshold_on_and_to_tools_that_are_there(
    request_: str, allowed: list[str] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[dict[str, Any]] = []
    found = route(monkeypatch, tmp_path, ["cat", "rm"])(request_, lambda kind, **more: told.append(more))
    assert found == allowed
    tool, p = SAID[request_]
    assert told == [{"tool": tool, "probability": p, "fired": allowed is not None}]


def test_a_router_of_other_tools_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That nothing serves a request is no tool, even where one is called so."""
    with pytest.raises(ConfigError, match="knows none of the tools: ls, none"):
        route(monkeypatch, tmp_path, ["ls", NOTHING])
