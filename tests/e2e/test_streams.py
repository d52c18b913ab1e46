"""Completion in the shell, and streams that are closed, left or full, from processes of their own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest


def complete(line: str, word: int) -> list[str]:
    """What the shell is offered for a word of a line."""
    environment = {"COMP_WORDS": line, "COMP_CWORD": str(word), "_TINYGPT_COMPLETE": "complete_bash"}
    command = [sys.executable, "-m", "tinygpt"]
    out = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=True
    )
    return out.stdout.split()


def test_the_shell_completes_commands_and_options() -> None:
    assert complete("tinygpt eval-g", 1) == ["eval-gate", "eval-gsm8k"]
    assert "--optimizer" in complete("tinygpt train --opt", 2)
    assert complete("tinygpt train --optimizer mu", 3) == ["muon"]


@pytest.mark.parametrize(
    ("closed", "words", "code"),
    [(">&-", "doctor", 0), ("<&-", "sample nowhere --prompt -", 2), (">&- 2>&-", "sample nowhere", 2)],
)
def test_closed_streams_are_no_failure(closed: str, words: str, code: int) -> None:
    command = ["sh", "-c", f'exec "$0" -m tinygpt {words} {closed}', sys.executable]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()[:1]] == ["error"] * ("<" in closed)


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


@pytest.mark.parametrize("words", [("explain",), ("--help",)])
def test_output_that_does_not_fit_is_one_line(words: tuple[str, ...], tmp_path: Path) -> None:
    # A limit of zero bytes on files fails as a full disk does, on every system.
    command = ["sh", "-c", 'ulimit -f 0; exec "$0" "$@"', sys.executable, "-m", "tinygpt", *words]
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    said = ["error: cannot write the output: " + os.strerror(errno.EFBIG), "  hint: is the disk full?"]
    assert (done.returncode, done.stderr.splitlines()) == (2, said)
