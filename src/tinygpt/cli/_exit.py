"""Exit codes: 0 yes, 1 no, 2 usage or an expected error, 70 a bug, 130 interrupted and saved."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import typer

from tinygpt.core.errors import ConfigError, TinyGPTError, nearest, unknown

BUG = 70
INTERRUPTED = 130
# Typer bundles its parser's error classes; the public BadParameter leads to the usage error they all derive
# from.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run(call: Callable[[], int]) -> int:
    """Run a command line and return its exit code; expected errors become one line and a hint on stderr."""
    try:
        code = call()
        sys.stdout.flush()
        return code
    except TinyGPTError as error:
        return _say(error.message, error.hint, error.exit_code)
    except UsageError as error:
        return _usage(error)
    except typer.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", "", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our pipe left; point stdout elsewhere so that the interpreter does not complain at
        # exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        import traceback

        traceback.print_exc()
        return _say(
            "this is a bug in tinygpt, not in what you typed", "please report it with the lines above", BUG
        )


def unknown_command(name: str, known: Sequence[str]) -> TinyGPTError:
    """The error for a command that does not exist."""
    return ConfigError(
        f"there is no command '{name}'.{nearest(name, known)}", hint="tinygpt --help lists all of them"
    )


def unknown_option(command: str, name: str, known: Sequence[str]) -> TinyGPTError:
    """The error for an option that does not exist."""
    return ConfigError(
        f"{command} has no option {name}.{nearest(name, known)}", hint=f"{command} --help lists them"
    )


def bad_choice(kind: str, name: str, known: Sequence[str]) -> TinyGPTError:
    """The error for a value that is not in a list."""
    return unknown(kind, name, known)


def _usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "tinygpt"
    option = getattr(error, "option_name", None)
    if option is not None and context is not None and type(error).__name__ == "NoSuchOption":
        flags = ["--help", *(flag for p in context.command.params for flag in (*p.opts, *p.secondary_opts))]
        better = unknown_option(command, option, flags)
        return _say(better.message, better.hint, 2)
    return _say(error.format_message(), f"see {command} --help", 2)  # type: ignore[attr-defined]


def _say(message: str, hint: str, code: int) -> int:
    label = "tinygpt" if code == INTERRUPTED else "error"
    print(f"{label}: {message}", file=sys.stderr)
    if hint:
        print(f"  hint: {hint}", file=sys.stderr)
    return code
