"""Chat templates of seventeen model families, and what an assistant writes in each.

They are in our own words after each format's public description. What is learned is written by hand: nothing
here is computed by the code under test."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from tinygpt.data.bpe import Config, train_bpe
from tinygpt.data.tokenizer.hf import HFTokenizer

NAMES = re.compile(
    r"<\|[^|<>']{1,40}\|>|<｜[^｜<>']{1,40}｜>|\[/?[A-Z_]{3,}\]|<(?:start|end)_of_turn>|</?s>|<bos>|</?think>"
    r"|</?tool_call>|</?tool_response>"
)
TAGS = re.compile(r"</?(?:think|tool_call|tool_response)>")

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "ls",
            "description": "List files.",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
        },
    }
]


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str, *calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    made = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return {"role": "assistant", "content": text} | ({"tool_calls": made} if made else {})


CHAT = [system("Be brief."), user("Hello"), says("Hi <b>you</b>."), user(" More? "), says(" No, \n ünd.\n")]
CALLS = [
    user("List."),
    says("", ("ls", {"path": "a <b>"})),
    {"role": "tool", "content": "a.txt"},
    says("There is a.txt."),
    user("Thanks"),
    says("Bye."),
]


@dataclass(frozen=True)
class Format:
    """A template, its end of text, and what is learned of CHAT and of CALLS (None: it has no form for it)."""

    source: str
    eos: str
    chat: list[str]
    calls: list[str] | None = None
    stops: tuple[str, ...] = ()
    bos: str | None = "<s>"
    has_system: bool = True
    strips_after: tuple[str, ...] = ()
    swallowed: tuple[str, ...] = ()
    """What is learned of CHAT once tokens have taken the blanks after them."""

    @functools.cached_property
    def tokenizer(self) -> HFTokenizer:
        """A small byte-level tokenizer with this format's control tokens."""
        found = [hit[0] for hit in NAMES.finditer(self.source)]
        names = list(dict.fromkeys(["<|endoftext|>", "<s>", "</s>", self.eos, *self.stops, *found]))
        made = train_bpe(
            ["There is a file, and the answer"] * 3, Config(vocab_size=270 + len(names)), special=names
        )
        for token in made.definition["added_tokens"]:
            token["special"] = not TAGS.fullmatch(token["content"])
            token["rstrip"] = token["content"] in self.strips_after
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": self.eos, "bos_token": self.bos,
            "chat_template": self.source, "clean_up_tokenization_spaces": False,
        }  # fmt: skip
        return HFTokenizer(made.definition, {"tokenizer_config.json": settings})


CHATML = """{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}\
{{ '<|im_end|>' + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

QWEN25 = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {{- messages[0].content if messages[0].role == 'system' else 'You are a helper.' }}
    {{- '\\n\\n# Tools\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
    {{- '\\n</tools>\\nCalls go into <tool_call></tool_call>.<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helper.<|im_end|>\\n' }}
{%- endif %}
{%- for m in messages %}
    {%- if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- elif m.role == 'assistant' %}
        {{- '<|im_start|>assistant' }}
        {%- if m.content %}{{- '\\n' + m.content }}{%- endif %}
        {%- for call in m.tool_calls %}
            {%- if call.function is defined %}{%- set call = call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' ~ call.name ~ '", "arguments": ' }}
            {{- call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif m.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

# Thoughts of answers before the last request are dropped; the last answer has one, if an empty one.
QWEN3 = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}{{- (tool | tojson) + '\\n' }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {%- set thought = '' %}
        {%- set content = m.content or '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\\n' + thought + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
        {%- for call in m.tool_calls or [] %}
            {%- if content or not loop.first %}{{- '\\n' }}{%- endif %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif m.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

LLAMA2 = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set rest = messages[1:] %}
    {%- set about = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
{%- else %}{%- set rest = messages %}{%- set about = '' %}{%- endif %}
{%- for m in rest %}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- if m['role'] == 'user' %}
        {{- bos_token + '[INST] ' + (about if loop.first else '') + m['content'].strip() + ' [/INST]' }}
    {%- else %}
        {{- ' ' + m['content'].strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}"""

