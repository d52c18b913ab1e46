"""What run-lm-eval decides by itself: ids, answers, what a server may say, scores with failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core.errors import ConfigError, RemoteError, UnsupportedError
from tinygpt.core.files import write_json
from tinygpt.data.tokenizer import hf
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.runs import _lm_eval_knobs
from tinygpt.runs._lm_eval_asked import Config
from tinygpt.runs._lm_eval_http import told
from tinygpt.runs._lm_eval_model import answered, chat_text
from tinygpt.runs._lm_eval_rows import Part
from tinygpt.runs._lm_eval_words import Words
from tinygpt.runs._pieces import template_of


def test_settings_of_answers_are_those_of_who_answers() -> None:
    nano.require("lm_eval")
    assert _lm_eval_knobs.parse("temperature=0.7, top_p=.9", "tinygpt") == {"temperature": 0.7, "top_p": 0.9}
    assert _lm_eval_knobs.parse("", "tinygpt") == {}
    with pytest.raises(ConfigError, match="no setting 'frequency_penalty'"):
        _lm_eval_knobs.parse("frequency_penalty=1", "tinygpt")
    assert _lm_eval_knobs.parse("frequency_penalty=1", "local-completions") == {"frequency_penalty": 1}
    with pytest.raises(ConfigError, match="no setting 'top_q'. Did you mean 'top_p'"):
        _lm_eval_knobs.parse("top_q=1", "local-chat-completions")


def test_answers_without_thoughts_and_stop_texts() -> None:
    assert answered("a b\nc", ["\n", "z"], "") == "a b"
    assert answered("<think>x\ny</think>\n 4\n5", ["\n"], "</think>") == "4", "stop texts end no thought"
    assert answered("x\ny</think> 4", [], "</think>", "<think>\n") == "4", "the prompt opened it"
    assert answered("<think>so 4", [], "</think>") == "", "a thought that did not end is no answer"
    assert answered("so 4", [], "</think>", "...<think>\n") == ""
    assert answered("so 4", [], "</think>") == "so 4", "nothing was thought"
    assert answered("4</s>5", ["", "</s>"], "") == "4"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    ByteTokenizer().save(tmp_path)
    return tmp_path


def test_ids_before_a_text(saved: Path) -> None:
    plain = Words(hf.load(saved))
    assert plain.encode("a<|im_end|>") == [97, 258] and plain.prefix == plain.eot == 256
    assert plain.decode([97, 258, 98]) == "ab", "control tokens are no part of an answer"
    settings, definition = saved / "tokenizer_config.json", saved / "tokenizer.json"
    made = hf.load(saved)
    write_json(settings, {"eos_token": "<|endoftext|>", "bos_token": "<|im_start|>"})
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [257], "tokens": ["<|im_start|>"]}},
    }  # fmt: skip
    write_json(definition, {**made.definition, "post_processor": template})
    words = Words(hf.load(saved))
    assert words.prefix == 257 and words.encode("a") == [257, 97]
    assert words.encode("<|im_start|>a") == [257, 97], "a text that begins with bos has it already"
    assert words.encode("a", False) == [97] == Words(hf.load(saved), add_bos=False).encode("a")
    write_json(settings, {"eos_token": "<|endoftext|>", "bos_token": "<|im_start|>", "add_bos_token": False})
    assert Words(hf.load(saved)).encode("a") == [97], "the settings have the last word"
    assert Words(hf.load(saved), add_bos=True).encode("a") == [257, 97]


def test_a_conversation_may_stay_open() -> None:
    template = template_of(ByteTokenizer())
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "The answer"}]
    begun = chat_text(template, talk[:1])
    assert begun.endswith("<|im_start|>assistant\n")
    assert chat_text(template, talk, add_generation_prompt=False) == begun + "The answer"


def echoed(values: list[Any], tops: Any = None) -> dict[str, Any]:
    tops = [None, *[{"x": v} for v in values[1:]]] if tops is None else tops
    return {"logprobs": {"token_logprobs": values, "top_logprobs": tops}}


def test_what_a_server_must_tell() -> None:
    assert told(echoed([None, -1.0, -2.0]), 2, "/completions") == [-1.0, -2.0]
    wrong = [
        {}, {"logprobs": None}, echoed([]), echoed([None, -1.0]), echoed([-1.0, -1.0, -2.0]),
        echoed([None, -1.0, None]), echoed([None, 0.5, -1.0]), echoed([None, -1.0, float("nan")]),
        echoed([None, -1.0, -2.0], [None, {}]), echoed([None, -1.0, -2.0], [None, None, {}]),
    ]  # fmt: skip
    for choice in wrong:
        with pytest.raises(UnsupportedError, match="ignores echo"):
            told(choice, 2, "/completions")


def part(values: list[Any], score: float, better: bool = True) -> Part:
    return Part(
        task="t", metric="m", filter="none", score=score, values=values, documents=[0, 1, 2],
        higher_is_better=better, aggregate=None,
    )  # fmt: skip


def test_failures_count_nothing() -> None:
    mean = part([1.0, 1, True], 1.0)
    mean.without({1, 9})
    assert mean.score == pytest.approx(2 / 3) and mean.numbers == [1, 0, 1]
    mean.measure()
    assert mean.interval == pytest.approx((0.2077, 0.9385), abs=1e-3)
    for other in (part([(-3.0, 2)] * 3, 4.5), part([1.0, 2.0, 3.0], 2.0, better=False), part([1.0] * 3, 7.0)):
        with pytest.raises(RemoteError, match="1 answers of t failed to come, and m needs all"):
            other.without({1})
        other.without({5})


def test_settings_that_contradict() -> None:
    for wrong, said in {
        "nothing to measure": {"tasks": ()},
        "--limit must not be negative": {"limit": -1},
        "--shots must not be negative": {"shots": -1},
        "--dtype means nothing": {"dtype": "bfloat16"},
        "--tries means nothing": {"tries": 9},
    }.items():
        with pytest.raises(ConfigError, match=wrong):
            Config(**{"model": Path("m"), "tasks": ("a",), **said})
    assert Config(model=Path("m"), tasks=("a",), batch=4).batch == 4, "rows at once need no server"
