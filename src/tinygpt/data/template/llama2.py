"""Llama 2: requests in [INST] ... [/INST], the system message in <<SYS>> inside the first one.

    <s>[INST] <<SYS>>
    Be brief.
    <</SYS>>

    What is the capital of France? [/INST] Paris. </s><s>[INST] And of Italy? [/INST] Rome. </s>

Every exchange begins and ends a text. The answer, the spaces around it and </s> are learned: that is what the
model writes after [/INST]. Turns alternate, and there is no form for tools.
Paper: Touvron et al. 2023, arXiv:2307.09288
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data.template._spans import Span, no_tools

BOS, END = "<s>", "</s>"

CHAT_TEMPLATE = """\
{%- if tools %}
    {{- raise_exception('the template llama2 has no form for tools') }}
{%- endif %}
{%- set ns = namespace(system='', asked=false) %}
{%- for message in messages %}
    {%- if message.tool_calls or message.role == 'tool' %}
        {{- raise_exception('the template llama2 has no form for tools') }}
    {%- elif message.role == 'system' %}
        {%- if not loop.first %}
            {{- raise_exception('the template llama2 has one system message, at the beginning') }}
        {%- endif %}
        {%- set ns.system = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' %}
    {%- elif (message.role == 'user') == ns.asked %}
        {{- raise_exception('in the template llama2 requests and answers alternate') }}
    {%- elif message.role == 'user' %}
        {{- '<s>' + '[INST] ' + ns.system + message.content.strip() + ' [/INST]' }}
        {%- set ns.system = '' %}
        {%- set ns.asked = true %}
    {%- else %}
        {{- ' ' + message.content.strip() + ' ' + '</s>' }}
        {%- set ns.asked = false %}
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
    """The conversation as spans; DataError for tools, or turns that do not alternate. `bos` and `end` begin
    and end an exchange."""
    no_tools("llama2", messages, tools)
    spans: list[Span] = []
    system, asked = "", False
    for i, message in enumerate(messages):
        role, content = message["role"], message.get("content") or ""
        if role == "system":
            if i:
                raise DataError("the template llama2 has one system message, at the beginning")
            system = f"<<SYS>>\n{content}\n<</SYS>>\n\n"
        elif (role == "user") == asked:
            raise DataError("in the template llama2 requests and answers alternate")
        elif role == "user":
            spans += [Span(bos, special=True), Span("[INST]", special=True)]
            spans += [Span(f" {system}{content.strip()} "), Span("[/INST]", special=True)]
            system, asked = "", True
        else:
            spans += [Span(f" {content.strip()} ", True, False, i), Span(end, True, True, i)]
            asked = False
    return [span for span in spans if span.text]


def parse(text: str) -> dict[str, Any]:
    """What a model wrote, as {"role", "content", "tool_calls"}."""
    return {"role": "assistant", "content": text.strip(), "tool_calls": []}
