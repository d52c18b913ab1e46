"""Every tokenizer: round trips, incremental decoding, no injected control tokens, files others can open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nano import require
from tinygpt.core.errors import ConfigError, DataError, UnsupportedError
from tinygpt.core.family import Family
from tinygpt.data.bpe import Config, train_bpe
from tinygpt.data.tokenizer import byte, hf
from tinygpt.data.tokenizer._protocol import byte_lengths

TEXTS = [
    "open the file notes.md and move it to the folder old_files\n",
    "the café is open 24 hours 😀\n",
] * 20
NAMES = ["byte", "word", "gpt2", "copy", "pieces"]
BYTE_LEVEL = NAMES[:-1]
TRICKY = "hi <|im_end|>\n<|im_start|>system<|endoftext|> <tool_call> 😀"


@cache
def make(name: str) -> Any:
    if name == "byte":
        return byte.load()
    if name == "pieces":
        return sentence_pieces()
    return train_bpe(TEXTS, Config(vocab_size=330, pattern=name))  # type: ignore[arg-type]


def sentence_pieces() -> Any:
    """A tokenizer as Llama 2's: words begin with a visible space, unknown characters fall back to bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    letters = ["<unk>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    raw.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=330, special_tokens=letters, show_progress=False)
    )
    definition = json.loads(raw.to_str())
    definition["added_tokens"] = definition["added_tokens"][:2]
    return hf.HFTokenizer(definition, {"tokenizer_config.json": {"eos_token": {"content": "</s>"}}})


def test_the_family_is_the_folder() -> None:
    family = Family("tinygpt.data.tokenizer", verb="load")
    assert family.names() == ["byte", "hf"]
    assert all(family.load(name) for name in family.names())


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text(max_size=40))
@settings(max_examples=40, deadline=None)
def test_decoding_gives_the_text_back(name: str, text: str) -> None:
    tokenizer = make(name)
    ids = tokenizer.encode(text)
    assert all(0 <= id < tokenizer.vocab_size for id in ids)
    if name in BYTE_LEVEL:  # SentencePiece files change spaces
        assert tokenizer.decode(ids) == text
        assert byte_lengths(tokenizer)[ids].sum() == len(text.encode())


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_streamed_pieces_join_to_the_whole(name: str, data: st.DataObject) -> None:
    tokenizer = make(name)
    # Some ids beyond the vocabulary: a model's output may be wider than its tokenizer.
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=30))
    for special in (True, False):
        stream = tokenizer.stream(special)
        pieces = [stream.add(id) for id in ids] + [stream.flush()]
        assert "".join(pieces) == tokenizer.decode(ids, special)


@pytest.mark.parametrize("name", NAMES)
def test_a_streamed_piece_is_never_half_a_character(name: str) -> None:
    tokenizer = make(name)
    stream = tokenizer.stream()
    pieces = [stream.add(id) for id in tokenizer.encode("naïve 😀👩‍👩‍👧 日本")]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == "naïve 😀👩‍👩‍👧 日本"
    assert stream.flush() == ""


@pytest.mark.parametrize("name", NAMES)
def test_plain_text_never_becomes_a_control_token(name: str) -> None:
    tokenizer = make(name)
    control = set(tokenizer.special.values())
    for text in (TRICKY, *tokenizer.special):
        assert not control & set(tokenizer.encode(text))
        assert [tokenizer.encode(text)] == tokenizer.encode_batch([text])
    for text, id in tokenizer.special.items():
        assert tokenizer.encode(text, special=True) == [id]
        assert tokenizer.decode([id]) == text and tokenizer.decode([id], special=False) == ""


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_is_the_same(name: str, tmp_path: Path) -> None:
    tokenizer = make(name)
    tokenizer.save(tmp_path / "a")
    again = hf.load(tmp_path / "a")
    again.save(tmp_path / "b")
    for other in (again, hf.load(tmp_path / "b"), hf.load(tmp_path / "b" / "tokenizer.json")):
        assert other.hash == tokenizer.hash
        assert (other.eos_id, other.bos_id, other.pad_id) == (
            tokenizer.eos_id,
            tokenizer.bos_id,
            tokenizer.pad_id,
        )
        assert other.vocab_size == tokenizer.vocab_size
        assert other.chat_template == tokenizer.chat_template
        assert other.encode(TRICKY) == tokenizer.encode(TRICKY)
        assert other.encode(TRICKY, special=True) == tokenizer.encode(TRICKY, special=True)


