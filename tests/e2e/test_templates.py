"""What is trained is what is served: the base's own template, a named one, and templates that are hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.shell import NANO, good, refused, sentences, sums, tinygpt
from formats import FORMATS
from tinygpt.core.errors import DataError
from tinygpt.data.template._spans import encode, join
from tinygpt.runs import _pieces, generate
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._local_endpoint import LocalEndpoint

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, and bases with a template of their own: Gemma's, and one without end."""
    folder = tmp_path_factory.mktemp("templates")
    (folder / "corpus.txt").write_text(sentences(60), encoding="utf-8")
    sums(folder / "rows.jsonl", 12)
    gemma = FORMATS["gemma2"].tokenizer
    for name, tokenizer in (("gemma", gemma), ("hostile", gemma.with_template(ENDLESS))):
        tokenizer.save(folder / "tok" / name)
        good(
            "train", "--corpus", folder / "corpus.txt", "--tokenizer", folder / "tok" / name, "--out",
            folder / name, "--steps", 1, "--seed", 1, *NANO, "--no-lock",
        )  # fmt: skip
    return folder


def tune(root: Path, out: str, *more: object) -> Path:
    good(
        "sft", root / "gemma", "--data", root / "rows.jsonl", "--out", root / out, "--steps", 1, "--batch", 4,
        "--seed", 1, "--no-compile", *more,
    )  # fmt: skip
    return root / out


def shown(root: Path, *more: object) -> list[dict[str, Any]]:
    there = sorted(root.iterdir())
    done = good("sft", root / "gemma", "--data", root / "rows.jsonl", "--show-mask", 3, *more)
    assert sorted(root.iterdir()) == there
    return json.loads(done.out) if "--json" in more else done.out  # type: ignore[return-value]


def test_rows_show_what_is_learned(root: Path) -> None:
    for row in shown(root, "--json"):
        text, learned = "".join(row["tokens"]), [t for t, on in zip(row["tokens"], row["learned"]) if on]
        assert text.startswith("<s><start_of_turn>user\n") and len(row["ids"]) == len(row["tokens"])
        assert "".join(learned) == text.split("model\n")[1] and learned[-1] == "<end_of_turn>"
    assert all(sum(row["learned"]) == len(row["ids"]) - 1 for row in shown(root, "--json", "--learn", "all"))
    text = str(shown(root))
    assert text.count("tokens are learned") == 3 and text.count("<end_of_turn>]]") == 3
    command = ("sft", root / "gemma", "--data", root / "rows.jsonl")
    refused(tinygpt(*command, "--show-mask", -1), "--show-mask must be at least 0")
    refused(tinygpt(*command, "--show-mask", 0), "'out' is required")


def test_the_bases_own_template_is_trained_and_served(root: Path) -> None:
    out = tune(root, "own")
    loaded, tokenizer = _pieces.open_model(root / "gemma", out / "final")
    assert _pieces.template_of(tokenizer).name == "base"
    assert tokenizer.chat_template == FORMATS["gemma2"].source
    row = shown(root, "--json")[0]
    ask = "".join(row["tokens"]).split("user\n")[1].split("<end_of_turn>")[0]
    engine = generate.open_engine(root / "gemma", Adapters(adapter=(out / "final",)))
    prompt = engine.encode_chat([{"role": "user", "content": ask}])
    assert row["ids"][: len(prompt)] == prompt and row["learned"].index(True) == len(prompt)
    endpoint = LocalEndpoint.open(root / "gemma", out / "final")
    (reply,) = endpoint.complete([[{"role": "user", "content": ask}]], max_tokens=2)
    assert reply.message["role"] == "assistant"
    assert loaded.model.config.vocab_size >= tokenizer.vocab_size


