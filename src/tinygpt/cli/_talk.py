"""A conversation in the terminal: answers stream, history is kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tinygpt.cli._render import Output, say
from tinygpt.core.errors import DataError
from tinygpt.runs.generate import ChatConfig, Conversation


def talk(config: ChatConfig, out: Output) -> None:
    """Answer what the person types, or the lines of stdin, until it ends."""
    conversation = Conversation(config.seeded(), out.events())
    if conversation.turns and not out.quiet:
        few = "one request" if conversation.turns == 1 else f"{conversation.turns} requests"
        print(f"this specialist reads {few} at a time, nothing earlier", file=sys.stderr)
    if conversation.note and not out.quiet:
        print(conversation.note, file=sys.stderr)
    answered = refused = 0
    for text in lines(quiet=out.quiet or out.json):
        if text in ("/quit", "/exit"):
            break
        if text == "/reset":
            conversation.reset()
            print("forgotten", file=sys.stderr)
            continue
        before, answer = conversation.n_forgotten, ""
        try:
            for piece in conversation.say(text):
                answer += piece
                if not out.json:
                    say(piece, end="")
        except DataError as error:  # one message that does not fit must not end the conversation
            refused += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
        answered += 1
        if out.json:
            out.result({"user": text, "assistant": answer})
        else:
            print()
        if conversation.n_forgotten > before:
            print(f"({conversation.n_forgotten - before} oldest turns left the context)", file=sys.stderr)
    conversation.end()
    if refused and not answered and not sys.stdin.isatty():
        raise DataError(f"none of {refused} messages was answered", hint="the errors are above")


def lines(*, quiet: bool, forgets: bool = True) -> Iterator[str]:
    """What the person types, with line editing on a terminal, until the end of input. forgets: the command
    knows /reset."""
    terminal = sys.stdin.isatty()
    if terminal:
        import readline  # from now on input() has editing and history

        readline.set_auto_history(True)
        if not quiet:
            reset = "/reset forgets, " if forgets else ""
            print(f"type a message; {reset}/quit ends", file=sys.stderr)
    while True:
        try:
            text = (input("> ") if terminal else input()).strip()
        except EOFError:
            return
        if text:
            yield text
