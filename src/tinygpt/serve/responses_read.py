"""What clients of /v1/responses send, as jobs. What this server cannot do is an error; nulls are defaults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinygpt.serve.calls import arguments
from tinygpt.serve.cards import capabilities
from tinygpt.serve.fields import Fields, function_tools, kind
from tinygpt.serve.job import Chat, Format, Message, ModelCard
from tinygpt.serve.limits import Limits
from tinygpt.serve.openai import ask as sampled

MOST_ITEMS = 4096
MOST_PARTS = 4096
MOST_TOOLS = 512
MOST_ALTERNATIVES = 20
MOST_METADATA = 16
ROLES = ("user", "assistant", "system", "developer")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
LOGPROBS = "message.output_text.logprobs"
# What else may be asked for; it would be beside items that no answer here has, and reasoning is plain text.
INCLUDED = (
    LOGPROBS, "reasoning.encrypted_content", "file_search_call.results", "web_search_call.results",
    "web_search_call.action.sources", "message.input_image.image_url",
    "computer_call_output.output.image_url", "code_interpreter_call.outputs",
)  # fmt: skip
REFUSED = (
    "background", "conversation", "prompt", "moderation", "context_management", "stop_token_ids",
    "ignore_eos", "best_of",
)  # fmt: skip
ELSEWHERE = {
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), "max_output_tokens"),
    **dict.fromkeys(("response_format", "guided_json", "structured_outputs", "json_schema"), "text.format"),
    **dict.fromkeys(("guided_regex", "guided_choice", "guided_grammar", "grammar"), "text.format"),
    "logprobs": "top_logprobs",
}
Item = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request. messages: the conversation without `instructions`; items: what `input` brought; echo: what
    the response repeats of the settings."""

    job: Chat
    messages: list[Message]
    items: list[Item]
    echo: dict[str, Any]
    store: bool


def ask(
    body: Fields,
    card: ModelCard,
    earlier: Sequence[Message],
    find: Callable[[str], Item | None],
    most: int | None,
    limits: Limits,
) -> Asked:
    """A request read. earlier: the messages of `previous_response_id`; find: an item that is referred to by
    its id; most: tokens of an answer where the request says nothing, None: what the context holds."""
    for name in REFUSED:
        body.refuse(name, "cannot be done by this server")
    body.refuse("truncation", "must be 'disabled': no input is left out", but=("disabled",))
    for name, here in ELSEWHERE.items():
        body.refuse(name, f"is of chats: here it is '{here}'")
    body.refuse("n", "must be 1: a response is one answer", but=(1,))
    length = body.integer("max_output_tokens", 1)
    choice, tools, closed = _choice(body, _tools(body))
    format_, text = _format(body)
    reasoning = body.object("reasoning")
    effort = None if reasoning is None else reasoning.choice("effort", (*EFFORTS, ""), "") or None
    think = (
        None if effort is None or "thinking" not in capabilities(card) else effort not in ("none", "minimal")
    )
    items = _items(body, find)
    messages = [*earlier, *_messages(items, earlier)]
    if not messages:
        raise body.wrong("input", "is required")
    instructions = body.text("instructions")
    system: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    job = Chat(
        model=card.name,
        messages=_one_system([*system, *messages]),
        config=sampled.sampling(body, limits, length or most or card.context),
        tools=tools,
        tool_choice=choice,
        closed=closed,
        parallel=body.flag("parallel_tool_calls", True),
        think=think,
        format=format_,
        logprobs=_logprobs(body),
        user=body.text("safety_identifier") or body.text("user") or "",
        stream=body.flag("stream"),
    )
    echo = {
        "instructions": instructions,
        "max_output_tokens": length,
        "max_tool_calls": body.integer("max_tool_calls", 0),
        "metadata": _metadata(body),
        "parallel_tool_calls": job.parallel,
        "previous_response_id": body.text("previous_response_id"),
        "reasoning": {"effort": effort, "summary": None},
        "temperature": job.config.temperature,
        "text": text,
        "tool_choice": body.any("tool_choice") or "auto",
        "tools": [dict(tool.data) for tool in body.objects("tools", MOST_TOOLS)],
        "top_logprobs": job.logprobs or 0,
        "top_p": job.config.top_p,
        "truncation": "disabled",
        "user": body.text("user"),
    }
    return Asked(job=job, messages=messages, items=items, echo=echo, store=body.flag("store", True))


