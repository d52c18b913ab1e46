"""Reports of tokens, as clients of completions read them."""

from __future__ import annotations


def test_text_offsets_count_characters() -> None:
    from tinygpt.serve.job import Token
    from tinygpt.serve.openai.reports import Offsets, of_text

    pieces = [b"a", b"\xc3", b"\xa4", b"b"]
    tokens = [Token(0, p.decode("latin-1"), p, float("-inf")) for p in pieces]
    found = of_text(tokens, Offsets())
    assert found["text_offset"] == [0, 1, 1, 2] and found["token_logprobs"] == [-9999.0] * 4
