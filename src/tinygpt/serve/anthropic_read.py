"""What Anthropic's clients send, as jobs. What this server cannot do is an error; nulls are defaults."""

from __future__ import annotations

from typing import Any

from tinygpt.infer.config import SampleConfig
from tinygpt.serve.cards import capabilities
from tinygpt.serve.fields import Fields, function_tools, kind
from tinygpt.serve.job import Chat, Format, Message, ModelCard

MOST_MESSAGES = 4096
MOST_BLOCKS = 4096
MOST_TOOLS = 512
MOST_STOPS = 64
ROLES = ("user", "assistant", "system")


def chat(body: Fields, card: ModelCard, *, counting: bool = False) -> Chat:
    """The job of a request; one that only counts tokens need not say `max_tokens`."""
    for name in ("container", "mcp_servers"):
        body.refuse(name, "cannot be done by this server")
    given = body.integer("max_tokens", 1)
    if given is None and not counting:
        raise body.wrong("max_tokens", "is required")
    stops = body.any("stop_sequences")
    if stops is not None and not isinstance(stops, list):
        raise body.wrong("stop_sequences", f"must be a list of strings, got {kind(stops)}")
    rules: dict[str, Any] = {
        "temperature": body.number("temperature", 0, 2),
        "top_p": body.number("top_p", 0, 1),
        "top_k": body.integer("top_k", 0),
    }
    choice, parallel = _choice(body)
    metadata = body.object("metadata")
    messages = _messages(body)
    return Chat(
        model=card.name,
        messages=messages,
        config=SampleConfig(
            max_tokens=given or 1,
            stop=body.texts("stop_sequences", MOST_STOPS),
            **{name: value for name, value in rules.items() if value is not None},
        ),
        tools=_tools(body),
        tool_choice=choice,
        parallel=parallel,
        think=_think(body, card, given),
        format=_format(body),
        prefill=messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls"),
        user=(metadata.text("user_id", "") if metadata else ""),
        stream=body.flag("stream"),
    )


def hides_thinking(body: Fields) -> bool:
    """Whether the client wants to know that there was reasoning, but not read it."""
    thinking = body.object("thinking")
    return thinking is not None and thinking.text("display") == "omitted"


def _think(body: Fields, card: ModelCard, most: int | None) -> bool | None:
    """Whether to reason first. Coding clients ask for it unasked, so a model that cannot is not told."""
    thinking = body.object("thinking")
    if thinking is None:
        return None
    wanted = thinking.choice("type", ("enabled", "disabled", "adaptive"), "")
    _ = thinking.choice("display", ("summarized", "omitted"), "summarized")
    if wanted == "enabled":
        budget = thinking.integer("budget_tokens", 1)
        if budget is None:
            raise thinking.wrong("budget_tokens", "is required")
        if most is not None and budget >= most:
            raise thinking.wrong("budget_tokens", f"must be less than max_tokens, {most}, got {budget}")
    if wanted == "adaptive" or "thinking" not in capabilities(card):
        return None
    return wanted == "enabled"


def _format(body: Fields) -> Format | None:
    """The schema of a structured answer: in `output_config`, or where it was before."""
    config = body.object("output_config")
    asked = (config.object("format") if config else None) or body.object("output_format")
    if asked is None:
        return None
    asked.choice("type", ("json_schema",), "")
    schema = asked.object("schema")
    if schema is None:
        raise asked.wrong("schema", "is required")
    return Format(kind="schema", value=dict(schema.data))


def _tools(body: Fields) -> list[dict[str, Any]]:
    """Tools as templates take them."""
    found = []
    for tool in body.objects("tools", MOST_TOOLS):
        if (type_ := tool.text("type", "custom")) != "custom":
            raise tool.wrong(
                "type", f"must be 'custom': this server runs no tools, and knows no '{type_[:80]}'"
            )
        schema = tool.object("input_schema")
        if schema is None:
            raise tool.wrong("input_schema", "is required")
        function = {"name": tool.needed("name"), "parameters": dict(schema.data)}
        if description := tool.text("description"):
            function["description"] = description
        if tool.flag("strict"):
            function["strict"] = True
        found.append({"type": "function", "function": function})
    return function_tools(found)