def _logprobs(body: Fields) -> int | None:
    """How many alternatives; asked for by number, or by what is to be included."""
    top = body.integer("top_logprobs", 0, MOST_ALTERNATIVES)
    included = body.texts("include", 64)
    for i, wanted in enumerate(included):
        if wanted not in INCLUDED:
            raise body.wrong(f"include[{i}]", f"must be one of {', '.join(INCLUDED)}, got '{wanted[:80]}'")
    return (top or 0) if LOGPROBS in included or top else None


def _metadata(body: Fields) -> dict[str, str]:
    given = body.object("metadata")
    if given is None:
        return {}
    if len(given.data) > MOST_METADATA:
        raise body.wrong("metadata", f"may have at most {MOST_METADATA} entries, got {len(given.data)}")
    return {name: given.text(name, "") for name in given.data}


def _format(body: Fields) -> tuple[Format | None, dict[str, Any]]:
    """What an answer must be, and `text` as the response repeats it."""
    text = body.object("text")
    if text is None:
        return None, {"format": {"type": "text"}}
    _ = text.choice("verbosity", ("low", "medium", "high"), "medium")
    asked = text.object("format")
    whole = {**text.data, "format": dict(asked.data) if asked else {"type": "text"}}
    wanted = asked.choice("type", ("text", "json_object", "json_schema"), "text") if asked else "text"
    if asked is None or wanted == "text":
        return None, whole
    if wanted == "json_object":
        return Format(kind="json", param="text.format"), whole
    _ = asked.needed("name"), asked.flag("strict")
    schema = asked.object("schema")
    if schema is None:
        raise asked.wrong("schema", "is required")
    return Format(kind="schema", value=dict(schema.data), param="text.format"), whole


def _tools(body: Fields) -> list[dict[str, Any]]:
    """Tools as templates take them."""
    found = []
    for tool in body.objects("tools", MOST_TOOLS):
        if (type_ := tool.needed("type")) != "function":
            raise tool.wrong(
                "type", f"must be 'function': this server runs no tools, and knows no '{type_[:80]}'"
            )
        function: dict[str, Any] = {"name": tool.needed("name")}
        if description := tool.text("description"):
            function["description"] = description
        if (parameters := tool.object("parameters")) is not None:
            function["parameters"] = dict(parameters.data)
        if tool.flag("strict"):
            function["strict"] = True
        found.append({"type": "function", "function": function})
    return function_tools(found)


def _choice(
    body: Fields, tools: list[dict[str, Any]]
) -> tuple[str | dict[str, str], list[dict[str, Any]], bool]:
    """Which tools an answer may or must call: the choice, the tools that are left, and whether none of the
    server's are."""
    value = body.any("tool_choice")
    if value is None or isinstance(value, str):
        return body.choice("tool_choice", ("auto", "none", "required"), "auto"), tools, False
    choice = body.object("tool_choice")
    assert choice is not None
    if choice.choice("type", ("function", "allowed_tools"), "") == "function":
        return {"name": choice.needed("name")}, tools, False
    names = [tool["function"]["name"] for tool in tools]
    allowed = [_known(tool, names) for tool in choice.objects("tools", MOST_TOOLS)]
    left = [tool for tool in tools if tool["function"]["name"] in allowed]
    if not left:
        raise choice.wrong("tools", "names no tool")
    return choice.choice("mode", ("auto", "required"), "auto"), left, True


