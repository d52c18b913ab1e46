"""Alpaca: "### Instruction:" and "### Response:", an old form for models without control tokens.

    Be brief.                   a system message, if there is one

    ### Instruction:
    What is the capital of France?

    ### Response:
    Paris.</s>

The end of an answer is the tokenizer's end of text, and it is learned: without it a model goes on with an
instruction of its own. There is no form for tools.
Paper: Taori et al. 2023 (Stanford Alpaca)
Differs: conversations of several turns; no sentence before the first instruction unless the system gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygpt.data.template._spans import Span, no_tools

BOS, END = "", "</s>"

ASK, ANSWER = "### Instruction:\n", "### Response:\n"

CHAT_TEMPLATE = """\
{%- if tools %}
    {{- raise_exception('the template alpaca has no form for tools') }}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls or message.role == 'tool' %}
        {{- raise_exception('the template alpaca has no form for tools') }}
    {%- elif message.role == 'system' %}
        {{- message.content + '\\n\\n' }}
    {%- elif message.role == 'user' %}
        {{- '### Instruction:\\n' + message.content + '\\n\\n' }}
    {%- else %}
        {{- '### Response:\\n' + message.content + '</s>' + '\\n\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '### Response:\\n' }}
{%- endif %}"""


def render(
    messages: Sequence[dict[str, Any]],
    tools: Sequence[dict[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    *,
    bos: str = BOS,
    end: str = END,
) -> list[Span]:
    """The conversation as spans; DataError for tools. `end` ends an answer; `bos` is not used."""
    no_tools("alpaca", messages, tools)
    spans: list[Span] = []
    for i, message in enumerate(messages):
        content = message.get("content") or ""
        if message["role"] == "assistant":
            spans += [Span(ANSWER), Span(content, True, False, i), Span(end, True, True, i), Span("\n\n")]
        else:
            spans.append(Span((ASK if message["role"] == "user" else "") + content + "\n\n"))
    return [*spans, Span(ANSWER)] if add_generation_prompt else spans


def parse(text: str) -> dict[str, Any]:
    """What a model wrote, as {"role", "content", "tool_calls"}."""
    return {"role": "assistant", "content": text, "tool_calls": []}