LLAMA31 = """\
{{- bos_token }}
{%- set about = '' %}{%- set rest = messages %}
{%- if messages[0]['role'] == 'system' %}
    {%- set about = messages[0]['content'] | trim %}{%- set rest = messages[1:] %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n\\n' }}
{{- about + '<|eot_id|>' }}
{%- for m in rest %}
    {%- if m.role == 'user' and loop.first and tools is not none %}
        {{- '<|start_header_id|>user<|end_header_id|>\\n\\nFunctions:\\n' }}
        {%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}
        {{- m.content | trim + '<|eot_id|>' }}
    {%- elif m.tool_calls %}
        {%- if m.tool_calls | length != 1 %}{{- raise_exception('one call at a time') }}{%- endif %}
        {%- set call = m.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}
        {{- '}<|eot_id|>' }}
    {%- elif m.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + (m.content | tojson) + '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

MISTRAL1 = """\
{{ bos_token }}{% set ns = namespace(about='') %}{% for m in messages %}{% if m['role'] == 'system' %}\
{% set ns.about = m['content'] + '\n\n' %}{% elif m['role'] == 'user' %}\
{{ '[INST] ' + ns.about + m['content'] + ' [/INST]' }}{% set ns.about = '' %}\
{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"""

# The system message and the tools come before the last request; calls have ids of nine characters.
MISTRAL3 = """\
{{- bos_token }}
{%- set about = '' %}{%- set rest = messages %}
{%- if messages[0].role == 'system' %}
    {%- set about = messages[0].content %}{%- set rest = messages[1:] %}
{%- endif %}
{%- set requests = rest | selectattr('role', 'equalto', 'user') | list %}
{%- for m in rest %}
    {%- if m.role == 'user' %}
        {%- if tools is not none and m == requests[-1] %}
            {{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {%- if loop.last and about %}
            {{- '[INST] ' + about + '\\n\\n' + m.content + '[/INST]' }}
        {%- else %}
            {{- '[INST] ' + m.content + '[/INST]' }}
        {%- endif %}
    {%- elif m.tool_calls %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in m.tool_calls %}
            {%- if call.id | length != 9 %}{{- raise_exception('ids have nine characters') }}{%- endif %}
            {%- set out = call.function | tojson %}
            {{- out[:-1] + ', "id": "' + call.id + '"}' + (']' + eos_token if loop.last else ', ') }}
        {%- endfor %}
    {%- elif m.role == 'assistant' %}
        {{- ' ' + m.content | trim + eos_token }}
    {%- else %}
        {{- '[TOOL_RESULTS] {"content": ' + m.content | string + ', "call_id": "' + m.tool_call_id + '"}' }}
        {{- '[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}"""

GEMMA2 = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
{{ raise_exception('System role not supported') }}{% endif %}\
{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}\
{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"""

GEMMA3 = """\
{{- bos_token -}}
{%- set first = messages[0]['content'] + '\\n\\n' if messages[0]['role'] == 'system' else '' -%}
{%- set rest = messages[1:] if messages[0]['role'] == 'system' else messages -%}
{%- for m in rest -%}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('roles must alternate') -}}
    {%- endif -%}
    {{- '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' -}}
    {{- first if loop.first else '' -}}
    {{- m['content'] | trim -}}{{- '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""

PHI3 = """{% for m in messages %}{{'<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n'}}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""

ZEPHYR = """{% for m in messages %}\n{% if m['role'] == 'user' %}\n\
{{ '<|user|>\n' + m['content'] + eos_token }}\n\
{% elif m['role'] == 'system' %}\n{{ '<|system|>\n' + m['content'] + eos_token }}\n\
{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + m['content'] + eos_token }}\n{% endif %}\n\
{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"""

# Without thinking, the prompt holds an empty thought already.
SMOLLM3 = """\
{%- if enable_thinking is not defined %}{%- set enable_thinking = false %}{%- endif %}
{{- '<|im_start|>system\\n## Metadata\\nReasoning Mode: ' }}
{{- ('/think' if enable_thinking else '/no_think') + '\\n\\n' }}
{{- messages[0].content if messages[0].role == 'system' else 'You are SmolLM.' }}
{%- if tools %}{{- '\\n\\n### Tools\\n' + (tools | tojson) }}{%- endif %}
{{- '<|im_end|>\\n' }}
{%- for m in messages %}
    {%- if m.role == 'user' %}{{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}
    {%- elif m.role == 'tool' %}{{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}
    {%- elif m.role == 'assistant' %}
        {%- generation %}
        {{- '<|im_start|>assistant\\n' + ('' if enable_thinking else '<think>\\n\\n</think>\\n') }}
        {{- m.content.lstrip('\\n') }}
        {%- for call in m.tool_calls or [] %}
            {{- '<tool_call>' + (call.function | tojson) + '</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
        {%- endgeneration %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' + ('' if enable_thinking else '<think>\\n\\n</think>\\n') }}
{%- endif %}"""

GRANITE3 = """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|start_of_role|>system<|end_of_role|>You are Granite.<|end_of_text|>\\n' }}
{%- endif %}
{%- if tools %}
    {{- '<|start_of_role|>available_tools<|end_of_role|>' + (tools | tojson) + '<|end_of_text|>\\n' }}
{%- endif %}
{%- for m in messages %}
    {%- if m.role == 'assistant' and m.tool_calls %}
        {{- '<|start_of_role|>assistant<|end_of_role|><|tool_call|>' }}
        {{- m.tool_calls | map(attribute='function') | list | tojson }}
        {{- '<|end_of_text|>\\n' }}
    {%- else %}
        {{- '<|start_of_role|>' + ('tool_response' if m.role == 'tool' else m.role) + '<|end_of_role|>' }}
        {{- m.content + '<|end_of_text|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}"""

OLMO2 = """{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}\
{{ '<|system|>\n' + m['content'] + '\n' }}\
{% elif m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '\n' }}{% elif m['role'] == 'assistant' %}\
{{ '<|assistant|>\n' + m['content'] + eos_token + ('' if loop.last else '\n') }}{% endif %}\
{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"""

# The prompt opens a thought; a rendered answer has none.
DEEPSEEK = """\
{{- bos_token }}
{%- for m in messages %}
    {%- if m.role == 'system' %}{{- m.content }}
    {%- elif m.role == 'user' %}{{- '<｜User｜>' + m.content }}
    {%- elif m.role == 'assistant' %}
        {%- set content = m.content.split('</think>')[-1] if '</think>' in m.content else m.content %}
        {{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\\n' }}{%- endif %}"""

COMMAND_R = """{{ bos_token }}{% for m in messages %}\
{% set role = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'}[m['role']] %}\
{{ '<|START_OF_TURN_TOKEN|><|' + role + '_TOKEN|>' + m['content'].strip() }}\
{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}\
{# <|SYSTEM_TOKEN|><|USER_TOKEN|> #}"""

# Older templates have no prompt for an answer.
OLD = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"

HI, NO, BARE = "Hi <b>you</b>.", " No, \n ünd.\n", "No, \n ünd."
CALL = '{"name": "ls", "arguments": {"path": "a <b>"}}'
TAGGED = f"<tool_call>\n{CALL}\n</tool_call>"
THERE, BYE, EMPTY = "There is a.txt.", "Bye.", "<think>\n\n</think>\n\n"
PHI = ("<|end|>", "<|user|>", "<|system|>", "<|assistant|>")


def ended(end: str, *texts: str) -> list[str]:
    return [text + end for text in texts]


IM, EOT, EOS, TURN, DONE = "<|im_end|>", "<|eot_id|>", "</s>", "<end_of_turn>", "<|end_of_text|>"
DEEP, COHERE = "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>"
LLAMA_CALL = '{"name": "ls", "parameters": {"path": "a <b>"}}'
MISTRAL_CALL = f'[TOOL_CALLS] [{CALL[:-1]}, "id": "call00001"}}]'

FORMATS = {
    "chatml": Format(CHATML, IM, ended(IM, HI, NO), bos=None),
    "qwen2.5": Format(QWEN25, IM, ended(IM, HI, NO), ended(IM, TAGGED, THERE, BYE), bos=None),
    "qwen3": Format(QWEN3, IM, ended(IM, HI, EMPTY + NO), ended(IM, TAGGED, THERE, EMPTY + BYE), bos=None),
    "llama2": Format(LLAMA2, EOS, ended(f" {EOS}", f" {HI}", f" {BARE}")),
    "llama3.1": Format(LLAMA31, EOT, ended(EOT, HI, BARE), ended(EOT, LLAMA_CALL, THERE, BYE)),
    "mistral-v1": Format(MISTRAL1, EOS, ended(EOS, f" {HI}", f" {NO}")),
    "mistral-v3": Format(
        MISTRAL3, EOS, ended(EOS, f" {HI}", f" {BARE}"), ended(EOS, MISTRAL_CALL, f" {THERE}", f" {BYE}")
    ),
    "gemma2": Format(GEMMA2, TURN, ended(TURN, HI, BARE), has_system=False),
    "gemma3": Format(GEMMA3, TURN, ended(TURN, HI, BARE)),
    "phi3": Format(
        PHI3, "<|endoftext|>", ended("<|end|>", HI, NO), bos=None, stops=PHI, strips_after=PHI,
        swallowed=tuple(ended("<|end|>", HI, NO.lstrip())),
    ),
    "zephyr": Format(ZEPHYR, EOS, ended(EOS, HI, NO)),
    "smollm3": Format(
        SMOLLM3, IM, ended(IM, HI, NO), ended(IM, f"<tool_call>{CALL}</tool_call>", THERE, BYE), bos=None
    ),
    "granite3": Format(
        GRANITE3, DONE, ended(DONE, HI, NO), ended(DONE, f"<|tool_call|>[{CALL}]", THERE, BYE), bos=None
    ),
    "olmo2": Format(OLMO2, "<|endoftext|>", ended("<|endoftext|>", HI, NO), bos="<|endoftext|>"),
    "deepseek-r1": Format(DEEPSEEK, DEEP, ended(DEEP, HI, NO), stops=("<｜User｜>",)),
    "command-r": Format(COMMAND_R, COHERE, ended(COHERE, HI, BARE)),
    "no-prompt": Format(OLD, IM, ended(IM, HI, NO), bos=None),
}  # fmt: skip
