"""Rows of preferences in the shapes that people share them in, checked and turned into messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data import rows
from tinygpt.data.rows import Message

SHAPES = (
    "{prompt, chosen, rejected}, {chosen, rejected} as conversations, {prompt, completion, label}, "
    "{messages, label}"
)
PROMPTS = ("prompt", "question", "instruction")
ANSWERS = ("completion", "response", "output", "answer")
GOOD, BAD = (True, 1, "true", "good", "desirable"), (False, 0, -1, "false", "bad", "undesirable")
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"  # Anthropic's hh-rlhf is text with these in it


@dataclass(frozen=True, kw_only=True)
class Preferred:
    """A prompt with one or two replies. Where there is one, `good` says what it is worth and `rejected` is
    None."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message] | None = None
    good: bool = True
    tools: list[dict[str, Any]] | None = None

    @property
    def replies(self) -> list[list[Message]]:
        """The replies that there are."""
        return [self.chosen] if self.rejected is None else [self.chosen, self.rejected]


def preferred(row: Any) -> Preferred:
    """A row, checked; DataError says what does not fit."""
    if not isinstance(row, Mapping):
        raise DataError(f"expected a JSON object, got {type(row).__name__}")
    if "chosen" in row and "rejected" in row:
        prompt, chosen, rejected = _pair(row)
        if chosen == rejected:
            raise DataError("the chosen and the rejected answer are equal")
        found = Preferred(prompt=prompt, chosen=chosen, rejected=rejected, tools=_tools(row))
    elif "label" in row:
        prompt, answer = _labelled(row)
        found = Preferred(prompt=prompt, chosen=answer, good=_label(row["label"]), tools=_tools(row))
    else:
        missing = "'rejected'" if "chosen" in row else "'chosen'" if "rejected" in row else "'label'"
        raise DataError(
            f"no {missing} in the row; its keys: {', '.join(map(str, row)) or 'none'}. Known: {SHAPES}"
        )
    if not found.prompt:
        raise DataError("there is no prompt before the answer")
    for name, reply in zip(("chosen", "rejected"), found.replies):
        said = [m for m in reply if m["role"] == "assistant"]
        if not any(m["content"] or m.get("tool_calls") for m in said):
            raise DataError(
                f"the answer '{name}' is empty" if said else f"'{name}' has nothing of the assistant"
            )
        if reply[-1]["role"] != "assistant":
            raise DataError(f"'{name}' ends with a message of the {reply[-1]['role']}, not with an answer")
    return found


def _pair(row: Mapping[str, Any]) -> tuple[list[Message], list[Message], list[Message]]:
    chosen, rejected = (_reply(row[name], name) for name in ("chosen", "rejected"))
    name = next((n for n in PROMPTS if row.get(n) is not None), None)
    if name is None:
        return _implied(row, chosen, rejected)
    prompt = _prompt(row, name)
    # Some data sets repeat the prompt in both answers.
    said = [m for m in prompt if m["role"] != "system"]
    for whole in (prompt, said):
        n = len(whole)
        if n and len(chosen) > n and len(rejected) > n and chosen[:n] == whole == rejected[:n]:
            return prompt, chosen[n:], rejected[n:]
    both = _shared(chosen, rejected)
    if both and both[0]["role"] in ("system", "user"):
        raise DataError(
            "the conversations in 'chosen' and 'rejected' do not begin with the row's prompt",
            hint="leave the prompt out, or give replies alone",
        )
    return prompt, chosen, rejected


def _implied(
    row: Mapping[str, Any], chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """The prompt is what both conversations begin with."""
    texts = row["chosen"], row["rejected"]
    if all(isinstance(text, str) for text in texts):
        if not all(HUMAN in f"\n\n{text}" and ASSISTANT in text for text in texts):
            raise DataError(
                "two texts without a 'prompt': where the answers begin is not said",
                hint="add the prompt, or give conversations: lists of messages",
            )
        chosen, rejected = (_turns(text) for text in texts)
    shared = _shared(chosen, rejected)
    n = len(shared)
    if n in (len(chosen), len(rejected)):
        raise DataError("one conversation is the beginning of the other: there is no second answer")
    while n and shared[n - 1]["role"] != "user" and shared[n - 1]["role"] != "tool":
        n -= 1  # an answer of several messages may begin alike
    system = _system(row)
    return [*system, *chosen[:n]], chosen[n:], rejected[n:]


def _shared(a: list[Message], b: list[Message]) -> list[Message]:
    n = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return a[:n]


def _turns(text: str) -> list[Message]:
    """A text of Human: and Assistant: turns as messages."""
    found: list[Message] = []
    for i, part in enumerate(f"\n\n{text.lstrip()}".split(HUMAN)):
        if not i:
            continue
        said, *answers = part.split(ASSISTANT)
        found.append({"role": "user", "content": said.strip()})
        found += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    return found


def _labelled(row: Mapping[str, Any]) -> tuple[list[Message], list[Message]]:
    answer = next((n for n in ANSWERS if n in row), None)
    if answer is None:
        if "messages" not in row:
            raise DataError(
                f"no answer beside 'label'; its keys: {', '.join(map(str, row))}. Known: {SHAPES}"
            )
        messages = _reply(row["messages"], "messages")
        n = len(messages)
        while n and messages[n - 1]["role"] == "assistant":
            n -= 1
        return messages[:n], messages[n:]
    reply = _reply(row[answer], answer)
    if row.get("messages") is not None:
        return [*_system(row), *_reply(row["messages"], "messages")], reply
    name = next((n for n in PROMPTS if row.get(n) is not None), None)
    if name is None:
        raise DataError(f"no prompt in the row; its keys: {', '.join(map(str, row))}")
    return _prompt(row, name), reply


def _prompt(row: Mapping[str, Any], name: str) -> list[Message]:
    value = row[name]
    said = _checked(value, name) if isinstance(value, list) else [_message("user", value, name)]
    return [*_system(row), *said]


def _system(row: Mapping[str, Any]) -> list[Message]:
    return [_message("system", row["system"], "system")] if row.get("system") else []


def _reply(value: Any, name: str) -> list[Message]:
    if isinstance(value, Mapping):
        value = [value]
    return _checked(value, name) if isinstance(value, list) else [_message("assistant", value, name)]


def _message(role: str, text: Any, name: str) -> Message:
    return {"role": role, "content": rows.to_text({name: text}, name)}


def _checked(value: list[Any], name: str) -> list[Message]:
    """A list of messages, checked as those of conversations are."""
    said = {"messages": [*value, {"role": "assistant", "content": "."}]}
    try:
        return rows.to_messages(said).messages[:-1]
    except DataError as error:
        raise DataError(error.message.replace("messages[", f"{name}[", 1), hint=error.hint) from error


def _tools(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    said = [{"role": "assistant", "content": "."}]
    return rows.to_messages({"messages": said, "tools": row.get("tools")}).tools


def _label(value: Any) -> bool:
    for answer, names in ((True, GOOD), (False, BAD)):
        if value in names or (isinstance(value, str) and value.lower() in names):
            return answer
    raise DataError(f"'label' must be true or false, got {value!r}")
