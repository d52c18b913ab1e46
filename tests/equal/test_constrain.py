"""Constraints at work: in lanes, with real vocabularies, taken back, and where they cannot go on."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt.core.errors import ConfigError
from tinygpt.data.template import _calls, chatml, llama3, mistral
from tinygpt.data.tokenizer import hf
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.constrain import _bridge, choice, gbnf, lark, regex, schema, tools
from tinygpt.infer.constrain import json as any_json
from tinygpt.infer.constrained import constraint
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize
from walks import BYTES, allowed, takes, walk

STRICT = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"enum": ["x", "yy"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


@cache
def _engine(vocab: int = 260) -> Engine:
    config = ModelConfig(
        vocab_size=vocab, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip
    return Engine(initialize(LM(config), 1), BYTES)


def _bpe(folder: Path, kind: str = "byte") -> hf.HFTokenizer:
    """A small tokenizer trained on JSON: byte-level, or as SentencePiece makes them, with a tag of calls."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    text = [json.dumps({"name": f"n{i}", "a": i, "b": ["x", None, "the cat"]}) for i in range(60)]
    tokenizer = tokenizers.Tokenizer(models.BPE(byte_fallback=kind != "byte", unk_token=None))
    special = ["<s>", "</s>", "<|im_end|>", "<tool_call>", "</tool_call>"]
    if kind == "byte":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = [chr(c) for c in range(33, 127)] + ["\u2581"]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(text, trainer)
    definition = json.loads(tokenizer.to_str())
    definition["added_tokens"] = definition["added_tokens"][:5]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<s>"}))
    return hf.load(folder)


def test_an_answer_under_a_schema_is_json_and_ends() -> None:
    """At temperature 1, among free answers, from a model that has more outputs than the tokenizer ids."""
    for vocab in (260, 300):
        engine, lane = _engine(vocab), Lane(_engine(vocab))
        answers = []
        for seed in range(8):
            own = schema.compile(STRICT, BYTES) if seed % 2 else None
            config = SampleConfig(temperature=1.0, seed=seed, max_tokens=200)
            answers.append(lane.submit(engine.request([1, 2, seed], config, constraint=own)))
        lane.drain()
        for answer in answers[1::2]:
            value = json.loads(answer.text)
            assert answer.finish_reason == "stop" and set(value) == {"a", "b"} and 0 <= value["a"] <= 99
        for seed in (1, 3):
            config = SampleConfig(temperature=1.0, seed=seed, max_tokens=200)
            pieces = engine.generate([1, 2, seed], config, constraint=schema.compile(STRICT, BYTES))
            assert "".join(piece.text for piece in pieces) == answers[seed].text
        free = engine.generate_batch([[1, 2, 0]], SampleConfig(temperature=1.0, seed=0, max_tokens=200))
        assert free[0].text == answers[0].text


@pytest.mark.parametrize("kind", ["byte", "sentencepiece"])
def test_real_vocabularies(tmp_path: Path, kind: str) -> None:
    """The text as it is decoded is what the grammar says, and no control token stands in it."""
    tokenizer = _bpe(tmp_path, kind)
    control = {tokenizer.special[name] for name in tokenizer.control}
    rng, texts = random.Random(0), set()
    for make, check in [
        (lambda: schema.compile(STRICT, tokenizer), lambda text: json.loads(text)["b"] in ("x", "yy")),
        (lambda: any_json.compile(None, tokenizer), lambda text: isinstance(json.loads(text), dict)),
        (lambda: choice.compile([" the", "é"], tokenizer), lambda text: text in (" the", "é")),
        (lambda: regex.compile("a+ [0-9]{2}", tokenizer), lambda text: text[-4:-2] == "a "),
        (lambda: gbnf.compile('root ::= "(" root ")" | "cat"', tokenizer), lambda text: "cat" in text),
    ]:  # fmt: skip
        done = 0
        for _ in range(12):
            closing = frozenset(
                i for i in range(tokenizer.vocab_size) if tokenizer.id_to_bytes(i) in (b'"', b"}")
            )
            ids = walk(make(), rng, tokenizer=tokenizer, closing=closing, likely=frozenset(), eager=10)
            if ids is not None:
                assert not control & set(ids)
                text = tokenizer.decode(ids)
                assert check(text), text
                texts.add(text)
                done += 1
        assert done >= 8
    assert len(texts) > 20