def _known(choice: Fields, names: Sequence[str]) -> str:
    if (name := choice.needed("name")) not in names:
        raise choice.wrong("name", f"is '{name[:80]}', which is none of the tools: {', '.join(names)[:200]}")
    return name


# Input


def _items(body: Fields, find: Callable[[str], Item | None]) -> list[Item]:
    """`input` as items; a text is a message of the user's, and references are what they refer to."""
    value = body.any("input")
    if isinstance(value, str):
        part = {"type": "input_text", "text": value}
        return [{"type": "message", "role": "user", "content": [part]}] if value else []
    if value is not None and not isinstance(value, list):
        raise body.wrong("input", f"must be a string or a list of items, got {kind(value)}")
    found = []
    for item in body.objects("input", MOST_ITEMS):
        if item.text("type") != "item_reference":
            found.append(dict(item.data))
        elif (known := find(id := item.needed("id"))) is not None:
            found.append(known)
        else:
            raise item.wrong("id", f"'{id[:80]}' is no item of a stored response")
    return found


def _messages(items: Sequence[Item], earlier: Sequence[Message]) -> list[Message]:
    """Messages as templates take them: what an assistant said, thought and called between two turns of others
    is one message."""
    called = {
        call["id"]: call["function"]["name"] for message in earlier for call in message.get("tool_calls", ())
    }
    found: list[Message] = []
    for i, data in enumerate(items):
        item = Fields(data, f"input[{i}]")
        match item.text("type", "message"):
            case "message":
                role = item.choice("role", ROLES, "")
                message = {
                    "role": "system" if role == "developer" else role,
                    "content": _text(item, "content"),
                }
                if role == "assistant":
                    _assistant(found, text=message["content"])
                else:
                    found.append(message)
            case "reasoning":
                _assistant(found, reasoning=_text(item, "content") or _text(item, "summary"))
            case "function_call":
                id = item.needed("call_id")
                called[id] = item.needed("name")
                function = {"name": called[id], "arguments": arguments(item.text("arguments", ""))}
                _assistant(found, call={"type": "function", "id": id, "function": function})
            case "function_call_output":
                id = item.needed("call_id")
                if id not in called:
                    raise item.wrong("call_id", f"is '{id[:80]}', which no function_call before it has")
                output = _text(item, "output")
                found.append({"role": "tool", "content": output, "name": called[id], "tool_call_id": id})
            case other:
                raise item.wrong("type", f"'{str(other)[:80]}' is nothing that this server takes")
    return found


def _assistant(
    found: list[Message], *, text: str = "", reasoning: str = "", call: Item | None = None
) -> None:
    """Add to the assistant's message, or begin one."""
    if not found or found[-1]["role"] != "assistant":
        found.append({"role": "assistant", "content": ""})
    message = found[-1]
    message["content"] = "\n".join(filter(None, (message["content"], text)))
    if reasoning:
        message["reasoning_content"] = reasoning
    if call is not None:
        message["tool_calls"] = [*message.get("tool_calls", ()), call]


def _text(item: Fields, name: str) -> str:
    """A text, or the texts of parts that may be nothing else."""
    value = item.any(name)
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise item.wrong(name, f"must be a string or a list of parts, got {kind(value)}")
    texts = []
    for part in item.objects(name, MOST_PARTS):
        match part.text("type", ""):
            case "input_text" | "output_text" | "text" | "reasoning_text" | "summary_text":
                texts.append(part.text("text", ""))
            case "refusal":
                texts.append(part.text("refusal", ""))
            case other:
                raise part.wrong("type", f"is '{other[:80]}': the models of this server read text only")
    return "\n".join(texts)


def _one_system(messages: list[Message]) -> list[Message]:
    """The same with one system message at the head: few templates take more."""
    head = next((i for i, message in enumerate(messages) if message["role"] != "system"), len(messages))
    if head < 2:
        return messages
    content = "\n\n".join(message["content"] for message in messages[:head])
    return [{"role": "system", "content": content}, *messages[head:]]
