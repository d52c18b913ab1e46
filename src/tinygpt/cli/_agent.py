"""An agent in the terminal: text streams on stdout, calls and their results are told on stderr."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any

from tinygpt.agent.loop import Answer
from tinygpt.cli._exit import INTERRUPTED
from tinygpt.cli._leaving import confirming
from tinygpt.cli._render import Output, line, say, table, typed, visible
from tinygpt.cli._talk import lines
from tinygpt.core.errors import ConfigError, DataError, RemoteError, TinyGPTError
from tinygpt.runs import agent_world
from tinygpt.runs._agent_settings import SEND
from tinygpt.runs.agent import Config, Session

WIDEST = 200  # letters of a call or a result that are shown


class View:
    """What a person sees of the work; with --json-out, every event as a line of JSON on stdout."""

    def __init__(self, config: Config, out: Output) -> None:
        self._json, self._quiet = config.json_out, out.quiet or out.json
        self._text = not (config.json_out or out.json)
        self._open = False  # a line of text is being written

    def text(self, piece: str) -> None:
        if self._text:
            say(piece, end="")
            self._open = not piece.endswith("\n") if piece else self._open

    def tell(self, event: str, **facts: Any) -> None:
        if self._json:
            print(json.dumps({"event": event, **facts}, ensure_ascii=False, default=str), flush=True)
        if event == "assistant" and self._open:
            print(flush=True)
            self._open = False
        if not self._quiet and (told := _told(event, facts)):
            line(told, sys.stderr)


def work(config: Config, out: Output) -> int:
    """Requests until there are no more; 1 where --single got no answer."""
    if config.world:
        tasks(config, out)
        return 0
    cancel = threading.Event()
    single = bool(config.single)
    terminal = sys.stdin.isatty() and sys.stderr.isatty() and not out.quiet
    if config.target is not None and not (config.target.local or terminal or SEND in config.yes):
        raise ConfigError(
            "nobody can be asked whether a conversation may leave this machine: there is no terminal",
            hint="--yes send sends without asking",
        )
    view = View(config, out)
    session = Session(
        config, out.events(), view, cancel,
        confirm=_asking(_confirm, cancel) if terminal else None,
        send=_asking(confirming(yes=SEND in config.yes, quiet=out.quiet), cancel),
    )  # fmt: skip
    answers: list[Answer] = []
    failed: list[TinyGPTError] = []
    try:
        with _cancelling(cancel):
            if (answer := session.go_on()) is not None:
                answers.append(answer)
        quiet = out.quiet or out.json or config.json_out
        for request in [config.single] if single else lines(quiet=quiet, forgets=False):
            if not single and request in ("/quit", "/exit"):
                break
            cancel.clear()
            try:
                with _cancelling(cancel):
                    answers.append(session.ask(request))
            except (DataError, RemoteError) as error:  # one request that fails does not end the conversation
                if single:
                    raise
                failed.append(error)
                line(f"error: {error}", sys.stderr)
    finally:
        summary = session.end()
    if failed and not answers:
        raise DataError(f"none of {len(failed)} requests was worked on", hint="the errors are above")
    found = {"answers": [vars(answer) for answer in answers], **summary}
    if out.json:
        out.result(found)
    elif not out.quiet and not config.json_out:
        line(_summed(summary), sys.stderr)
    if not single or not answers[-1].fallback:
        return 0
    return INTERRUPTED if answers[-1].outcome == "cancelled" else 1


def tasks(config: Config, out: Output) -> None:
    """The tasks of a world, one after another, and what became of them."""
    cancel = threading.Event()
    with _cancelling(cancel):
        found = agent_world.run(config, out.events(), Unwatched(), cancel)

    def render() -> None:
        rows = [[group, *part.values()] for group, part in found["groups"].items()]
        table(("tasks", "n", "right"), [*rows, ["all", found["n"], found["right"]]])
        print(_summed(found))

    out.result(found, render)


class Unwatched:
    """Nobody looks on."""

    def text(self, piece: str) -> None: ...

    def tell(self, event: str, **facts: Any) -> None: ...


def _told(event: str, facts: dict[str, Any]) -> str:
    """A line for what happened; "" where the text has said it."""
    if event == "tool_call":
        return f"> {facts['name']}({_short(json.dumps(facts['arguments'], ensure_ascii=False)[1:-1])})"
    if event == "tool_result":
        if not facts["allowed"]:
            return f"  not made ({facts['rule']}): {_short(facts['stderr'] or facts['stdout'])}"
        code = f"exit code {facts['exit_code']}: " if facts["exit_code"] else ""
        return f"  {code}{_short(facts['stdout'] or facts['stderr']) or 'done'} ({facts['seconds']:.1f} s)"
    if event == "repair":
        return f"  no valid turn ({facts['error']}), asked for again"
    if event == "dropped":
        return f"  the context is full: {facts['messages']} messages left it"
    if event == "escalation" and not facts["answered"]:
        return f"  stays here: {facts.get('error') or 'not sent'}"
    if event == "full":
        return f"  {facts['error']}"
    if event == "router_prediction":
        return f"  router: {facts['tool']} ({facts['probability']:.0%})" if facts["fired"] else ""
    if event == "answer" and facts["outcome"] not in ("answered", "escalated"):
        return f"  no answer: {facts['outcome']}"
    return ""


def _short(text: str) -> str:
    """The first line of a text, and that there is more."""
    first, *rest = text.strip().splitlines() or [""]
    cut = len(first) > WIDEST or rest
    return visible(first[:WIDEST]) + (" ..." if cut else "")


def _summed(summary: dict[str, Any]) -> str:
    names = {
        "turns": "turns",
        "calls": "calls",
        "refused_calls": "not made",
        "written_tokens": "tokens written",
    }
    return ", ".join(f"{summary[name]:,} {what}" for name, what in names.items() if summary.get(name))


def _confirm(question: str) -> bool:
    """Ask the person; anything but yes is no."""
    print(visible(question), end=" [y/N] ", file=sys.stderr, flush=True)
    return typed().strip().lower() in ("y", "yes")


def _asking(ask: Callable[[Any], bool], cancel: threading.Event) -> Callable[[Any], bool]:
    """The same question, where Ctrl-C is a no, and ends the request."""

    def asked(what: Any) -> bool:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return ask(what)
        except KeyboardInterrupt:
            print(file=sys.stderr)
            cancel.set()
            return False
        finally:
            signal.signal(signal.SIGINT, before)

    return asked


@contextlib.contextmanager
def _cancelling(cancel: threading.Event) -> Generator[None]:
    """Ctrl-C asks the work to end; a second one ends the command."""

    def stop(number: int, frame: Any) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
