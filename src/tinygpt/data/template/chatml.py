"""ChatML: every message between <|im_start|>role and <|im_end|>, tool calls as JSON in <tool_call> tags.

    <|im_start|>system          with tools: the system message, then the list of tools
    <|im_start|>user
    List the files.<|im_end|>
    <|im_start|>assistant
    <tool_call>
    {"name": "ls", "arguments": {}}
    </tool_call><|im_end|>
    <|im_start|>tool
    <tool_response>
    a.txt
    </tool_response><|im_end|>

Learned are exactly the assistant's content, its tool calls and the <|im_end|> that ends its turn. The two
markers are OpenAI's, the tool tags are those of Hermes and Qwen, so parsers of other programs read what such
a model writes.
Differs: the tools are introduced in one short paragraph, since a small model pays for every token; a tool's
result has the role "tool" (Qwen writes "user"); there is no default system message.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data.rows import to_call
from tinygpt.data.template import _calls
from tinygpt.data.template._spans import Span

START, END = "<|im_start|>", "<|im_end|>"
BOS = ""
CALL, CALL_END = "<tool_call>", "</tool_call>"

TOOLS_BEFORE = "You can use these tools:\n<tools>\n"
TOOLS_AFTER = '</tools>\nTo use one, write a tool_call block: a JSON object with "name" and "arguments".'


def _quoted(text: str) -> str:
    return "'" + text.replace("\n", "\\n") + "'"


# The same as render(), for programs that read tokenizer_config.json. A test holds the two together.
CHAT_TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' and messages[0].content %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- BEFORE }}
    {%- for tool in tools %}
        {{- tool | tojson }}
        {{- '\\n' }}
    {%- endfor %}
    {{- AFTER }}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (tools and loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if message.role == 'tool' %}
            {{- '<tool_response>\\n' + (message.content or '') + '\\n</tool_response>' }}
        {%- else %}
            {{- message.content or '' }}
            {%- if message.tool_calls %}
                {%- for call in message.tool_calls %}
                    {%- set function = call.function or call %}
                    {%- if message.content or not loop.first %}
                        {{- '\\n' }}
                    {%- endif %}
                    {{- '<tool_call>\\n{"name": ' }}
                    {{- function.name | tojson }}
                    {{- ', "arguments": ' }}
                    {%- if function.arguments is string %}
                        {{- function.arguments }}
                    {%- else %}
                        {{- (function.arguments or {}) | tojson }}
                    {%- endif %}
                    {{- '}\\n</tool_call>' }}
                {%- endfor %}
            {%- endif %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}""".replace("BEFORE", _quoted(TOOLS_BEFORE)).replace("AFTER", _quoted(TOOLS_AFTER))


def render(
    messages: Sequence[dict[str, Any]],
    tools: Sequence[dict[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    *,
    bos: str = BOS,
    end: str = END,
) -> list[Span]:
    """The conversation as spans. With `add_generation_prompt` it ends where the assistant begins to write.
    `end` ends a turn, for tokenizers that have no <|im_end|>; `bos` is not used."""
    spans: list[Span] = []
    rest = list(enumerate(messages))
    if tools:
        system = rest.pop(0)[1]["content"] if rest and rest[0][1]["role"] == "system" else ""
        listed = "".join(_calls.to_json(tool) + "\n" for tool in tools)
        about = Span((f"{system}\n\n" if system else "") + TOOLS_BEFORE + listed + TOOLS_AFTER)
        spans += _turn("system", [about], end)
    for i, message in rest:
        role, content = message["role"], message.get("content") or ""
        if role == "tool":
            body = [
                Span("<tool_response>", special=True),
                Span(f"\n{content}\n"),
                Span("</tool_response>", special=True),
            ]
            spans += _turn(role, body, end)
            continue
        learn = role == "assistant"
        n = i if learn else -1
        body = [Span(content, learn, False, n)]
        for call in message.get("tool_calls") or ():
            if len(body) > 1 or content:
                body.append(Span("\n", learn, False, n))
            body += [
                Span(CALL, learn, True, n), Span(f"\n{_calls.written(call)}\n", learn, False, n),
                Span(CALL_END, learn, True, n),
            ]  # fmt: skip
        spans += _turn(role, body, end)
    if add_generation_prompt:
        spans += [Span(START, special=True), Span("assistant\n")]
    return spans


def parse(text: str) -> dict[str, Any]:
    """What a model wrote, as {"role", "content", "tool_calls"}, and "error" where it is malformed.

    Reading stops at <|im_end|>. A last call without its closing tag counts when its JSON is whole, because
    engines may stop at that tag. A block that is not a call stays in the content, and "error" says why;
    nothing is repaired.
    """
    text = text.split(END, 1)[0]
    calls: list[dict[str, Any]] = []
    errors: list[str] = []
    kept = ""
    position = 0
    while (start := text.find(CALL, position)) >= 0:
        where = f"tool call {len(calls) + len(errors) + 1}"
        try:
            call, end = _read_call(text, start + len(CALL), where)
            calls.append(call)
            kept += text[position:start].removesuffix("\n")
        except DataError as error:
            errors.append(error.message)
            close = text.find(CALL_END, start)
            end = close + len(CALL_END) if close >= 0 else len(text)
            kept += text[position:end]
        position = end
    message: dict[str, Any] = {"role": "assistant", "content": kept + text[position:], "tool_calls": calls}
    if errors:
        message["error"] = "; ".join(errors)
    return message


def _read_call(text: str, start: int, where: str) -> tuple[dict[str, Any], int]:
    """One call and where its block ends. The JSON is read first: an argument may hold the closing tag."""
    start += len(text[start:]) - len(text[start:].lstrip())
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON: {error.msg}") from error
    rest = text[end:].lstrip()
    if rest and not rest.startswith(CALL_END):
        raise DataError(f"{where} goes on after its JSON")
    return to_call(value, where), len(text) - len(rest) + (len(CALL_END) if rest else 0)


def _turn(role: str, body: list[Span], end: str) -> list[Span]:
    """One message. The end marker is learned when the body is: knowing when to stop is part of the answer."""
    return [
        Span(START, special=True),
        Span(f"{role}\n"),
        *body,
        body[0]._replace(text=end, special=True),
        Span("\n"),
    ]
