"""What a model may call: a description it reads, and a function that the policy stands before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tinygpt.core.errors import TinyGPTError

EFFECTS = ("read", "write", "delete", "execute", "network")
ASKED = frozenset({"write", "delete", "execute", "network"})  # what a person says yes to, unless told before


class Refusal(TinyGPTError):
    """A call that is not made. `rule` names what forbids it; the message is what the model reads."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call gave. `cut`: letters of it that were too many to show."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    seconds: float = 0.0
    cut: int = 0


class Cancel(Protocol):
    """Whether a person wants no more of it; checked by whatever waits."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One thing that may be called.

    parameters: JSON Schema of its arguments, an object
    effects:    of EFFECTS: what a call may do
    call:       (arguments, seconds, cancel) -> Outcome. Arguments are valid under the schema by then. It
                raises Refusal for what it must not do, and gives failures of its own as an exit code.
    check:      raises Refusal for arguments that it must not take, before anybody is asked; it does nothing
    seconds:    its own limit, where it has one
    source:     who offers it: "builtin", "argv", "python", "http", or an MCP server's name
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    call: Callable[[Mapping[str, Any], float, Cancel], Outcome]
    effects: frozenset[str] = frozenset()
    check: Callable[[Mapping[str, Any]], None] | None = None
    seconds: float | None = None
    source: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])  # of its function entry, as "strict"

    @property
    def entry(self) -> dict[str, Any]:
        """The tool in OpenAI's form, as a template shows it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": {**function, **self.extra}}
