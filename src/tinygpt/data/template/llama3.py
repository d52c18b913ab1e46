"""Llama 3: every message after a header with its role and before <|eot_id|>; a call is one JSON object.

    <|begin_of_text|><|start_header_id|>system<|end_header_id|>

    Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>

    List the files.<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    {"name": "ls", "parameters": {}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>

    a.txt<|eot_id|>

The answer and its <|eot_id|> are learned. Contents are stripped. A message is text or calls, not both;
several calls stand after each other with a semicolon between.
Paper: Grattafiori et al. 2024, arXiv:2407.21783
Differs: no sentences about dates and knowledge; tools are introduced in the system message, in few words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data.template import _calls
from tinygpt.data.template._spans import Span

BOS, END = "<|begin_of_text|>", "<|eot_id|>"
HEAD, HEAD_END = "<|start_header_id|>", "<|end_header_id|>"

TOOLS_BEFORE = "You can call these functions:\n\n"
TOOLS_AFTER = (
    'To call one, answer with {"name": its name, "parameters": an object of arguments} and nothing else.'
)

CHAT_TEMPLATE = """\
{{- '<|begin_of_text|>' }}
{%- if tools %}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
    {%- if messages[0].role == 'system' and messages[0].content.strip() %}
        {{- messages[0].content.strip() + '\\n\\n' }}
    {%- endif %}
    {{- 'BEFORE' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
        {{- '\\n\\n' }}
    {%- endfor %}
    {{- 'AFTER' + '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (tools and loop.first and message.role == 'system') %}
        {%- set role = 'ipython' if message.role == 'tool' else message.role %}
        {{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}
        {%- if message.tool_calls %}
            {%- if message.content and message.content.strip() %}
                {{- raise_exception('in the template llama3 an answer is text or tool calls, not both') }}
            {%- endif %}
            {%- for call in message.tool_calls %}
                {%- set function = call.function or call %}
                {{- '; ' if not loop.first else '' }}
                {{- '{"name": ' }}
                {{- function.name | tojson }}
                {{- ', "parameters": ' }}
                {%- set given = function.arguments or {} %}
                {{- given if given is string else given | tojson }}
                {{- '}' }}
            {%- endfor %}
        {%- else %}
            {{- message.content.strip() }}
        {%- endif %}
        {{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}""".replace("BEFORE", TOOLS_BEFORE.replace("\n", "\\n")).replace("AFTER", TOOLS_AFTER)


def render(
    messages: Sequence[dict[str, Any]],
    tools: Sequence[dict[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    *,
    bos: str = BOS,
    end: str = END,
) -> list[Span]:
    """The conversation as spans. `bos` begins the text, `end` ends a message."""
    spans = [Span(bos, special=True)]
    rest = list(enumerate(messages))
    if tools:
        system = rest.pop(0)[1]["content"].strip() if rest and rest[0][1]["role"] == "system" else ""
        listed = "".join(_calls.to_json(tool) + "\n\n" for tool in tools)
        about = (f"{system}\n\n" if system else "") + TOOLS_BEFORE + listed + TOOLS_AFTER
        spans += [*_head("system"), Span(about), Span(end, special=True)]
    for i, message in rest:
        role, content = message["role"], (message.get("content") or "").strip()
        if calls := message.get("tool_calls"):
            if content:
                raise DataError("in the template llama3 an answer is text or tool calls, not both")
            content = "; ".join(_calls.written(call, "parameters") for call in calls)
        learn = role == "assistant"
        n = i if learn else -1
        spans += _head("ipython" if role == "tool" else role)
        spans += [Span(content, learn, False, n), Span(end, learn, True, n)]
    if add_generation_prompt:
        spans += _head("assistant")
    return [span for span in spans if span.text]


def parse(text: str) -> dict[str, Any]:
    """What a model wrote, as {"role", "content", "tool_calls"}, and "error" where a call is malformed."""
    return _calls.llama(text)


def _head(role: str) -> list[Span]:
    return [Span(HEAD, special=True), Span(role), Span(HEAD_END, special=True), Span("\n\n")]
