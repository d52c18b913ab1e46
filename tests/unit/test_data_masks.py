"""What is learned under the chat templates of seventeen model families: exactly what the assistant writes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from formats import CALLS, CHAT, FORMATS, QWEN3, TOOLS, Format, says, system, user
from tinygpt.core.errors import ConfigError, DataError, UnsupportedError
from tinygpt.data.template import _choice
from tinygpt.data.template._own import Own
from tinygpt.data.template._spans import answers, encode, encode_many, join
from tinygpt.data.tokenizer import byte

OWN = {name: Own(format.tokenizer) for name, format in FORMATS.items()}
SINGLE = {name: f for name, f in FORMATS.items() if f.calls}


def written(spans: Any) -> list[str]:
    """What is learned, by message."""
    found: dict[int, str] = {}
    for span in spans:
        if span.learn:
            found[span.message] = found.get(span.message, "") + span.text
    return list(found.values())


def decoded(format: Format, spans: Any) -> str:
    """What is learned, through ids and back."""
    ids, learn = encode(spans, format.tokenizer)
    return format.tokenizer.decode([id for id, learned in zip(ids, learn, strict=True) if learned])


@pytest.mark.parametrize("name", FORMATS)
def test_learned_is_what_the_assistant_writes(name: str) -> None:
    """The table: every format, two answers, system message or not, and the last answer alone."""
    format, own = FORMATS[name], OWN[name]
    turns = CHAT if format.has_system else CHAT[1:]
    spans = own.render(turns)
    assert written(spans) == format.chat
    assert decoded(format, spans) == "".join(format.swallowed or format.chat)
    assert written(answers(spans, "last")) == format.chat[-1:]
    assert written(own.render(CHAT[1:])) == format.chat  # a default system message is never learned
    # What is asked is what was learned: the prompt's ids begin the conversation's, up to the answer.
    if name not in ("deepseek-r1", "mistral-v3"):  # their prompts differ from the finished conversation
        ids, learn = encode(spans, format.tokenizer)
        last = len(learn) - learn[::-1].index(False, learn[::-1].index(True))
        prompt, _ = encode(own.render(turns[:-1], None, True), format.tokenizer)
        assert ids[:last] == prompt
    # Every answer ends with a token that ends it at run time.
    ids, learn = encode(spans, format.tokenizer)
    ends = [id for id, here, after in zip(ids, learn, [*learn[1:], False], strict=True) if here and not after]
    assert set(ends) <= set(format.tokenizer.stop_ids) and len(ends) == 2


@pytest.mark.parametrize("name", SINGLE)
def test_calls_are_learned_and_results_never(name: str) -> None:
    format, own = FORMATS[name], OWN[name]
    spans = own.render(CALLS, TOOLS)
    assert written(spans) == format.calls
    assert decoded(format, spans) == "".join(format.calls or ())
    assert "a.txt" not in "".join(written(own.render(CALLS[:3], TOOLS)))


@pytest.mark.parametrize("name", ["chatml", "llama2", "gemma3", "command-r"])
def test_formats_without_calls_say_so(name: str) -> None:
    with pytest.raises(DataError, match="cannot write tool calls"):
        OWN[name].render(CALLS, TOOLS)


def test_thoughts_of_earlier_answers_are_dropped() -> None:
    """As the template writes them: an earlier thought is gone, in a loop of calls it stays."""
    thinks = "<think>\nhm {}\n</think>\n\n"
    turns = [user("a"), says(thinks.format(1) + "A."), user("b"), says(thinks.format(2) + "B.")]
    assert written(OWN["qwen3"].render(turns)) == ["A.<|im_end|>", thinks.format(2) + "B.<|im_end|>"]
    call = says(thinks.format(3), ("ls", {}))
    made = '<tool_call>\n{"name": "ls", "arguments": {}}\n</tool_call><|im_end|>'
    loop = [*turns[:3], call, {"role": "tool", "content": "x"}, says("C.")]
    empty = "<think>\n\n</think>\n\n"
    assert written(OWN["qwen3"].render(loop, TOOLS)) == [
        "A.<|im_end|>", thinks.format(3) + made, empty + "C.<|im_end|>"
    ]  # fmt: skip
    later = [*loop, user("d"), says("D.")]
    assert written(OWN["qwen3"].render(later, TOOLS)) == [
        "A.<|im_end|>", made, "C.<|im_end|>", empty + "D.<|im_end|>"
    ]  # fmt: skip
    ids, _ = encode(OWN["qwen3"].render(turns), FORMATS["qwen3"].tokenizer)
    assert FORMATS["qwen3"].tokenizer.special["<think>"] in ids  # an answer's tags are tokens


GENERATION = """{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant
{% generation %}{{ m.content }}HERE{% endgeneration %}THERE
{% else %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.mark.parametrize("end", ["HERE", "THERE"])
def test_generation_tags_say_what_is_learned(end: str) -> None:
    source = GENERATION.replace(end, "<|im_end|>").replace("HERE", "").replace("T<", "<").replace("T\n", "\n")
    own = Own(Format(source, "<|im_end|>", []).tokenizer)
    assert written(own.render(CHAT)) == FORMATS["chatml"].chat


HOSTILE = st.text(max_size=12) | st.sampled_from(
    [
        "<|im_end|>",
        "<|im_start|>assistant\n",
        "[INST]",
        "[/INST] no",
        "</s>",
        "<end_of_turn>\n",
        "</think>",
        "\ufeff",
    ]
    + ["<tool_call>", "<|eot_id|><|start_header_id|>user", " ", "\n\n", "aQ0x0Qb", "\U000f0000", "<think>\n"]
)
TEXT = st.lists(HOSTILE, min_size=1, max_size=4).map("".join).filter(str.strip)
EXACT = {
    "chatml": "<|im_end|>",
    "qwen2.5": "<|im_end|>",
    "granite3": "<|end_of_text|>",
    "no-prompt": "<|im_end|>",
}
STRIPS = {"llama3.1": "<|eot_id|>", "gemma3": "<end_of_turn>", "command-r": "<|END_OF_TURN_TOKEN|>"}


@pytest.mark.wide
@given(first=TEXT, second=TEXT, asked=TEXT, name=st.sampled_from([*EXACT, *STRIPS]))
@settings(max_examples=30, deadline=None)
def test_any_text_gives_an_exact_mask(first: str, second: str, asked: str, name: str) -> None:
    """Whatever people write, markers of the format included: learned are the two answers and their ends, and
    no text of a person becomes a control token."""
    format = FORMATS[name]
    turns = [system(asked), user(asked), says(first), user(second + asked), says(second)]
    spans = OWN[name].render(turns)
    end = EXACT.get(name) or STRIPS[name]
    expected = [(text.strip() if name in STRIPS else text) + end for text in (first, second)]
    assert written(spans) == expected
    assert decoded(format, spans) == "".join(expected)
    calm = [{**turn, "content": "x"} for turn in turns]
    tags = sum(text.count(tag) for text in (first, second) for tag in format.tokenizer.tags)
    control = [span for span in spans if span.special]
    assert len(control) <= len([s for s in OWN[name].render(calm) if s.special]) + tags


@pytest.mark.wide
@given(asked=TEXT, answer=TEXT)
@settings(max_examples=25, deadline=None)
def test_what_people_write_never_is_a_control_token(asked: str, answer: str) -> None:
    assume("</think>" not in answer)
    format = FORMATS["qwen3"]
    ids, _ = encode(OWN["qwen3"].render([user(asked), says(answer)]), format.tokenizer)
    control = [format.tokenizer.special[n] for n in ("<|im_start|>", "<|im_end|>")]
    assert [id for id in ids if id in control] == control * 2


def test_a_template_that_cannot_be_masked_is_refused() -> None:
    def refused(source: str, turns: Any, match: str) -> None:
        with pytest.raises(DataError, match=match):
            Own(Format(source, "<|im_end|>", []).tokenizer).render(turns)

    turns = [user("a"), says("b")]
    refused(
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}", turns, "no stop token"
    )
    refused("{{ messages[0].content }}<|im_end|>", turns, "leaves out message 2, an answer")
    refused("{{ raise_exception('not like this') }}", turns, "refuses the conversation: not like this")
    refused("{{ messages[5].content.strip() }}", turns, "cannot write this conversation")
    twice = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    twice += "{% if messages[1] %}{{ messages[1].content }}<|im_end|>{% endif %}"
    refused(twice, turns, "more than once")
    with pytest.raises(UnsupportedError, match="cannot be read"):
        Own(Format("{% if %}", "<|im_end|>", []).tokenizer).render(turns)


def test_spaces_that_tokens_swallow() -> None:
    """Phi's tokens take the line end after them: it has no id of its own, wherever pieces are cut."""
    format = FORMATS["phi3"]
    ids, _ = encode(OWN["phi3"].render(CHAT), format.tokenizer)
    text = format.tokenizer.decode(ids)
    assert "<|end|><|user|>Hello<|end|><|assistant|>Hi" in text and "<|end|>\n" not in text


def test_auto_is_the_models_own_else_chatml() -> None:
    own = _choice.of(FORMATS["llama2"].tokenizer)
    assert own.name == "base" and not own.note
    bare = FORMATS["llama2"].tokenizer.with_template(None)
    fallback = _choice.of(bare)
    assert fallback.name == "chatml" and "no chat template of its own" in fallback.note
    assert written(fallback.render(CHAT))[-1].endswith("\n</s>")  # it learns to stop with a token that it has
    assert join(fallback.render(CHAT)) == Own(bare.with_template(fallback.source)).text(CHAT)
    with pytest.raises(ConfigError, match="no chat template of its own"):
        _choice.of(bare, "base")
    with pytest.raises(ConfigError, match=r"chatmll.*chatml"):
        _choice.of(bare, "chatmll")
    assert _choice.of(byte.load()).name == "chatml" and not _choice.of(byte.load()).note


def test_a_named_template_travels_with_the_model(tmp_path: Any) -> None:
    from tinygpt.data.tokenizer import hf

    base = FORMATS["llama2"].tokenizer
    chosen = _choice.of(base, "alpaca")
    _choice.saved(base, chosen).save(tmp_path)
    again = _choice.of(hf.load(tmp_path))
    assert again.name == "alpaca" and again.render(CHAT) == chosen.render(CHAT)
    assert _choice.saved(base, _choice.of(base)) is base


def test_tools_have_a_template_of_their_own(tmp_path: Any) -> None:
    """Named templates are read from a list or from files; the one for tools is taken for tools."""
    from tinygpt.core.files import write_text
    from tinygpt.data.tokenizer import hf

    with_tools = QWEN3 + "{# tools #}"
    named = [
        {"name": "default", "template": FORMATS["chatml"].source},
        {"name": "tool_use", "template": with_tools},
    ]
    tokenizer = FORMATS["qwen3"].tokenizer.with_template(named)  # type: ignore[arg-type]
    tokenizer.save(tmp_path / "list")
    FORMATS["qwen3"].tokenizer.save(tmp_path / "files")
    write_text(tmp_path / "files" / "chat_template.jinja", FORMATS["chatml"].source)
    write_text(tmp_path / "files" / "additional_chat_templates" / "tool_use.jinja", with_tools)
    for folder in ("list", "files"):
        own = Own(hf.load(tmp_path / folder))
        assert written(own.render(CHAT)) == FORMATS["chatml"].chat
        assert written(own.render(CALLS, TOOLS)) == FORMATS["qwen3"].calls


def test_calls_are_read_as_each_family_writes_them() -> None:
    call = {"name": "ls", "arguments": {"path": "a <b>"}}
    for name, format in SINGLE.items():
        if name == "granite3":
            continue  # its form has no parser: the call stays text
        assert format.calls
        message = OWN[name].parse(format.calls[0])
        assert message["tool_calls"] == [call] and not message["content"].strip() and "error" not in message
        assert OWN[name].parse(format.calls[1])["content"].strip() == "There is a.txt."
    broken = OWN["mistral-v3"].parse("[TOOL_CALLS] [{")
    assert not broken["tool_calls"] and "not JSON" in broken["error"]
    assert OWN["llama3.1"].parse('{"a": 1}')["content"] == '{"a": 1}'
    newer = Own(Format("{# [TOOL_CALLS] #}", "</s>", []).tokenizer).parse(
        '[TOOL_CALLS]ls[ARGS]{"path": "a <b>"}'
    )
    assert newer["tool_calls"] == [call]


def test_many_at_once_are_as_one_by_one() -> None:
    format, own = FORMATS["mistral-v1"], OWN["mistral-v1"]
    some = [own.render(CHAT[:n]) for n in (2, 3, 5)]
    assert encode_many(some, format.tokenizer) == [encode(s, format.tokenizer) for s in some]
    assert not re.search(r"\bQq\b", join(some[-1]))


@pytest.mark.parametrize("asked", ["q", "b", "about", "bad", "dad", ""])
def test_a_header_is_never_taken_for_the_answer(asked: str) -> None:
    """A template that ends whatever stands last: its prompt is no beginning of the conversation, and what
    they have in common after the question is no header, whatever the question ends with."""
    source = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token if loop.last }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    own = Own(byte.load().with_template(source))
    with pytest.raises(DataError, match="does not show where the answer in message 2 begins"):
        own.render([user(asked), says("one")])


def test_ids_of_calls_fit_the_template_and_results_their_calls() -> None:
    """Mistral's takes ids of nine letters only; a result that says whose it is gets that call's name."""
    calls = [{"name": name, "arguments": {}, "id": f"call_{name}_long"} for name in ("ls", "cat")]
    results = [{"role": "tool", "content": n, "tool_call_id": f"call_{n}_long"} for n in ("cat", "ls")]
    turns = [user("go"), {"role": "assistant", "content": "", "tool_calls": calls}, *results, says("A.")]
    for name, ids in (
        ("qwen3", ["call_cat_long", "call_ls_long"]),
        ("mistral-v3", ["call00002", "call00001"]),
    ):
        made = OWN[name].prepared(turns, TOOLS)
        assert [(m["tool_call_id"], m["name"]) for m in made[2:4]] == [(ids[0], "cat"), (ids[1], "ls")]
        assert [call["id"] for call in made[1]["tool_calls"]] == ids[::-1]
        assert OWN[name].prepared(made, TOOLS) == made
    [first, last] = written(OWN["mistral-v3"].render(turns, TOOLS))
    assert '"id": "call00001"' in first and last.endswith("A.</s>")
