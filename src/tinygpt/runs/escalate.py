"""Ask a stronger model once, after a person has seen what leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.agent.escalate import Confirm, Escalation, Message, OnText, Price
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.data import atraj, table
from tinygpt.data.message import kind_of, to_message
from tinygpt.runs._cloud import Target, open_cloud

SHAPES = "a list of messages, {messages, tools?}, or a trajectory (.atraj)"


@dataclass(frozen=True, kw_only=True)
class Config(Target):
    """Settings of `escalate`."""

    prompt: Annotated[str, "What is asked; '-' reads it from stdin."] = ""
    messages: Annotated[Path | None, f"Conversation before it: {SHAPES}."] = None
    system: Annotated[str, "System prompt, where the conversation has none."] = ""
    price: Annotated[tuple[float, ...], "Price of a million tokens: read,written. It gives the cost."] = ()
    yes: Annotated[bool, "Send without asking."] = False

    def __post_init__(self) -> None:
        Target.__post_init__(self)
        Price.of(self.price)
        if not self.prompt and self.messages is None:
            raise ConfigError("there is nothing to ask", hint="give --prompt, or --messages FILE")
        if self.yes and self.local:
            raise ConfigError("--yes: nothing leaves this machine, nobody is asked", hint="leave it out")


def run(
    config: Config,
    prompt: str,
    events: Events,
    *,
    confirm: Confirm,
    on_text: OnText = lambda text: None,
) -> dict[str, Any] | None:
    """The answer and what it took; None where the person refuses, and nothing was sent."""
    said, tools = _conversation(config.messages)
    if config.system:
        if said and said[0]["role"] == "system":
            raise ConfigError("--system and --messages both bring a system prompt", hint="leave one out")
        said = [{"role": "system", "content": config.system}, *said]
    if prompt:
        said.append({"role": "user", "content": prompt})
    found = Escalation(open_cloud(config, events), confirm, Price.of(config.price), tools)
    told = found.tell(said, on_text=on_text)
    if told is None:
        return None
    return {
        "text": told.text, "provider": config.provider, "host": found.cloud.host, "model": told.model,
        "finish_reason": told.finish_reason, "error": told.error, "tokens_in": told.n_in,
        "tokens_out": told.n_out, "seconds": round(told.seconds, 3), "cost": told.cost,
        "masked": found.tally.masked,
    }  # fmt: skip


def _conversation(path: Path | None) -> tuple[list[Message], Sequence[dict[str, Any]]]:
    """The messages of a file and its tools."""
    if path is None:
        return [], ()
    if path.suffix == atraj.SUFFIX:
        found = atraj.read(path)
        return [_of_step(step) for step in found.steps], found.header.tools
    try:
        told = table.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise DataError(f"--messages {path} cannot be read: {error}") from error
    except DataError as error:
        raise DataError(f"--messages {path}: {error.message}", hint=f"it needs {SHAPES}") from error
    tools: Any = ()
    if isinstance(told, dict):
        told, tools = told.get("messages"), told.get("tools") or ()
    if not isinstance(told, list) or not told:
        raise DataError(
            f"--messages {path}: expected messages, got {kind_of(told)}", hint=f"it needs {SHAPES}"
        )
    return [to_message(one, f"{path}: messages[{i}]") for i, one in enumerate(told)], _entries(tools, path)


def _entries(tools: Any, path: Path) -> list[dict[str, Any]]:
    """Tools in OpenAI's form; those without the outer object get one."""
    if not isinstance(tools, list | tuple):
        raise DataError(f"--messages {path}: 'tools' must be a list, got {kind_of(tools)}")
    entries = [one if isinstance(one, dict) and "function" in one else {"function": one} for one in tools]
    for i, one in enumerate(entries):
        if not isinstance(one["function"], dict) or not isinstance(one["function"].get("name"), str):
            raise DataError(f"--messages {path}: tools[{i}] has no name")
    return [{"type": "function", **one} for one in entries]


def _of_step(step: atraj.Step) -> Message:
    """A step as the message that it was."""
    told: Message = {"role": step.role, "content": step.content}
    told |= {"tool_calls": step.calls} if step.calls else {}
    return told | ({"tool_call_id": step.call_id, "name": step.name} if step.role == "tool" else {})
