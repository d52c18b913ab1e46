"""Prompts say roles, tools, reasoning, beginnings and gaps in the words of the model's own template."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tinygpt.core.errors import ConfigError
from tinygpt.data.template import _choice
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.serve import fim, prompts
from tinygpt.serve.fields import FieldError

HEAD = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
)
SWITCH = (
    HEAD + "{%- if enable_thinking is defined and not enable_thinking %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)
OPENS = HEAD + "{{- '<think>\\n' }}{%- endif %}"
STRICT = (
    "{%- if messages[0].role == 'system' %}{{- raise_exception('no system here') }}{%- endif %}"
    "{%- for m in messages %}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate') }}{%- endif %}{%- endfor %}" + HEAD + "{%- endif %}"
)
USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "ls", "description": "List.", "parameters": {}}}


def _engine(source: str | None = None, name: str = "auto") -> Any:
    tokenizer = ByteTokenizer(source)
    return SimpleNamespace(tokenizer=tokenizer, template=_choice.of(tokenizer, name))


def _said(engine: Any, messages: list[dict[str, Any]], *args: Any, **options: Any) -> str:
    return engine.tokenizer.decode(prompts.of_chat(engine, messages, *args, **options).ids)


def test_the_prompt_is_that_of_the_template() -> None:
    engine = _engine()
    from tinygpt.data.template._spans import encode

    messages = [{"role": "system", "content": "S"}, USER]
    expected = encode(engine.template.render(messages, [TOOL], True), engine.tokenizer)[0]
    assert prompts.of_chat(engine, messages, [TOOL]).ids == expected


def test_roles_that_a_template_lacks_are_said_in_those_it_has() -> None:
    system, developer = {"role": "system", "content": "A"}, {"role": "developer", "content": "B"}
    assert _said(_engine(), [system, developer, USER]).startswith(
        "<|im_start|>system\nA\n\nB<|im_end|>\n<|im_start|>user"
    )
    knows = _engine(HEAD + "{%- endif %}{# developer #}")
    assert "<|im_start|>developer\nB" in _said(knows, [developer, USER])
    folded = "<|im_start|>user\nA\n\nB\n\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert _said(_engine(STRICT), [system, developer, USER]) == folded
    two = _said(_engine(STRICT), [system, USER, USER])
    assert two == "<|im_start|>user\nA\n\nHi\n\nHi<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(ConfigError, match="roles must alternate"):
        prompts.of_chat(_engine(STRICT), [{"role": "assistant", "content": "x"}, USER])
    with pytest.raises(ConfigError, match="no chat template"):
        prompts.of_chat(SimpleNamespace(template=None), [USER])  # type: ignore[arg-type]


def test_tools_reach_a_model_whose_template_has_no_form_for_them() -> None:
    call = {"name": "ls", "arguments": {"path": "/"}}
    messages = [
        {"role": "system", "content": "S"}, USER,
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": call}]},
        {"role": "tool", "tool_call_id": "1", "content": "a.txt"},
    ]  # fmt: skip
    for engine in (_engine(SWITCH), _engine(name="llama2")):
        said = _said(engine, messages, [TOOL])
        assert '"name": "ls", "description": "List."' in said and "S\n\nYou can use these tools" in said
        assert '<tool_call>\n{"name": "ls", "arguments": {"path": "/"}}\n</tool_call>' in said
        assert "<tool_response>\na.txt\n</tool_response>" in said
        assert "<tool_call>" in prompts.of_chat(engine, messages, [TOOL]).source


def test_reasoning_is_switched_where_the_template_can_be_told_and_known_where_it_is_open() -> None:
    engine = _engine(SWITCH)
    assert _said(engine, [USER], think=False).endswith("assistant\n<think>\n\n</think>\n\n")
    assert _said(engine, [USER], think=True).endswith("assistant\n")
    assert prompts.of_chat(engine, [USER]).thinks and not prompts.of_chat(engine, [USER], think=False).thinks
    opens = prompts.of_chat(_engine(OPENS), [USER])
    assert opens.opened and opens.think == ("<think>", "</think>")
    assert not prompts.of_chat(engine, [USER]).opened
    mistral = prompts.of_chat(_engine(HEAD + "{{- '[THINK]' }}{%- endif %}{# [/THINK] #}"), [USER])
    assert mistral.opened and mistral.think == ("[THINK]", "[/THINK]")
    bare = prompts.of_chat(_engine(HEAD + "{{- '[THINK]' }}{%- endif %}{# [/THINK] #}"), [USER], bare=True)
    assert not bare.opened  # a grammar would have to know these marks


def test_an_answer_that_was_begun_is_gone_on_with() -> None:
    messages = [USER, {"role": "assistant", "content": "Well, I"}]
    assert _said(_engine(), messages, prefill=True).endswith("<|im_start|>assistant\nWell, I")
    assert _said(_engine(SWITCH), messages, prefill=True).endswith("</think>\n\nWell, I")
    opened = prompts.of_chat(_engine(OPENS), messages, prefill=True)
    assert not opened.opened and ByteTokenizer().decode(opened.ids).endswith("<think>\n\n</think>\n\nWell, I")
    assert _said(_engine(name="mistral"), messages, prefill=True).endswith("[/INST] Well, I")
    with pytest.raises(ConfigError, match="can be continued"):
        prompts.of_chat(_engine(), [USER], prefill=True)


def test_the_boundary_is_where_conversations_of_one_system_part() -> None:
    engine = _engine()
    system = {"role": "system", "content": "Be brief."}
    one = prompts.of_chat(engine, [system, USER, {"role": "assistant", "content": "x"}, USER], [TOOL])
    other = prompts.of_chat(engine, [system, {"role": "user", "content": "Else"}], [TOOL])
    (at,) = one.boundaries
    assert (
        one.boundaries == other.boundaries and one.ids[:at] == other.ids[:at] and one.ids[at] != other.ids[at]
    )
    assert engine.tokenizer.decode(one.ids[:at]).endswith("<|im_end|>\n<|im_start|>user\n")
    assert prompts.of_chat(engine, [USER]).boundaries == ()


SETS = {
    "qwen": (("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"), "PaSbM"),
    "starcoder": (("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), "PaSbM"),
    "codellama": (("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"), "PaSbM"),
    "deepseek": (("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"), "PaSbM"),
    "codestral": (("[PREFIX]", "[SUFFIX]"), "SbPa"),
}


@pytest.mark.parametrize("name", SETS)
def test_a_gap_is_told_in_the_models_own_tokens(name: str) -> None:
    names, expected = SETS[name]
    tokenizer: Any = ByteTokenizer()
    tokenizer.special = {
        **tokenizer.special,
        **{n: 260 + i for i, n in enumerate(names)},
        "<|file_sep|>": 270,
    }
    ids, ends = fim.prompt(tokenizer, "a", "b")
    letters = {260: "P", 261: "S", 262: "M"}
    assert "".join(letters.get(id) or chr(id) for id in ids) == expected
    assert ends == {270, *range(260, 260 + len(names))}
    with pytest.raises(FieldError, match="fill in a gap"):
        fim.prompt(ByteTokenizer(), "a", "b")
