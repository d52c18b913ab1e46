"""Reports of tokens, as clients of completions read them."""

from __future__ import annotations


def test_text_offsets_count_characters() -> None:
    from tinygpt.serve.job import Token
    from tinygpt.serve.openai.reports import Offsets, of_text

    pieces = [b"a", b"\xc3", b"\xa4", b"b"]
    tokens = [Token(0, p.decode("latin-1"), p, float("-inf")) for p in pieces]
    found = of_text(tokens, Offsets())
    assert found["text_offset"] == [0, 1, 1, 2] and found["token_logprobs"] == [-9999.0] * 4


def test_tokens_may_be_named_by_their_ids() -> None:
    """Two tokens of one text are one entry by text, and two by id."""
    from tinygpt.serve.job import Token
    from tinygpt.serve.openai.reports import Offsets, of_text

    top = ((Token(7, "a", b"a", -1.0), -1.0), (Token(8, "a", b"a", -2.0), -2.0))
    token = Token(7, "a", b"a", -1.0, top)
    assert of_text([token], Offsets())["top_logprobs"] == [{"a": -1.0}]
    found = of_text([token], Offsets(), by_id=True)
    assert found["top_logprobs"] == [{"token_id:7": -1.0, "token_id:8": -2.0}]
    assert found["tokens"] == ["token_id:7"] and found["text_offset"] == [0]
