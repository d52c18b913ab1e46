"""The settings of constraints, from the command's config to the answer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize
from tinygpt.runs._constrained import Constrained
from tinygpt.runs.generate import Config, sample


def _model(folder: Path) -> Path:
    config = ModelConfig(
        vocab_size=260,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=128,
    )
    checkpoint.save(folder, initialize(LM(config), 0))
    ByteTokenizer().save(folder)
    return folder


def _texts(config: Config) -> list[str]:
    texts = [""] * config.n
    for piece in sample(config, "a"):
        texts[piece.index] += piece.text
    return texts


def test_sample_under_a_grammar(tmp_path: Path) -> None:
    model = _model(tmp_path / "m")
    (tmp_path / "s.json").write_text('{"type": "integer", "minimum": 10, "maximum": 99}')
    (tmp_path / "g.gbnf").write_text('root ::= "x" [0-9]{3}')
    (tmp_path / "g.lark").write_text('start: "(" start ")" | "y"')
    base = Config(model=model, temperature=1.0, seed=3, n=3, max_tokens=100)
    for text in _texts(dataclasses.replace(base, choices="red, green")):
        assert text in ("red", "green")
    for text in _texts(dataclasses.replace(base, regex="[ab]{4}")):
        assert len(text) == 4 and set(text) <= {"a", "b"}
    for key in ("json_schema", "grammar"):
        for text in _texts(dataclasses.replace(base, **{key: tmp_path / "s.json"})):
            assert 10 <= json.loads(text) <= 99
    for text in _texts(dataclasses.replace(base, grammar=tmp_path / "g.gbnf")):
        assert text[0] == "x" and text[1:].isdecimal() and len(text) == 4
    for text in _texts(dataclasses.replace(base, grammar=tmp_path / "g.lark")):
        assert text.count("(") == text.count(")") or not text.endswith(")")


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--regex and --choices cannot be used together"):
        Constrained(regex="a", choices="a,b")
    with pytest.raises(DataError, match="cannot be read"):
        _ = Constrained(grammar=tmp_path / "none").format
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        _ = Constrained(json_schema=tmp_path / "bad.json").format
