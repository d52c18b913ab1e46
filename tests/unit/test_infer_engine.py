"""The engine on a scripted model: stopping, limits, streams, chat."""

from __future__ import annotations

from typing import Any

import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.template import chatml
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from unlearned import Unlearned

TOKENIZER = ByteTokenizer()
GREEDY = SampleConfig(temperature=0, max_tokens=30)


class Follows(Unlearned):
    """A model that knows one successor of each id: in "ab", after `a` comes `b`."""

    def __init__(self, text: str, end: int | None = None, context: int = 64) -> None:
        super().__init__(context)
        ids = list(text.encode())
        table = [0] * 260
        for a, b in zip(ids, [*ids[1:], TOKENIZER.eos_id if end is None else end]):
            table[a] = b
        self.next_V = mx.array(table)

    def __call__(self, tokens_BL: mx.array, cache: Any = None, *, last: int = 0) -> mx.array:
        following = self.next_V[tokens_BL[:, -last:]][..., None]
        return (mx.arange(260) == following).astype(mx.float32) * 9


def _engine(text: str, end: int | None = None, context: int = 64) -> Engine:
    return Engine(Follows(text, end, context), TOKENIZER, chatml)  # type: ignore[arg-type]


def _stream(
    engine: Engine, prompt: str, config: SampleConfig = GREEDY, **options: Any
) -> tuple[str, str | None]:
    pieces = list(engine.generate(engine.encode(prompt), config, **options))
    assert all(p.finish_reason is None for p in pieces[:-1])
    return "".join(p.text for p in pieces), pieces[-1].finish_reason


def _both(
    engine: Engine, prompt: str, config: SampleConfig = GREEDY, **options: Any
) -> tuple[str, str | None]:
    """Stream and batch must agree."""
    found = _stream(engine, prompt, config, **options)
    (batch,) = engine.generate_batch([engine.encode(prompt)], config, **options)
    assert (batch.text, batch.finish_reason) == found
    return found


def test_ends_at_the_stop_id_without_showing_it() -> None:
    assert _both(_engine("abcdé"), "a") == ("bcdé", "stop")
    assert _both(_engine("abc", TOKENIZER.special["<|im_end|>"]), "a") == ("bc", "stop")
    assert _both(_engine("abcde"), "a", stop_ids=[ord("d")]) == ("bc", "stop")
    shown = SampleConfig(temperature=0, max_tokens=4)
    assert _both(_engine("abc"), "a", shown, stop_ids=()) == ("bc<|endoftext|>\x00", "length")


def test_ends_at_a_stop_text() -> None:
    config = SampleConfig(temperature=0, stop=("de", "zz"))
    assert _both(_engine("abcdef"), "a", config) == ("bc", "stop")
    last = SampleConfig(temperature=0, stop=("bcd",), max_tokens=3)
    assert _both(_engine("abcdef"), "a", last) == ("", "stop")
    held = SampleConfig(temperature=0, stop=("bcdX",), max_tokens=3)
    assert _both(_engine("abcdef"), "a", held) == ("bcd", "length")
    never = SampleConfig(temperature=0, stop=("cX",))
    assert _both(_engine("abc"), "a", never) == ("bc", "stop")


def test_ends_at_the_limit_and_at_the_context() -> None:
    cycle = _engine("abca", ord("b"), context=10)
    assert _both(cycle, "a", SampleConfig(temperature=0, max_tokens=4)) == ("bcab", "length")
    assert _both(cycle, "abcabc") == ("abca", "length")
    with pytest.raises(ConfigError, match="10 tokens and leaves no room in a context of 10"):
        cycle.generate(cycle.encode("abcabcabca"), GREEDY)
    with pytest.raises(ConfigError, match="no token"):
        cycle.generate_batch([[]], GREEDY)


def test_a_cut_character_is_marked() -> None:
    assert _both(_engine("aé"), "a", SampleConfig(temperature=0, max_tokens=1)) == ("\ufffd", "length")


def test_batch_keeps_order_and_reports_progress() -> None:
    engine, sink = _engine("abcdefgh"), MemorySink()
    prompts = [engine.encode(p) for p in ("abcd", "g", "abcdef", "a")]
    done = engine.generate_batch(prompts, GREEDY, logprobs=True, events=Events(sink))
    assert [c.text for c in done] == ["efgh", "h", "gh", "bcdefgh"]
    assert [len(c.ids) for c in done] == [4, 1, 2, 7]
    assert all(c.logprob_sum is not None and c.logprob_sum < 0 for c in done)
    assert sink.events[-1].done == 4
    assert engine.generate_batch([], GREEDY) == []


def test_seeds_of_a_batch_follow_the_first_one() -> None:
    engine = _engine("ab")
    config = SampleConfig(temperature=50.0, max_tokens=12, seed=7)
    prompts = [[97], [97], [98]]
    first = engine.generate_batch(prompts, config, stop_ids=())
    assert [c.seed for c in first] == [7, 8, 9] and first[0].text != first[1].text
    again = engine.generate_batch(prompts[::-1], config, seeds=[9, 8, 7], stop_ids=())
    assert [c.ids for c in again[::-1]] == [c.ids for c in first]
    fresh = engine.generate_batch([[97]], SampleConfig(max_tokens=2))
    assert fresh[0].seed != engine.generate_batch([[97]], SampleConfig(max_tokens=2))[0].seed


def test_chat_begins_the_answer_and_ends_with_its_turn() -> None:
    engine = _engine("\nok", TOKENIZER.special["<|im_end|>"], context=512)
    (answer,) = engine.generate_batch([engine.encode_chat([{"role": "user", "content": "hi"}])], GREEDY)
    assert (answer.text, answer.finish_reason, len(answer.ids)) == ("ok", "stop", 2)
    with pytest.raises(ConfigError, match="template"):
        Engine(engine.model, TOKENIZER).encode_chat([])


def test_a_tokenizer_of_another_model_is_refused() -> None:
    model = Follows("ab")
    model.config = nano.config(vocab_size=100)
    with pytest.raises(ConfigError, match="260 ids, the model only 100"):
        Engine(model, TOKENIZER)  # type: ignore[arg-type]


def test_an_empty_prompt_starts_a_document() -> None:
    assert _engine("ab").encode("") == [TOKENIZER.eos_id]
