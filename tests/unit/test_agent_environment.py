"""What a tool got of the environment is in nothing that it says."""

from __future__ import annotations

import http.server
import sys
from pathlib import Path

import pytest

from unit.test_agent_tools import called, saying, serving, tool
from unit.test_agent_tools import work as work


def test_what_the_environment_gave_is_hidden_in_what_a_tool_says(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shape of a key is needed: the value itself is known."""
    monkeypatch.setenv("SERVICE_KEY", "correct horse")
    monkeypatch.setenv("PLACE", str(work))
    show = "import os, sys; print(os.environ); print(os.environ, file=sys.stderr)"
    program = called(tool(work, _exec_args=[sys.executable, "-c", show], _env=["SERVICE_KEY", "PLACE"]))
    for said in (program.stdout, program.stderr):
        assert "correct horse" not in said and "'[SERVICE_KEY]'" in said and str(work) in said

    def echo(to: http.server.BaseHTTPRequestHandler) -> None:
        saying(200, to.headers["X-Key"].encode())(to)

    with serving(echo) as (url, _):
        http_ = {"url": f"{url}/x", "headers": {"X-Key": "${SERVICE_KEY}"}}
        assert called(tool(work, _env=["SERVICE_KEY"], _http=http_)).stdout == "[SERVICE_KEY]"
