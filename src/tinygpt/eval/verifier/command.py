"""A command that reads an answer on stdin: its exit code says yes or no, or it prints a number.

It is run without a shell; the prompt is in the environment as TINYGPT_PROMPT. Exit code 0 is 1, any other 0;
where the last line that it prints is a number, and it exits with 0, that is the score. What takes too long
has the lowest score.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import ConfigError
from tinygpt.eval.verifier._candidate import Candidate, Case, Judging, Verify


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is run."""

    command: Annotated[str, "Command line; for pipes and the like: sh -c '...'."]
    seconds: Annotated[float, "Longest time for an answer."] = 10.0

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise ConfigError(f"'{self.command}' is no command line: {error}") from error
        if not words:
            raise ConfigError("the verifier's command is empty", hint="give --command 'program arguments'")
        if self.seconds <= 0:
            raise ConfigError(f"seconds must be positive, got {self.seconds:g}")


def build(judging: Judging, config: Config) -> Verify:
    """One process an answer, one after another."""
    words = shlex.split(config.command)

    def one(case: Case, text: str) -> float:
        surroundings = {**os.environ, "TINYGPT_PROMPT": case.text}
        try:
            done = subprocess.run(
                words,
                input=text.encode(),
                capture_output=True,
                timeout=config.seconds,
                env=surroundings,
                check=False,
            )
        except subprocess.TimeoutExpired:
            judging.failed(f"{words[0]} took longer than {config.seconds:g} seconds")
            return float("-inf")
        except OSError as error:
            raise ConfigError(
                f"cannot run the verifier {words[0]}: {error.strerror or error}", hint="check --command"
            ) from error
        if done.returncode:
            return 0.0
        lines = done.stdout.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        try:
            score = float(last)
        except ValueError:
            return 1.0
        return score if math.isfinite(score) else 1.0

    def verify(case: Case, candidates: Sequence[Candidate]) -> list[float]:
        return [one(case, candidate.text) for candidate in candidates]

    return verify
