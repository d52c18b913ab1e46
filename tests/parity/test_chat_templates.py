"""Chat templates against live peers: text and ids as transformers gives them, masks as TRL tags them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from formats import CALLS, CHAT, FORMATS, TOOLS, Format, says, system, user
from nano import require
from tinygpt.core.errors import DataError
from tinygpt.data.template import _choice
from tinygpt.data.template._own import Own
from tinygpt.data.template._spans import encode, join
from tinygpt.data.tokenizer import byte, hf

pytestmark = pytest.mark.parity

CALM = [
    system("Be brief."),
    user("Hello, you <b>there</b>"),
    says("Hi you."),
    user("More?"),
    says("No, \u00fcnd?"),
]


@pytest.mark.parametrize("name", FORMATS)
def test_transformers_writes_and_encodes_the_same(name: str, tmp_path: Path) -> None:
    """Text for every format; ids for text that holds no marker and does not begin with blanks."""
    transformers = require("transformers")
    format = FORMATS[name]
    format.tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = hf.load(tmp_path)
    own = _choice.of(ours, "base")
    assert isinstance(own, Own)
    cases = [(CALM, None), (CHAT, None), *([(CALLS, TOOLS)] if format.calls else [])]
    for turns, tools in cases:
        turns = turns if format.has_system else [m for m in turns if m["role"] != "system"]
        given = own.prepared(turns, tools)
        for n, ask in ((len(given), False), (len(given) - 1, True)):
            text = theirs.apply_chat_template(
                given[:n], tools=tools, tokenize=False, add_generation_prompt=ask
            )
            spans = own.render(turns[:n], tools, ask)
            assert join(spans) == text or (name == "no-prompt" and join(spans).startswith(text))
            if name == "no-prompt" and ask:
                continue  # transformers asks without a header
            if turns[0] in CALM:
                ids = theirs.apply_chat_template(
                    given[:n], tools=tools, add_generation_prompt=ask, return_dict=False
                )
                assert encode(spans, ours)[0] == ids


@pytest.mark.parametrize("kind", ["prepend", "metaspace first", "metaspace always", "replace"])
def test_sentencepiece_gets_no_space_twice(kind: str, tmp_path: Path) -> None:
    """The library puts a space before the first word; pieces of a conversation must not each get one."""
    transformers, tokenizers = require("transformers"), require("tokenizers")
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    space = "\u2581"
    if kind == "prepend":
        made.normalizer = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(" ", space)])
    elif kind == "replace":
        made.normalizer = normalizers.Replace(" ", space)
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind.split()[1], split=False)
    made.decoder = decoders.Sequence([decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse()])
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    letters = sorted(set("".join(m["content"] for m in CALM + CHAT) + "[]/INST<>SY\n"))
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=names, initial_alphabet=letters)
    made.train_from_iterator(["Be brief. Hello, you there Hi you. More? No, and [INST] [/INST]"] * 4, trainer)
    peer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    for name in ("llama2", "mistral-v1", "mistral-v3"):
        peer.chat_template = FORMATS[name].source
        peer.save_pretrained(tmp_path / name)
        ours = hf.load(tmp_path / name)
        own = Own(ours)
        for n, ask in ((5, False), (4, True), (2, True)):
            theirs = peer.apply_chat_template(CALM[:n], add_generation_prompt=ask, return_dict=False)
            assert encode(own.render(CALM[:n], None, ask), ours)[0] == theirs, (name, n)


ENDS = {
    "cohere": "<|END_OF_TURN_TOKEN|>", "gemma": "<end_of_turn>", "gemma3": "<end_of_turn>",
    "lfm2": "<|im_end|>", "llama3": "<|eot_id|>", "phi3": "<|end|>", "phi3_5": "<|end|>",
    "qwen2_5": "<|im_end|>", "qwen3": "<|im_end|>", "qwen3_instruct_2507": "<|im_end|>",
    "qwen3_8": "<|im_end|>", "nemotron_3_nano": "<|im_end|>",
}  # fmt: skip


def trl_templates() -> Path:
    """The folder of TRL's templates."""
    return Path(str(require("trl").__file__)).with_name("chat_templates")


@pytest.mark.parametrize("name", ENDS)
def test_masks_are_those_that_trl_tags(name: str) -> None:
    """TRL keeps a twin of each template whose authors put `generation` tags around what the assistant writes.
    From the untagged template, comparing renderings finds the same text (the line end after a stop token, and
    Phi's end of text after the last one, aside)."""
    require("transformers")
    from transformers.utils.chat_template_utils import render_jinja_template

    folder = trl_templates()
    source = (folder / f"{name}.jinja").read_text(encoding="utf-8")
    tagged = (folder / f"{name}_training.jinja").read_text(encoding="utf-8")
    format = Format(source, ENDS[name], [])
    own = Own(format.tokenizer)
    turns = [user("Hello"), says("Hi <b>you</b>.")]
    several = [turns, [*turns, user("More?"), says("No, \u00fcnd?")], [user("List"), CALLS[1], *CALLS[2:4]]]
    found = 0
    for conversation in several:
        tools = TOOLS if any("tool_calls" in m for m in conversation) else None
        try:
            given = own.prepared(conversation, tools)
        except DataError:
            continue  # no form for calls
        text, blocks = render_jinja_template(
            [given], chat_template=tagged, tools=tools, return_assistant_tokens_mask=True,
            **format.tokenizer.names,
        )  # fmt: skip
        theirs = [text[0][begin:end].rstrip("\n") for begin, end in blocks[0]]
        theirs = [one for one in theirs if one != ENDS[name] and one]
        ours = written(own.render(conversation, tools))
        thought = re.compile(r"^\n?(<think>)?\s*(</think>)?\s*")
        assert [thought.sub("", one) for one in ours] == [thought.sub("", one) for one in theirs]
        found += 1
    assert found >= 2


def written(spans: Any) -> list[str]:
    found: dict[int, str] = {}
    for span in spans:
        if span.learn:
            found[span.message] = found.get(span.message, "") + span.text
    return list(found.values())


@pytest.mark.parametrize("turns", [CHAT[1:], CALLS])
def test_every_template_of_trl_is_written_as_transformers_writes_it(turns: list[Any]) -> None:
    require("transformers")
    from transformers.utils.chat_template_utils import render_jinja_template

    n = 0
    for path in sorted(trl_templates().glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        own = Own(byte.load().with_template(source))
        tools = TOOLS if turns is CALLS else None
        try:
            given = own.prepared(turns, tools)
            ours = own.text(turns, tools)
        except DataError:
            continue
        theirs = render_jinja_template([given], chat_template=source, tools=tools, **own.tokenizer.names)[0][
            0
        ]
        assert ours == theirs, path.name
        n += 1
    assert n > 30
