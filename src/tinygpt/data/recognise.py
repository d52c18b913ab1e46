"""What rows are for, by their columns, and rows of our shapes made of them.

    chosen and rejected         dpo     0.95 with a prompt, 0.70 without
    a request and an answer     sft     0.90
    a request, tools and calls  sft     0.90
    a list of messages          sft     0.75
    a text                      plain   0.85
    a single column of text     plain   0.55

The figure is how sure the columns make it; of several rows it is the share that agrees, times that. What is
made is {instruction, input?, response, system?}, {messages | conversations, tools?, system?}, {prompt?,
chosen, rejected, system?} or {text}, checked as the sources of `sft`, `dpo` and `train` check it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import rows, table
from tinygpt.data.message import kind_of, to_call
from tinygpt.data.source._preferred import preferred

Format = Literal["sft", "dpo", "plain"]
FORMATS: tuple[Format, ...] = get_args(Format)
PROMPT = ("instruction", "prompt", "question", "query", "input_text")
CONTEXT = ("input", "context", "background")
ANSWER = ("response", "completion", "answer", "output", "target", "label", "responses")
CHOSEN = ("chosen", "preferred", "win", "winner", "chosen_response", "preferred_response")
REJECTED = ("rejected", "dispreferred", "lose", "loser", "rejected_response", "dispreferred_response")
TEXT = ("text", "content", "document", "raw_text", "body")
CALLS = ("answers", "calls", "tool_calls")
OPTIONAL = ("input", "system", "tools")  # columns that may be empty
SYSTEM = ("system", "system_prompt", "system_message")
COLUMNS = (*rows.COLUMNS, "chosen", "rejected", "label", "answers")


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a row is. `columns` are those that are used: our name -> the row's own."""

    format: Format
    confidence: float
    columns: Mapping[str, str]

    @property
    def shape(self) -> str:
        """For people: {instruction, response=answer}."""
        named = (new if new == old else f"{new}={old}" for new, old in self.columns.items())
        return "{" + ", ".join(named) + "}"


def guesses(row: Any) -> list[Guess]:
    """All that a row could be, in the order in which it is asked; none for a row of unknown columns."""
    if not isinstance(row, Mapping):
        raise DataError(f"expected a JSON object, got {kind_of(row)}")
    prompt, context, answer = (_column(row, names) for names in (PROMPT, CONTEXT, ANSWER))
    chosen, rejected, text = (_column(row, names) for names in (CHOSEN, REJECTED, TEXT))
    calls = _column(row, CALLS) if row.get("tools") is not None else ""
    system = {"system": name} if (name := _column(row, SYSTEM)) else {}
    talk = next((name for name in rows.TALKS if _is_list(row.get(name))), "")
    found: list[Guess] = []

    def add(format: Format, confidence: float, **columns: str) -> None:
        used = {new: old for new, old in columns.items() if old}
        found.append(Guess(format=format, confidence=confidence, columns=used))

    if chosen and rejected:
        add("dpo", 0.95 if prompt else 0.7, **system, prompt=prompt, chosen=chosen, rejected=rejected)
    if prompt and calls:
        add("sft", 0.9, **system, prompt=prompt, tools="tools", answers=calls)
    if prompt and answer:
        add("sft", 0.9, **system, instruction=prompt, input=context, response=answer)
    if talk:
        tools = "tools" if row.get("tools") else ""
        add("sft", 0.75, **system, **{talk: talk}, tools=tools)
    if text:
        add("plain", 0.85, text=text)
    only = [str(name) for name, value in row.items() if isinstance(value, str)]
    if len(row) == len(only) == 1 and not text:
        add("plain", 0.55, text=only[0])
    return found


def recognise(row: Any, wanted: str = "auto") -> Guess:
    """What a row is, or how it is what is wanted; DataError where it is not."""
    if wanted not in ("auto", *FORMATS):
        raise ConfigError(f"--format {wanted} is no format", hint=f"choose from: auto, {', '.join(FORMATS)}")
    found = [guess for guess in guesses(row) if wanted in ("auto", guess.format)]
    if not found:
        what = "known" if wanted == "auto" else wanted
        raise DataError(
            f"no {what} shape has the columns: {', '.join(map(str, row)) or 'none'}",
            hint="name them: --map instruction=COLUMN,response=COLUMN (or text=, chosen=, rejected=)",
        )
    return found[0]


def agreed(sample: Sequence[Any], wanted: str = "auto") -> Guess:
    """What most rows of a sample are; the confidence is lower where others are something else."""
    found: list[Guess] = []
    last: DataError | None = None
    for row in sample:
        try:
            found.append(recognise(row, wanted))
        except DataError as error:
            last = error
    if not found:
        raise last or DataError("there are no rows to look at")
    votes: dict[Format, list[Guess]] = {}
    for guess in found:
        votes.setdefault(guess.format, []).append(guess)
    most = max(votes.values(), key=len)
    sure = sum(guess.confidence for guess in most) / len(sample)
    return Guess(format=most[0].format, confidence=round(sure, 2), columns=most[0].columns)


def convert(row: Any, wanted: str) -> dict[str, Any]:
    """A row as one that `sft`, `dpo` or `train` reads; DataError says what does not fit."""
    guess = recognise(row, wanted)
    made = {
        new: row[old]
        for new, old in guess.columns.items()
        if new not in OPTIONAL or row[old] not in (None, "")
    }
    if guess.format == "plain":
        return {"text": rows.to_text(made)}
    if guess.format == "dpo":
        preferred(made)
        return made
    if "answers" in made:
        made = _called(made)
    elif isinstance(made.get("response"), list) and not isinstance(made.get("instruction"), list):
        made["response"] = next(iter(made["response"]), "")
    rows.to_messages(made)
    return made


def _called(made: Mapping[str, Any]) -> dict[str, Any]:
    """A request whose answer is a list of calls, as a conversation."""
    calls, tools = (table.parse(v) if isinstance(v, str) else v for v in (made["answers"], made["tools"]))
    if not isinstance(calls, list) or not calls:
        raise DataError("there is no call in the answer")
    if not isinstance(tools, list):
        raise DataError("'tools' must be a list of JSON schemas")
    said = {"role": "assistant", "content": "", "tool_calls": [to_call(call, "answers") for call in calls]}
    system = [{"role": "system", "content": made["system"]}] if made.get("system") else []
    asked = {"role": "user", "content": made["prompt"]}
    return {"messages": [*system, asked, said], "tools": [schema(tool) for tool in tools]}


def schema(tool: Any) -> dict[str, Any]:
    """A tool as OpenAI writes it; some data sets list bare functions, with a bare table of arguments."""
    if not isinstance(tool, Mapping):
        raise DataError(f"a tool must be an object, got {kind_of(tool)}")
    inner = dict(tool.get("function", tool)) if isinstance(tool.get("function", tool), Mapping) else {}
    if not isinstance(inner.get("name"), str) or not inner["name"]:
        raise DataError("a tool has no name")
    parameters = inner.get("parameters")
    if isinstance(parameters, Mapping) and not isinstance(parameters.get("type"), str):
        inner["parameters"] = {"type": "object", "properties": dict(parameters)}
    return {"type": "function", "function": inner}


def _column(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of these columns that the row has; "" for none."""
    return next((name for name in names if row.get(name) is not None), "")


def _is_list(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))