@pytest.mark.parity
@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_transformers_opens_the_directory(name: str, tmp_path: Path) -> None:
    transformers = require("transformers")
    tokenizer = make(name)
    tokenizer.save(tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert peer.encode(TRICKY) == tokenizer.encode(TRICKY, special=True)
    assert peer.decode(tokenizer.encode(TRICKY)) == TRICKY
    assert (peer.eos_token_id, peer.pad_token_id) == (tokenizer.eos_id, tokenizer.pad_id)
    messages = [{"role": "user", "content": "hi"}]
    rendered = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert peer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == rendered


@pytest.mark.parity
def test_mlx_lm_opens_the_directory(tmp_path: Path) -> None:
    peer = require("mlx_lm.tokenizer_utils")
    make("copy").save(tmp_path)
    opened = peer.load(tmp_path)
    assert opened.encode(TRICKY) == make("copy").encode(TRICKY, special=True)
    assert opened.eos_token_ids == {make("copy").eos_id}


@given(name=st.text("abcdefxyzQ0189._- é", min_size=1, max_size=20).map(str.strip).filter(bool))
@settings(max_examples=60, deadline=None)
def test_copy_pattern_gives_a_name_the_same_ids_everywhere(name: str) -> None:
    tokenizer = make("copy")
    ids = tokenizer.encode(name)
    for before, after in (("open ", ""), ('"', '"'), ('{"path": "', '"}'), ("(", ", please"), ("", ".")):
        whole = tokenizer.encode(before + name + after)
        assert whole == tokenizer.encode(before) + ids + tokenizer.encode(after)


@pytest.mark.wide
def test_training_is_deterministic() -> None:
    here = Path(__file__).parent
    code = (
        "from test_tokenizer import *\nprint(train_bpe(TEXTS, Config(vocab_size=330, pattern='word')).hash)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=here,
        env={**os.environ, "PYTHONPATH": str(here.parent)},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == make("word").hash != make("copy").hash


def test_training_options() -> None:
    assert make("word").vocab_size <= 330
    digits = train_bpe(["12345 12345 " * 20], Config(vocab_size=300, split_digits=False))
    assert len(digits.encode("12345")) < 5 == len(make("word").encode("12345"))
    short = train_bpe(TEXTS, Config(vocab_size=330, max_token_length=2))
    assert byte_lengths(short).max() == 2
    with pytest.raises(ConfigError, match="at least 262"):
        train_bpe(TEXTS, Config(vocab_size=100))
    for wrong in (
        {"vocab_size": 10**11}, {"vocab_size": 0}, {"min_frequency": -1}, {"min_frequency": 10**20},
        {"max_token_length": -1}, {"max_token_length": 10**20},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"--{next(iter(wrong)).replace('_', '-')} must be from "):
            Config(**wrong)
    with pytest.raises(ConfigError, match="endoftext"):
        train_bpe(TEXTS, special=("<|pad|>",))
    with pytest.raises(DataError, match="no text"):
        train_bpe([""])


def test_stop_ids_come_from_all_files_beside(tmp_path: Path) -> None:
    make("word").save(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    tokenizer = hf.load(tmp_path)
    assert tokenizer.eos_id == 0 and tokenizer.stop_ids == (0, 2, 7)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert hf.load(tmp_path).eos_id == 2
    (tmp_path / "special_tokens_map.json").write_text(
        '{"eos_token": {"content": "<|im_end|>"}, "bos_token": "a"}'
    )
    assert hf.load(tmp_path).bos_id == hf.load(tmp_path).encode("a")[0]
    (tmp_path / "chat_template.jinja").write_text("hello")
    assert hf.load(tmp_path).chat_template == "hello"


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokenizer.json at"):
        hf.load(tmp_path)
    make("word").save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<nope>"}')
    with pytest.raises(DataError, match="'<nope>' is not in the vocabulary"):
        hf.load(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(DataError, match="which token ends a text"):
        hf.load(tmp_path)
    definition = json.loads((tmp_path / "tokenizer.json").read_text())
    definition["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    with pytest.raises(UnsupportedError, match="do not stand for bytes"):
        hf.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="not readable JSON"):
        hf.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Odd"}}')
    with pytest.raises(DataError, match="not a tokenizer this version can read"):
        hf.load(tmp_path)
