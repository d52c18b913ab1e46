"""Every error a user can meet: one message, one hint, one exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TinyGPTError(Exception):
    """An expected failure. The message says what, where and what was expected; the hint says what to do."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(TinyGPTError):
    """A flag, config key or combination of them is wrong."""


class TooLongError(ConfigError):
    """A prompt of `n` tokens does not fit into a context of `most`."""

    def __init__(self, n: int, most: int) -> None:
        super().__init__(
            f"the prompt has {n} tokens and leaves no room in a context of {most}",
            hint="shorten it, or use a model with a longer context",
        )
        self.n, self.most = n, most


class DataError(TinyGPTError):
    """Input text, rows or a tokenizer are missing or do not fit."""


class CheckpointError(TinyGPTError):
    """A checkpoint directory is not whole, not ours, or not of this version."""


class UnsupportedError(TinyGPTError):
    """The request is clear, but this build or back end cannot do it."""


class SandboxError(UnsupportedError):
    """A program that nobody has read cannot be kept in on this machine, so it is not run."""


class RemoteError(TinyGPTError):
    """A hub, teacher or cloud endpoint failed."""


class UnknownModel(TinyGPTError):
    """No served model has this name."""


class BusyError(TinyGPTError):
    """Too much is asked for at once; later it would be answered."""


class LockedError(TinyGPTError):
    """Another process holds the GPU."""


class GateFailed(TinyGPTError):
    """The answer is no: a gate regressed or two things differ."""

    exit_code = 1


class Interrupted(TinyGPTError):
    """SIGINT or SIGTERM ended a run after it saved."""

    exit_code = 130


class DependencyError(TinyGPTError):
    """An optional package is missing; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}'", hint=f"pip install 'tinygpt[{extra}]'")


def nearest(name: str, names: Iterable[str]) -> str:
    """A sentence with the nearest known names, or an empty string: " Did you mean 'adamw'?"."""
    close = difflib.get_close_matches(name, list(names), n=2, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def unknown(kind: str, name: str, names: Iterable[str]) -> ConfigError:
    """The error for a name that is not in a list: says the nearest names and lists all of them."""
    known = sorted(names)
    return ConfigError(f"unknown {kind} '{name}'.{nearest(name, known)}", hint=f"known: {', '.join(known)}")
