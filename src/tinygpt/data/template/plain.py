"""Plain: the request, a space, the answer, and the end of text; no markers at all.

    What is the capital of France? Paris.</s>
    And of Italy? Rome.</s>

For models that continue text, and for tasks where a request has one form. The space belongs to the answer, as
most tokenizers keep it with the word after it. The end of the text is learned. There is no form for tools.
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygpt.data.template._spans import Span, no_tools

BOS, END = "", "</s>"

CHAT_TEMPLATE = """\
{%- if tools %}
    {{- raise_exception('the template plain has no form for tools') }}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls or message.role == 'tool' %}
        {{- raise_exception('the template plain has no form for tools') }}
    {%- elif message.role == 'system' %}
        {{- message.content + '\\n' }}
    {%- elif message.role == 'user' %}
        {{- message.content }}
    {%- else %}
        {{- ' ' + message.content + '</s>' + '\\n' }}
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
    """The conversation as spans; DataError for tools. `end` ends an answer; `bos` is not used."""
    no_tools("plain", messages, tools)
    spans: list[Span] = []
    for i, message in enumerate(messages):
        content = message.get("content") or ""
        if message["role"] == "assistant":
            spans += [Span(" " + content, True, False, i), Span(end, True, True, i), Span("\n")]
        else:
            spans.append(Span(content + ("\n" if message["role"] == "system" else "")))
    return spans


def parse(text: str) -> dict[str, Any]:
    """What a model wrote, as {"role", "content", "tool_calls"}; the space before it is the template's."""
    return {"role": "assistant", "content": text.removeprefix(" "), "tool_calls": []}