def test_a_forced_text_is_written_in_the_tokens_that_a_model_knows(tmp_path: Path) -> None:
    tokenizer = _bpe(tmp_path)
    known = tokenizer.encode('{"name": "n1"')
    grammar = lark.compile('start: "{\\"name\\": \\"n1\\""', tokenizer)
    for id in known:
        assert allowed(grammar) == [id]
        grammar.take(id)


def test_bits_beyond_the_vocabulary_are_never_set() -> None:
    mask = regex.compile("(?s:.)*", BYTES).mask()
    assert mask.dtype == np.int32 and mask.shape == (9,)
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    assert not bits[260:].any() and bits[32:127].all()
    assert not bits[[257, 259]].any(), "control tokens that end nothing"


@pytest.mark.parametrize("seed", range(4))
def test_taken_back_is_as_never_taken(seed: int) -> None:
    """As speculation does: draft some ids, look at each mask, keep a part."""
    rng, kept = random.Random(seed), []
    grammar, dead = any_json.compile("value", BYTES), 0
    for _ in range(40):
        drafted: list[int] = []
        for _ in range(rng.randrange(5)):
            options = [i for i in allowed(grammar) if i not in BYTES.stop_ids]
            if not options:
                break
            drafted.append(rng.choice(options))
            grammar.take(drafted[-1])
        keep = rng.randrange(len(drafted) + 1)
        grammar.rollback(len(drafted) - keep)
        kept += drafted[:keep]
        fresh = any_json.compile("value", BYTES)
        for id in kept:
            fresh.take(id)
        assert np.array_equal(fresh.mask(), grammar.mask()) and fresh.complete == grammar.complete
        dead += not [i for i in allowed(grammar) if i not in BYTES.stop_ids]
        if dead:
            break
    with pytest.raises(ConfigError, match="cannot go back"):
        grammar.rollback(len(kept) + 1)


def test_what_is_not_allowed_is_refused_and_changes_nothing() -> None:
    grammar = choice.compile(["ab", "ac"], BYTES)
    before = grammar.mask()
    with pytest.raises(ConfigError, match="does not allow the id 98"):
        grammar.take(98)
    assert np.array_equal(before, grammar.mask())
    grammar.take(97)
    assert allowed(grammar) == [98, 99]


def test_stop_ids_of_a_request_end_it() -> None:
    grammar = choice.compile(["a"], BYTES, stop_ids=frozenset({257}))
    assert allowed(grammar) == [97]
    grammar.take(97)
    assert allowed(grammar) == [257]
    with pytest.raises(ConfigError, match="the stop id 98 stands for text"):
        choice.compile(["ab"], BYTES, stop_ids=frozenset({98, 257}))
    with pytest.raises(ConfigError, match="stop id"):
        constraint("choice", ["a"], BYTES, stop_ids=frozenset())


def test_a_dead_end_is_an_error_of_its_own_answer_alone() -> None:
    """One answer fails, its neighbour goes on."""

    class Dead:
        def mask(self) -> np.ndarray:
            raise ConfigError("the grammar has come to a dead end")

        def take(self, token: int) -> None: ...

        def rollback(self, n: int) -> None: ...

    engine, lane = _engine(), Lane(_engine())
    config = SampleConfig(temperature=1.0, seed=1, max_tokens=8)
    alone = engine.generate_batch([[1, 2]], config, stop_ids=())[0]
    heard: list[BaseException] = []
    bad = lane.submit(engine.request([1, 2], config, constraint=Dead()), failed=heard.append)
    good = lane.submit(engine.request([1, 2], config, stop_ids=()))
    lane.drain()
    assert bad.finish_reason == "error" and "dead end" in str(heard[0])
    assert good.ids == alone.ids
    with pytest.raises(ConfigError, match="dead end"):
        list(engine.generate([1, 2], config, constraint=Dead()))


def test_grammars_are_compiled_once() -> None:
    bridge = _bridge.of(BYTES, frozenset(BYTES.stop_ids))
    first, second = (schema.compile(STRICT, BYTES) for _ in range(2))
    n = len(bridge.compiled)
    schema.compile(dict(STRICT), BYTES)
    assert len(bridge.compiled) == n and _bridge.of(BYTES, frozenset(BYTES.stop_ids)) is bridge
    first.take(ord("{"))
    assert ord("{") in allowed(second), "each answer has its own"