@pytest.mark.parametrize("how", [[], ["--full"]])
def test_a_named_template_is_found_again(root: Path, how: list[str]) -> None:
    out = tune(root, "named" + "-".join(how), "--template", "plain", *how)
    base, adapter = (out / "final", None) if how else (root / "gemma", out / "final")
    _, tokenizer = _pieces.open_model(base, adapter)
    template = _pieces.template_of(tokenizer)
    assert (
        template.name == "plain" and _pieces.template_of(_pieces.open_model(root / "gemma")[1]).name == "base"
    )
    turns = [{"role": "user", "content": "1+2"}, {"role": "assistant", "content": "3"}]
    spans = template.render(turns)
    assert join(span for span in spans if span.learn) == " 3<end_of_turn>"  # a stop token that Gemma has
    ids, learn = encode(spans, tokenizer)
    assert [id for id, on in zip(ids, learn, strict=True) if on][-1] in tokenizer.stop_ids
    good("chat", base, *(["--adapter", adapter] if adapter else []), "--max-tokens", 2, stdin="1+2\n")


def test_rows_that_a_template_refuses_are_counted(root: Path) -> None:
    row = {"prompt": "1+1", "completion": "2", "system": "Add."}
    mixed = root / "mixed.jsonl"
    mixed.write_text((root / "rows.jsonl").read_text() + json.dumps(row) + "\n")
    command = ("sft", root / "gemma", "--data", mixed, "--out", root / "n", "--show-mask", 1)
    done = good(*command)
    assert "1 of 13 rows cannot be learned" in done.err and "System role not supported" in done.err
    refused(tinygpt(*command, "-q", "--strict"), "System role not supported")


def test_a_hostile_template_ends_with_one_line(root: Path) -> None:
    data, ask = root / "rows.jsonl", {"stdin": "hello\n"}
    why = "the chat template was stopped: it takes more than 1,000,000 steps"
    done = tinygpt("sft", root / "hostile", "--data", data, "--out", root / "bad", "--steps", 1, "-q")
    assert done.code == 2 and why in done.err and not (root / "bad").exists()
    done = tinygpt("chat", root / "hostile", "-q", **ask)
    assert done.code == 2 and why in done.err
    good("sample", root / "hostile", "--prompt", "the", "--tokens", 2)  # plain text needs no template
    good(
        "sft", root / "hostile", "--data", data, "--out", root / "o", "--show-mask", 1, "--template", "chatml"
    )


def test_a_chat_goes_on_after_a_refusal(root: Path) -> None:
    """Gemma's template refuses system messages: one line each, and the refused message leaves no trace."""
    done = tinygpt("chat", root / "gemma", "--system", "Add.", "--max-tokens", 1, stdin="1+2\n3+4\n")
    assert done.code == 2 and done.err.count("error: the model's chat template refuses") == 2
    talk = generate.Conversation(generate.ChatConfig(model=root / "gemma", system="Add."))
    with pytest.raises(DataError, match="System role not supported"):
        list(talk.say("1+2"))
    assert [m["role"] for m in talk.messages] == ["system"]


def test_a_base_without_a_template_is_asked_in_chatml_and_says_so(root: Path) -> None:
    bare = FORMATS["gemma2"].tokenizer.with_template(None)
    bare.save(root / "tok" / "bare")
    good(
        "train", "--corpus", root / "corpus.txt", "--tokenizer", root / "tok" / "bare",
        "--out", root / "bare", "--steps", 1, "--seed", 1, *NANO,
    )  # fmt: skip
    note = (
        "the model has no chat template of its own: conversations are written as ChatML, with <end_of_turn>"
    )
    done = tinygpt("chat", root / "bare", "--max-tokens", 1, stdin="1\n")
    assert note in done.err
    command = ("sft", root / "bare", "--data", root / "rows.jsonl", "--out", root / "t", "--batch", 4)
    assert note in good(*command, "--steps", 1, "--no-compile").err
    _, tokenizer = _pieces.open_model(root / "bare", root / "t" / "final")
    assert tokenizer.chat_template and not _pieces.template_of(tokenizer).note  # it has one now
    refused(tinygpt(*command, "--template", "base", "--force"), "has no chat template of its own")
