"""The root command: the front page, completion, and what is typed wrongly."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tinygpt.cli import _exit, _root
from tinygpt.core.errors import ConfigError


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


def test_words_that_are_not_utf8_are_named() -> None:
    with pytest.raises(ConfigError, match=r"word 3 of the command line, '\\udcff', is not UTF-8"):
        _root.dispatch(["sample", "--prompt", "\udcff"])


def tinygpt(*words: str, stdout: int, stdin: bytes = b"") -> tuple[int, str]:
    """The exit code and stderr of a real process."""
    command = [sys.executable, "-m", "tinygpt", *words]
    done = subprocess.run(command, input=stdin, stdout=stdout, stderr=subprocess.PIPE)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("words", [("explain",), ("--help",), ("explain", "adamw")])
def test_a_reader_that_left_is_no_failure(words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert tinygpt(*words, stdout=writer) == (0, "")
    finally:
        os.close(writer)


def test_typer_turning_a_broken_pipe_into_an_exit_is_undone() -> None:
    def call() -> int:
        try:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        except OSError:
            sys.exit(1)

    assert _exit.run(call) == 0
    with pytest.raises(SystemExit):
        _exit.run(lambda: sys.exit(3))


def test_an_answer_outlives_the_reader_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def no() -> int:
        raise typer.Exit(1)

    monkeypatch.setattr(sys, "stdout", Left())
    assert _exit.run(no) == 1


@pytest.mark.parametrize("words", [("explain",), ("--help",)])
def test_output_that_does_not_fit_is_one_line(words: tuple[str, ...], tmp_path: Path) -> None:
    # A limit of zero bytes on files fails as a full disk does, on every system.
    command = ["sh", "-c", 'ulimit -f 0; exec "$0" "$@"', sys.executable, "-m", "tinygpt", *words]
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    said = ["error: cannot write the output: " + os.strerror(errno.EFBIG), "  hint: is the disk full?"]
    assert (done.returncode, done.stderr.splitlines()) == (2, said)