TOOLS = [
    {"type": "function", "function": {"name": "ls", "strict": True, "parameters": {
        "type": "object", "properties": {"path": {"enum": ["/a", "b"]}}, "required": ["path"],
        "additionalProperties": False}}},
    {"type": "function", "function": {"name": "now"}},
]  # fmt: skip
SOURCES = {
    "hermes": chatml.CHAT_TEMPLATE, "mistral": mistral.CHAT_TEMPLATE, "llama": llama3.CHAT_TEMPLATE,
    "mistral 11": mistral.CHAT_TEMPLATE + "[ARGS]",
}  # fmt: skip
WHOLE = {
    "hermes": 'Let me see.<tool_call>\n{"name": "ls", "arguments": {"path": "b"}}\n</tool_call>',
    "mistral": 'See.[TOOL_CALLS] [{"name": "now", "arguments": {}}, '
    '{"name": "ls", "arguments": {"path": "b"}}]',
    "llama": '{"name": "ls", "parameters": {"path": "/a"}}; {"name": "now", "parameters": {}}',
    "mistral 11": '[TOOL_CALLS]ls[ARGS]{"path": "b"}[TOOL_CALLS]now[ARGS]{}',
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("chosen", ["auto", "none", "required", "ls"])
def test_calls_are_what_the_templates_parser_reads(name: str, chosen: str) -> None:
    how: Any = {"name": "ls"} if chosen == "ls" else chosen
    config = tools.Config(tools=TOOLS, choice=how, template=SOURCES[name], parallel=chosen != "ls")
    parse, done = _calls.parser(SOURCES[name]), 0
    for seed in range(25):
        ids = walk(tools.compile(config, BYTES), random.Random(f"{name} {chosen} {seed}"), stop=0.6, eager=60)
        if ids is None:
            continue
        message = parse(bytes(ids).decode())
        assert "error" not in message, message
        called = [(call.get("function") or call)["name"] for call in message["tool_calls"]]
        assert bool(called) == (chosen in ("required", "ls")) or (chosen == "auto" and called)
        assert chosen != "ls" or called == ["ls"]
        done += 1
    assert done >= 15
    whole = tools.Config(tools=TOOLS, template=SOURCES[name])
    text = WHOLE[name].encode()
    assert takes(tools.compile(whole, BYTES), list(text))
    assert not takes(
        tools.compile(whole, BYTES), list(text.replace(b'"b"', b'"c"').replace(b'"/a"', b'"/c"'))
    )


@pytest.mark.parametrize("name", SOURCES)
def test_the_first_call_alone_may_be_narrowed(name: str) -> None:
    text = list(WHOLE[name].encode())
    begins = "now" if name == "mistral" else "ls"
    for first in ("ls", "now"):
        for how in ("auto", "required") if name in ("llama", "mistral 11") else ("auto",):
            config = tools.Config(tools=TOOLS, choice=how, template=SOURCES[name], first=[first])
            assert takes(tools.compile(config, BYTES), text) == (first == begins), (first, how)
    words = tools.Config(tools=TOOLS, template=SOURCES[name], first=["now"])
    assert takes(tools.compile(words, BYTES), list(b"No call at all."))
    with pytest.raises(ConfigError, match="unknown tool 'rm'"):
        tools.Config(tools=TOOLS, first=["rm"])


@pytest.mark.parametrize("name", SOURCES)
def test_an_answer_with_a_schema_stands_beside_calls(name: str) -> None:
    answer = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"],
              "additionalProperties": False}  # fmt: skip
    config = tools.Config(tools=TOOLS, template=SOURCES[name], answer=answer)
    if name == "llama":
        with pytest.raises(ConfigError, match="without a mark"):
            tools.compile(config, BYTES)
        return
    calls = WHOLE[name][max(WHOLE[name].find("<tool_call>"), WHOLE[name].find("[TOOL_CALLS]")) :]
    told = "See." + calls  # text before a call is no answer of the schema's
    for text, whole in (
        (calls, True),
        (told, False),
        ('{"yes": true}', True),
        ("yes", False),
        ('{"no": 1}', False),
    ):
        assert takes(tools.compile(config, BYTES), list(text.encode())) == whole, text


