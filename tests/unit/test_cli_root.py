"""The root command: the front page, completion, and what is typed wrongly."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tinygpt.cli import _root


def complete(line: str, word: int) -> list[str]:
    """What the shell is offered for a word of a line."""
    environment = {"COMP_WORDS": line, "COMP_CWORD": str(word), "_TINYGPT_COMPLETE": "complete_bash"}
    command = [sys.executable, "-m", "tinygpt"]
    out = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=True
    )
    return out.stdout.split()


def test_the_shell_completes_commands_and_options() -> None:
    assert complete("tinygpt ev", 1) == ["eval", "eval-compare"]
    assert "--optimizer" in complete("tinygpt train --opt", 2)
    assert complete("tinygpt train --optimizer ad", 3) == ["adamw"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_shown(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _root.dispatch(["--show-completion", shell]) == 0
    assert "_TINYGPT_COMPLETE" in capsys.readouterr().out


def test_the_front_page_names_every_command_with_its_first_line() -> None:
    page = _root.help_page()
    for command in _root.commands().values():
        assert f"{command.name:<16} {command.summary}" in page


def test_nothing_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert _root.dispatch([]) == 2
    assert "quickstart --demo" in capsys.readouterr().err
