"""The root command: lists the folder, imports one command when it is called, turns errors into exit codes."""

from __future__ import annotations

import ast
import codecs
import functools
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from tinygpt.cli import _exit
from tinygpt.core.errors import ConfigError, DataError, unknown

FOLDER = Path(__file__).parent
# Headings in the order of a person's first day; a house test checks that every folder is named here.
HEADINGS = {
    "start": "Start here",
    "data": "Make and clean data",
    "model": "Train and use a model",
    "tune": "Tune",
    "distill": "Distill",
    "convert": "Bring models in and out",
    "agent": "Agent and router",
    "evaluate": "Evaluate",
    "look": "Look inside and measure",
}


class Command(TyperCommand):
    """A command that shows a default as options made from a config do: [10], not [default: 10]."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from tinygpt.cli._options import shown

        super().__init__(*args, **kwargs)
        for option in self.params:
            if isinstance(option, TyperOption) and option.show_default is True:
                option.show_default = False
                if default := shown(option.default):
                    option.help = f"{option.help} [{default}]"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does, but an empty text is no path: Path("") would be the current directory."""
        typed = self.make_parser(ctx).parse_args(list(args))[0]
        rest = super().parse_args(ctx, args)
        for param in self.params:
            given, value = typed.get(param.name), ctx.params.get(param.name or "")
            if "" in _each(given) and any(isinstance(one, Path) for one in _each(value)):
                raise ConfigError(
                    f"'{param.opts[0]}' is empty, a path was expected", hint="'.' is the current directory"
                )
        return rest


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


@dataclass(frozen=True)
class CommandFile:
    """A command as the folder tells it, without importing it."""

    name: str
    heading: str
    module: str
    path: Path

    @property
    def summary(self) -> str:
        with self.path.open(encoding="utf-8") as file:
            return file.readline().strip().strip('"').strip()

    def add_to(self, app: typer.Typer) -> None:
        """Import the command's file and register its `main`. Its docstring is the help, example included."""
        text = ast.get_docstring(ast.parse(self.path.read_text(encoding="utf-8"))) or ""
        # \b keeps the lines of an example as they are written; prose is wrapped.
        text = re.sub(r"\n\n(?= )", "\n\n\b\n", text)
        names = {"help_option_names": ["--help", "-h"]}
        main = importlib.import_module(self.module).main
        app.command(self.name, cls=Command, help=text, context_settings=names)(main)


@functools.cache
def commands() -> dict[str, CommandFile]:
    """Every command by its public name, in the order of the headings."""
    found: dict[str, CommandFile] = {}
    for heading in HEADINGS:
        for path in sorted((FOLDER / heading).glob("[!_]*.py")):
            name = path.stem.replace("_", "-")
            found[name] = CommandFile(name, heading, f"tinygpt.cli.{heading}.{path.stem}", path)
    return found


def build(*names: str, completion: bool = False) -> typer.Typer:
    """A Typer app that holds the named commands for real; nothing else is imported."""
    app = typer.Typer(add_completion=completion, rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.callback()
    def root() -> None:  # makes a group of it even when it holds a single command
        """tinygpt: build, prove and serve a small specialist model on your own machine."""

    for name in names:
        commands()[name].add_to(app)
    return app


def help_page() -> str:
    """`tinygpt --help`, made from the first lines of the files."""
    lines = [
        "tinygpt: build, prove and serve a small specialist model on your own machine.",
        "",
        "Usage: tinygpt COMMAND [OPTIONS]      (tinygpt COMMAND --help: its options and an example)",
    ]
    for heading, title in HEADINGS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {c.name:<16} {c.summary}" for c in commands().values() if c.heading == heading]
    lines += [
        "",
        "Options:",
        "  --version                 Show the version.",
        "  --show-completion SHELL   Print the tab-completion script of bash, zsh or fish.",
        "",
        "First time here? Try: tinygpt quickstart --demo",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "_TINYGPT_COMPLETE" in os.environ:
        _complete()
    _open_streams()
    _strict_stdin()
    sys.exit(_exit.run(lambda: dispatch(arguments)))


def dispatch(arguments: list[str]) -> int:
    """Run one command line; errors pass through as exceptions."""
    for number, word in enumerate(arguments, 1):
        try:
            word.encode("utf-8")
        except UnicodeEncodeError as error:  # Python keeps such bytes as halves of surrogate pairs
            raise ConfigError(f"word {number} of the command line, {ascii(word)}, is not UTF-8") from error
    match arguments:
        case []:
            print(help_page(), file=sys.stderr)
            return 2
        case ["-h" | "--help" | "help", name, *_] if not name.startswith("-"):
            return dispatch([name, "--help"])
        case ["-h" | "--help" | "help", *_]:
            print(help_page())
            return 0
        case ["--version", *_]:
            import tinygpt

            print(f"tinygpt {tinygpt.__version__}")
            return 0
        case ["--show-completion", *rest]:
            return _show_completion(rest[0] if rest else Path(os.environ.get("SHELL", "bash")).name)
        case [name, *_] if name.startswith("-"):
            raise _exit.unknown_option("tinygpt", name, ["--help", "--version", "--show-completion"])
        case [name, *_] if name not in commands():
            raise _exit.unknown_command(name, list(commands()))
        case _:
            # Not by calling the app, which would make exit codes of an interrupt and of a broken pipe.
            root = typer.main.get_command(build(arguments[0]))
            with root.make_context("tinygpt", arguments) as context:
                result = root.invoke(context)
            return result if isinstance(result, int) else 0


def _open_streams() -> None:
    """Read nothing from a closed stdin, and drop what goes to a closed stdout or stderr (`>&-`): Python has
    None for these. In this order each one gets its own number back."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _strict_stdin() -> None:
    """Make bytes of stdin that are no UTF-8 an error of one line, wherever they are read."""

    def refuse(error: UnicodeError) -> tuple[str, int]:
        byte = f": byte 0x{error.object[error.start]:02x}" if isinstance(error, UnicodeDecodeError) else ""
        raise DataError(f"stdin is not UTF-8{byte}", hint="convert it: iconv -f latin1 -t utf-8")

    codecs.register_error("tinygpt_stdin", refuse)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="tinygpt_stdin")


def _complete() -> None:
    """Answer the shell: all names for the first word, the named command's own options after it."""
    words = os.environ.get("_TYPER_COMPLETE_ARGS", os.environ.get("COMP_WORDS", "")).split()
    # With add_completion Typer registers the shells it can answer.
    app = build(words[1], completion=True) if len(words) > 1 and words[1] in commands() else _names_only()
    app(prog_name="tinygpt", complete_var="_TINYGPT_COMPLETE")


def _names_only() -> typer.Typer:
    app = build(completion=True)
    for command in commands().values():
        app.command(command.name, help=command.summary)(lambda: None)
    return app


def _show_completion(shell: str) -> int:
    # The public way, `_TINYGPT_COMPLETE=source_zsh`, prints a blank line before #compdef, and zsh wants that
    # on the first line.
    from typer.completion import get_completion_script  # pyright: ignore[reportPrivateImportUsage]

    if shell not in ("bash", "zsh", "fish"):
        raise unknown("shell", shell, ["bash", "zsh", "fish"])
    print(get_completion_script(prog_name="tinygpt", complete_var="_TINYGPT_COMPLETE", shell=shell))
    return 0