def test_tags_that_are_tokens_are_written_as_tokens(tmp_path: Path) -> None:
    tokenizer = _bpe(tmp_path)
    config = tools.Config(tools=TOOLS, choice="required", template=chatml.CHAT_TEMPLATE)
    grammar = tools.compile(config, tokenizer)
    assert tokenizer.special["<tool_call>"] in allowed(grammar)
    ids = tokenizer.encode(WHOLE["hermes"].partition(".")[2], special=True)
    for id in ids:
        assert id in allowed(grammar)
        grammar.take(id)
    assert grammar.complete


def test_tools_that_cannot_be_called() -> None:
    odd = {"function": {"name": "odd", "strict": True, "parameters": {"properties": {"t": {"not": {}}}}}}
    for config, words in [
        ({"tools": [odd], "template": chatml.CHAT_TEMPLATE}, "tool 'odd': .*'not' at #/properties/t"),
        ({"tools": TOOLS, "template": "plain"}, "no form for tool calls"),
        ({"tools": TOOLS, "choice": {"name": "rm"}}, "unknown tool 'rm'"),
        ({"tools": TOOLS, "choice": "any"}, "unknown choice of a tool"),
        ({"tools": []}, "no tools"), ({"tools": [*TOOLS, TOOLS[0]]}, "named 'ls'"), ({"tools": [{}]},
        "named ''"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            tools.compile(tools.Config(**config), BYTES)
    loose = {"function": {"name": "odd", "parameters": {"properties": {"t": {"not": {}}}}}}
    config = tools.Config(tools=[loose], choice="required", template=chatml.CHAT_TEMPLATE)
    text = b'<tool_call>\n{"name": "odd", "arguments": {"t": 1}}\n</tool_call>'
    assert takes(tools.compile(config, BYTES), list(text)), "not strict: any object"


def test_thoughts_may_stand_before_an_answer() -> None:
    answers = {"may": [b"7", b"<think>so {</think>\n\n7"], "open": [b"so {</think>7"], "": [b"7"]}
    answers["open"].append(answers["may"][1])  # thoughts are free text
    for thoughts, texts in answers.items():
        for text in {text for found in answers.values() for text in found}:
            own = constraint("regex", "[0-9]", BYTES, thoughts=thoughts)
            assert takes(own, list(text)) == (text in texts), (thoughts, text)


def test_gbnf_means_what_it_says() -> None:
    for text, good, bad in [
        ('root ::= a b\na ::= [a-z]+\nb ::= [a-z] "1"', "abc1", "abc"),  # a would take what b needs
        ('root ::= "(" root ")" ws | num ws "\\n"\nnum ::= [0-9]+\nws ::= [ \\n]*', "(12 \n\n)", "(12)"),
        ('root ::= . "\\u00e9" [^a-c\\]] # a comment\n', "\né\n", "xéa"),
        ('root ::= ("a" | "b"){2,3} "x"? [/&~^-]', "aba&", "a&"), ('root ::= "\\"\\x41\\\\"', '"A\\', '"a\\'),
    ]:  # fmt: skip
        assert takes(gbnf.compile(text, BYTES), list(good.encode())), good
        assert not takes(gbnf.compile(text, BYTES), list(bad.encode())), bad
    for text, words in {
        'root ::= "a" root': "ever ends",
        "root ::= x": "no rule 'x'", 'a ::= "b"': "no rule 'root'", 'root ::= "a': "too early",
        "root ::= [z-a]": "line 1, column 14",
        "root ::= <think>": "end of the line", 'root ::= "a"{3,1}': "below 3",
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            gbnf.compile(text, BYTES)


@pytest.mark.parametrize("kind,value", [("regex", ""), ("regex", "("), ("choice", []), ("choice", ["a", ""]),
                                        ("choice", "a"), ("lark", " "), ("lark",
                                        "start: %json {\"not\": {}}"),
                                        ("json", "list"), ("gbnf", ""), ("yaml", "x")])  # fmt: skip
def test_what_is_no_constraint(kind: str, value: Any) -> None:
    with pytest.raises(ConfigError):
        constraint(kind, value, BYTES)