def _choice(body: Fields) -> tuple[str | dict[str, str], bool]:
    """Which tools an answer may or must call, and whether more than one."""
    choice = body.object("tool_choice")
    if choice is None:
        return "auto", True
    wanted = choice.choice("type", ("auto", "any", "tool", "none"), "")
    parallel = not choice.flag("disable_parallel_tool_use")
    if wanted == "tool":
        return {"name": choice.needed("name")}, parallel
    return {"any": "required"}.get(wanted, wanted), parallel


# Messages


def _messages(body: Fields) -> list[Message]:
    """Messages as templates take them: results of tools are messages of their own, and turns of one role that
    follow each other are one turn."""
    turns = body.objects("messages", MOST_MESSAGES)
    if not turns:
        raise body.wrong("messages", "is required, with at least one message")
    system = _system(body)
    found: list[Message] = [{"role": "system", "content": system}] if system else []
    called: dict[str, str] = {}  # id of a call -> name of its tool
    for turn in turns:
        role = turn.choice("role", ROLES, "")
        for message in _assistant(turn, called) if role == "assistant" else _user(turn, role, called):
            if found and message["role"] == found[-1]["role"] != "tool":
                found[-1] = _joined(found[-1], message)
            else:
                found.append(message)
    return found


def _joined(first: Message, second: Message) -> Message:
    both = {**first, **second, "content": "\n".join(filter(None, (first["content"], second["content"])))}
    if calls := [*first.get("tool_calls", ()), *second.get("tool_calls", ())]:
        both["tool_calls"] = calls
    return both


def _system(body: Fields) -> str:
    system = body.any("system")
    return body.text("system", "") if isinstance(system, str | None) else _text(body, "system")


def _text(fields: Fields, name: str) -> str:
    """A text, or the texts of blocks that may be nothing else."""
    value = fields.any(name)
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise fields.wrong(name, f"must be a string or a list of blocks, got {kind(value)}")
    return "\n".join(_text_block(block) for block in fields.objects(name, MOST_BLOCKS))


def _text_block(block: Fields) -> str:
    if (type_ := block.text("type", "")) != "text":
        raise block.wrong(
            "type", f"must be 'text' here, got '{type_[:80]}': the models of this server read text"
        )
    return _string(block, "text")


def _string(fields: Fields, name: str) -> str:
    value = fields.text(name)
    if value is None:
        raise fields.wrong(name, "is required")
    return value


def _blocks(turn: Fields) -> list[Fields]:
    """A message's content; a text is one block."""
    value = turn.any("content")
    if isinstance(value, str):
        return [Fields({"type": "text", "text": value}, turn.where("content"))]
    if not isinstance(value, list):
        raise turn.wrong("content", f"must be a string or a list of blocks, got {kind(value)}")
    return turn.objects("content", MOST_BLOCKS)


def _user(turn: Fields, role: str, called: dict[str, str]) -> list[Message]:
    """Results of tools first, in their order, then the rest as one message."""
    results, texts = [], []
    for block in _blocks(turn):
        if role == "user" and block.text("type") == "tool_result":
            id = block.needed("tool_use_id")
            if id not in called:
                raise block.wrong("tool_use_id", f"is '{id[:80]}', which no tool_use before it has")
            text = _text(block, "content")
            text = f"Error: {text}" if block.flag("is_error") else text
            results.append({"role": "tool", "content": text, "name": called[id], "tool_call_id": id})
        else:
            texts.append(_text_block(block))
    if not results or texts:
        results.append({"role": role, "content": "\n".join(texts)})
    return results


def _assistant(turn: Fields, called: dict[str, str]) -> list[Message]:
    texts, reasoning, calls = [], [], []
    for block in _blocks(turn):
        match block.text("type"):
            case "thinking":
                reasoning.append(block.text("thinking", ""))
            case "redacted_thinking":  # of another model; there is nothing to read in it
                continue
            case "tool_use":
                id, name = block.needed("id"), block.needed("name")
                if id in called:
                    raise block.wrong("id", f"'{id[:80]}' is that of an earlier tool_use")
                called[id] = name
                given = block.object("input")
                call = {"name": name, "arguments": dict(given.data) if given else {}}
                calls.append({"type": "function", "id": id, "function": call})
            case _:
                texts.append(_text_block(block))
    message: Message = {"role": "assistant", "content": "\n".join(texts)}
    if any(reasoning):
        message["reasoning_content"] = "\n".join(reasoning)
    if calls:
        message["tool_calls"] = calls
    return [message]
