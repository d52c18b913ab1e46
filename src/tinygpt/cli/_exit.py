"""Exit codes: 0 yes, 1 no, 2 usage or an expected error, 70 a bug, 130 interrupted."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

import typer

from tinygpt.core.errors import ConfigError, TinyGPTError, nearest

BUG = 70
INTERRUPTED = 130
# Options of the original that are something else here, and what to do instead. PLAN.md lists them.
INSTEAD: Mapping[str, str] = {
    "tinygpt merge --models": "name them after the command: tinygpt merge A B --out OUT",
    **dict.fromkeys(
        (f"tinygpt hf-load --{name}" for name in ("sample", "prompt", "tokens", "temperature", "lora")),
        "it opens and copies; to continue a text: tinygpt sample DIR --prompt TEXT [--adapter ADAPTER]",
    ),
    **dict.fromkeys(
        (f"tinygpt agent --{name}" for name in ("lazy-embedding", "no-async-load", "no-kv-preallocate")),
        "leave it out: weights are read as they are needed, and the cache grows with the conversation",
    ),
    "tinygpt compress --adapter": "--kind head --model DIR: a reranker of rerank-train chooses the sentences",
    "tinygpt rerank-eval --model": "a model is named after the command, a reranker as --reranker DIR",
    "tinygpt distill --mode": "--loss NAME says how the teacher is followed; labels alone: --alpha 0",
    "tinygpt extractor-data --synth-provider": "--synth-url URL: any OpenAI-compatible server",
    "tinygpt prep-data --quality-filter": "a stage in the --config file: name = 'quality', model = DIR",
    "tinygpt prep-data --tools": "tinygpt extractor-data --tools FILE",
    "tinygpt prep-data --num-workers": "leave it out: rows pass one by one, in their order",
    "tinygpt train --min-lr": "--set schedule.final=F: the last learning rate as a fraction of --lr",
    "tinygpt train --log-jsonl": "leave it out: every step is a line of events.jsonl in --out",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
# Typer bundles its parser's error classes; the public BadParameter leads to the usage error they all derive
# from.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run(call: Callable[[], int]) -> int:
    """Run a command line and return its exit code; expected errors become one line and a hint on stderr."""
    code = _run(call)
    try:
        sys.stdout.flush()  # here, since the interpreter's own flush at exit can only complain
    except OSError as error:
        return _lost(error, code)
    return code


def _run(call: Callable[[], int]) -> int:
    try:
        return call()
    except TinyGPTError as error:
        return _say(error.message, error.hint, error.exit_code)
    except UsageError as error:
        return _usage(error)
    except typer.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):  # a run that saves when it is stopped ends otherwise
        return _say("interrupted; nothing more was saved", "", INTERRUPTED)
    except Exception as error:
        if (refused := _refused(error)) is not None:
            return refused
        import traceback

        traceback.print_exc()
        return _say(
            "this is a bug in tinygpt, not in what you typed", "please report it with the lines above", BUG
        )


def _refused(error: Exception) -> int | None:
    """The exit code when the system refused a file or a stream: that is no bug. None for all else."""
    cause = error.__context__
    if isinstance(error, RuntimeError) and isinstance(cause, OSError) and cause.errno == errno.ELOOP:
        error = cause  # Path.resolve() makes that of a loop of links
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.EPIPE, *FULL):
        return _lost(error, 0)
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return None
    name = os.fsdecode(error.filename)
    shown = name if len(name) < 300 else f"{name[:300]}..."
    return _say(f"cannot read or write {shown}: {error.strerror}", "check the path and its permissions", 2)


def _lost(error: OSError, code: int) -> int:
    """The exit code when output could not be written: `code` when its reader left, else an error."""
    if error.filename is None:
        _discard(sys.stdout)
    if error.errno == errno.EPIPE:
        return code
    what = error.filename or "the output"
    return _say(f"cannot write {what}: {error.strerror or error}", "is the disk full?", 2)


def _discard(stream: TextIO) -> None:
    """Point a stream elsewhere, so that the interpreter does not complain when it flushes at exit."""
    with contextlib.suppress(OSError):  # a stream in memory has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def unknown_command(name: str, known: Sequence[str]) -> TinyGPTError:
    """The error for a command that does not exist."""
    return ConfigError(
        f"there is no command '{name}'.{nearest(name, known)}", hint="tinygpt --help lists all of them"
    )


def unknown_option(command: str, name: str, known: Sequence[str]) -> TinyGPTError:
    """The error for an option that does not exist."""
    if hint := INSTEAD.get(f"{command} {name}"):
        return ConfigError(f"{command} has no option {name}", hint=hint)
    return ConfigError(
        f"{command} has no option {name}.{nearest(name, known)}", hint=f"{command} --help lists them"
    )


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
    from tinygpt.cli._render import line

    label = "tinygpt" if code == INTERRUPTED else "error"
    try:
        line(f"{label}: {message}", sys.stderr)
        if hint:
            line(f"  hint: {hint}", sys.stderr)
    except OSError:  # nobody can be told, but the exit code still says it
        _discard(sys.stderr)
    return code
