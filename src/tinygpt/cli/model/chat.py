"""Talk with a model in the terminal: answers stream, history is kept, /reset forgets it, /quit ends.

Ctrl-C cuts an answer short. Without a terminal every line of stdin is one message.

Example:

    tinygpt chat specialists/file-ops-tiny
"""

from __future__ import annotations

from tinygpt.cli._options import from_config
from tinygpt.cli._talk import talk
from tinygpt.runs.generate import ChatConfig

<<<<<<< HEAD
ALSO = {
    "adapter": "lora", "adapter_weight": "lora_weight", "sinks": "streaming_llm_sink",
    "window": "streaming_llm_window",
}  # fmt: skip
main = from_config(ChatConfig, talk, arguments=("model",), also=ALSO, needs={"sinks": "window"})
=======

def call(config: ChatConfig, out: Output) -> None:
    talk = Conversation(config.seeded())
    if talk.turns and not out.quiet:
        few = "one request" if talk.turns == 1 else f"{talk.turns} requests"
        print(f"this specialist reads {few} at a time, nothing earlier", file=sys.stderr)
    if talk.note and not out.quiet:
        print(talk.note, file=sys.stderr)
    answered = refused = 0
    for text in lines(quiet=out.quiet or out.json):
        if text in ("/quit", "/exit"):
            break
        if text == "/reset":
            talk.reset()
            print("forgotten", file=sys.stderr)
            continue
        before, answer = talk.n_forgotten, ""
        try:
            for piece in talk.say(text):
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
        if talk.n_forgotten > before:
            print(f"({talk.n_forgotten - before} oldest turns left the context)", file=sys.stderr)
    if refused and not answered and not sys.stdin.isatty():
        raise DataError(f"none of {refused} messages was answered", hint="the errors are above")


def lines(*, quiet: bool) -> Iterator[str]:
    """What the person types, with line editing on a terminal, until the end of input."""
    terminal = sys.stdin.isatty()
    if terminal:
        import readline  # from now on input() has editing and history

        readline.set_auto_history(True)
        if not quiet:
            print("type a message; /reset forgets, /quit ends", file=sys.stderr)
    while True:
        try:
            text = (input("> ") if terminal else input()).strip()
        except EOFError:
            return
        if text:
            yield text


ALSO = {"adapter": "lora", "sinks": "streaming_llm_sink", "window": "streaming_llm_window"}
main = from_config(ChatConfig, call, arguments=("model",), also=ALSO, needs={"sinks": "window"})
>>>>>>> i4-F
