"""Mistral: requests in [INST] ... [/INST], calls as a JSON list after [TOOL_CALLS].

    <s>[AVAILABLE_TOOLS] [{"type": "function", ...}][/AVAILABLE_TOOLS][INST] Be brief.

    List the files.[/INST][TOOL_CALLS] [{"name": "ls", "arguments": {}}]</s>
    [TOOL_RESULTS] {"content": "a.txt"}[/TOOL_RESULTS] There is a.txt.</s>

(in one line). This is the third version of the form; the system message stands before the first request. The
answer with the space before it, or the calls, and </s> are learned. A message is text or calls, not both.
Differs: tools and system stand before the first request and not before the last one, so that a conversation
begins as it began one turn earlier; calls have no ids, and results follow in the calls' order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data.template import _calls
from tinygpt.data.template._spans import Span

BOS, END = "<s>", "</s>"

CHAT_TEMPLATE = """\
{{- '<s>' }}
{%- if tools %}
    {{- '[AVAILABLE_TOOLS] ' }}
    {{- tools | tojson }}
    {{- '[/AVAILABLE_TOOLS]' }}
{%- endif %}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set ns.system = ns.system + message.content + '\\n\\n' %}
    {%- elif message.role == 'user' %}
        {{- '[INST] ' + ns.system + message.content + '[/INST]' }}
        {%- set ns.system = '' %}
    {%- elif message.role == 'tool' %}
        {{- '[TOOL_RESULTS] {"content": ' }}
        {{- message.content | tojson }}
        {{- '}[/TOOL_RESULTS]' }}
    {%- elif message.tool_calls %}
        {%- if message.content %}
            {{- raise_exception('in the template mistral an answer is text or tool calls, not both') }}
        {%- endif %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in message.tool_calls %}
            {%- set function = call.function or call %}
            {{- ', ' if not loop.first else '' }}
            {{- '{"name": ' }}
            {{- function.name | tojson }}
            {{- ', "arguments": ' }}
            {%- set given = function.arguments or {} %}
            {{- given if given is string else given | tojson }}
            {{- '}' }}
        {%- endfor %}
        {{- ']' + '</s>' }}
    {%- else %}
        {{- ' ' + message.content + '</s>' }}
    {%- endif %}
{%- endfor %}"""


def render(
    messages: Sequence[dict[str, Any]],
    tools: Sequence[dict[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    *,
    bos: str = BOS,
    end: str = END,
) -> list[Span]:
    """The conversation as spans. `bos` begins the text, `end` ends an answer."""
    spans = [Span(bos, special=True)]
    if tools:
        spans += _between("[AVAILABLE_TOOLS]", " " + _calls.to_json(list(tools)), "[/AVAILABLE_TOOLS]")
    system = ""
    for i, message in enumerate(messages):
        role, content = message["role"], message.get("content") or ""
        if role == "system":
            system += content + "\n\n"
        elif role == "user":
            spans += _between("[INST]", f" {system}{content}", "[/INST]")
            system = ""
        elif role == "tool":
            spans += _between(
                "[TOOL_RESULTS]", f' {{"content": {_calls.to_json(content)}}}', "[/TOOL_RESULTS]"
            )
        elif calls := message.get("tool_calls"):
            if content:
                raise DataError("in the template mistral an answer is text or tool calls, not both")
            listed = ", ".join(map(_calls.written, calls))
            spans += [Span(_calls.MISTRAL, True, True, i), Span(f" [{listed}]", True, False, i)]
            spans.append(Span(end, True, True, i))
        else:
            spans += [Span(" " + content, True, False, i), Span(end, True, True, i)]
    return [span for span in spans if span.text]


def parse(text: str) -> dict[str, Any]:
    """What a model wrote, as {"role", "content", "tool_calls"}, and "error" where a call is malformed."""
    return _calls.mistral(text.removeprefix(" "))


def _between(begin: str, text: str, end: str) -> list[Span]:
    return [Span(begin, special=True), Span(text), Span(end, special=True)]
