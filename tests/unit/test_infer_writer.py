"""Streaming text: whole characters, no part of a stop text, whatever way the text is cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.writer import Writer


class Parts:
    """A stream whose ids are places in a list of texts."""

    def __init__(self, parts: list[str]) -> None:
        self.parts = parts

    def add(self, id: int) -> str:
        return self.parts[id]

    def flush(self) -> str:
        return ""


def _write(parts: list[str], stop: list[str]) -> tuple[str, bool, list[str]]:
    writer, pieces = Writer(Parts(parts), stop), []
    for i in range(len(parts)):
        pieces.append(writer.add(i))
        if writer.stopped:
            break
    pieces.append(writer.flush())
    return "".join(pieces), writer.stopped, pieces


def test_a_stop_text_over_several_tokens_never_leaks() -> None:
    text, stopped, pieces = _write(["one ", "<", "e", "nd", "> two"], ["<end>"])
    assert (text, stopped, pieces[:4]) == ("one ", True, ["one ", "", "", ""])


def test_a_false_start_is_let_go() -> None:
    assert _write(["a<", "en", "x"], ["<end>"])[0] == "a<enx"
    assert _write(["aa", "ab"], ["aab"])[:2] == ("a", True)
    assert _write(["a<en"], ["<end>"])[:2] == ("a<en", False)  # the end of the answer lets it go too


def test_the_first_complete_stop_text_wins() -> None:
    assert _write(["xabcd"], ["abcd", "bc"])[0] == "xa"
    assert _write(["xabc"], ["bc", "abc"])[0] == "x"


words = st.text(alphabet="abé", max_size=12)


@settings(max_examples=150, deadline=None)
@given(words, st.lists(st.text(alphabet="abé", min_size=1, max_size=3), max_size=3), st.data())
def test_cutting_does_not_matter(text: str, stop: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]
    whole, chars = _write(parts, stop), _write(list(text), stop)
    assert whole[:2] == chars[:2]
    ends = [text.find(s) + len(s) for s in stop if s in text]
    assert whole[1] == bool(ends)
    assert not any(s in whole[0] for s in stop)
    shown = ""
    for piece in chars[2]:  # at no moment does the shown text hold more than the answer
        shown += piece
        assert whole[0].startswith(shown)


letters = st.text(alphabet="aé€🙂\n", max_size=14)


@settings(max_examples=150, deadline=None)
@given(letters, st.lists(st.text(alphabet="aé€🙂\n", min_size=1, max_size=4), max_size=4))
def test_tokens_that_cut_characters_do_not_matter_either(text: str, stop: list[str]) -> None:
    """One token a byte: characters come in up to four parts, and stop texts with them."""
    writer, shown = Writer(ByteTokenizer().stream(), stop), ""
    ends = [(text.find(s) + len(s), text.find(s), s) for s in stop if s in text]
    # Up to the stop text that is whole first; of several that end together, the one that begins first.
    answer = text[: min(ends)[1]] if ends else text
    longest = max(map(len, stop), default=1)
    for n, byte in enumerate(text.encode(), 1):
        shown += writer.add(byte)
        assert answer.startswith(shown), "nothing is shown that is not part of the answer"
        if writer.stopped:
            break
        here = text.encode()[:n].decode(errors="ignore")
        assert len(here) - len(shown) < longest, "no more is held back than a stop text may need"
    assert not ends or shown == answer, "a stop text that is whole is seen at once"
    shown += writer.flush()
    assert shown == answer and writer.matched == (min(ends)[2] if ends else None)
    assert not writer.stopped or writer.add(0x61) == writer.flush() == ""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_a_stop_text_inside_what_was_held_back_is_found(stop: list[str], data: st.DataObject) -> None:
    """Long tokens after a held beginning: the stop text may lie across, inside, or wholly after it."""
    parts = data.draw(st.lists(st.text(alphabet="ab", max_size=6), max_size=6))
    text = "".join(parts)
    shown, stopped, pieces = _write(parts, stop)
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    assert (shown, stopped) == ((text[: min(ends)[1]], True) if ends else (text, False))
    assert all(shown.startswith("".join(pieces[:n])) for n in range(len(pieces)))


def test_an_unfinished_character_may_complete_a_stop_text() -> None:
    writer = Writer(ByteTokenizer().stream(), ["x\ufffd"])
    assert [writer.add(b) for b in (0x61, 0x78, 0xC3)] == ["a", "", ""] and not writer.stopped
    assert writer.flush() == "" and writer.matched == "x\ufffd"


def test_characters_come_whole() -> None:
    tokenizer = ByteTokenizer()
    writer = Writer(tokenizer.stream(), ())
    assert [writer.add(b) for b in "é€".encode()] == ["", "é", "", "", "€"]
    assert writer.add(0xC3) == "" and writer.flush() == "\ufffd"
