"""What `sample`, `chat` and `generate` share: packed weights, kept prompts, guessed tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlx.utils import tree_map

from e2e.shell import process
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, MemorySink, Note
from tinygpt.data.tokenizer import byte
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize
from tinygpt.model.quantized import Packing
from tinygpt.peft import _adapter
from tinygpt.runs import _asking, _pieces, _serve_settings, _served, generate, predict
from tinygpt.runs._lanes import Lanes
from tinygpt.runs.generate import ChatConfig, Conversation

LONG = "What was read once need not be read again, now or by the next process. " * 2
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 10, "seed": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models with different weights, and an adapter for the first."""
    folder = tmp_path_factory.mktemp("writing")
    config = ModelConfig(
        vocab_size=260, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, initializer_range=0.2,
    )  # fmt: skip
    tokenizer, found = byte.load(), dict[str, Path]()
    ids = {"eos": tokenizer.eos_id, "bos": tokenizer.bos_id, "pad": tokenizer.pad_id}
    for name, seed in (("model", 1), ("other", 2)):
        found[name] = checkpoint.save(
            folder / name, initialize(LM(config), seed), write_tokenizer=tokenizer.save, ids=ids,
            stop_ids=tokenizer.stop_ids,
        )  # fmt: skip
    model, pick = checkpoint.load(found["model"]).model, Pick("ia3").resolve(_adapter.PEFT, "peft")
    _adapter.attach(model, pick, seed=0)
    model.update(tree_map(lambda x: x * 1.5, model.trainable_parameters()))
    found["adapter"] = _adapter.save_adapter(folder / "adapter", model, pick, base=found["model"])
    model.update(tree_map(lambda x: x * 0.5, model.trainable_parameters()))
    found["other adapter"] = _adapter.save_adapter(folder / "adapter2", model, pick, base=found["model"])
    return found


def _sampled(model: Path, prompt: str = LONG, **more: Any) -> tuple[str, int]:
    """The text, and how many tokens of the prompt were there; all is opened anew, as a process would."""
    pieces = list(generate.sample(generate.Config(model=model, **(GREEDY | more)), prompt))
    return "".join(piece.text for piece in pieces), pieces[-1].n_cached


def test_the_next_start_reads_only_the_rest_of_a_prompt(made: dict[str, Path], tmp_path: Path) -> None:
    kept: dict[str, Any] = {"prompt_cache_dir": tmp_path / "kept"}
    plain, nothing = _sampled(made["model"])
    n = len(LONG)  # a byte is a token
    assert nothing == 0 and _sampled(made["model"], **kept) == (plain, 0)
    assert _sampled(made["model"], **kept) == (plain, n - 1), "all but the token that gives the first logits"
    longer = LONG + "And so on"
    assert _sampled(made["model"], longer, **kept) == (_sampled(made["model"], longer)[0], n)
    # What was written counts, too: a text that goes on from an answer reads only what is new.
    text, known = _sampled(made["model"], LONG + plain + "!", **kept)
    assert text == _sampled(made["model"], LONG + plain + "!")[0] and known >= n


def test_what_another_model_has_read_is_of_no_use(made: dict[str, Path], tmp_path: Path) -> None:
    kept: dict[str, Any] = {"prompt_cache_dir": tmp_path / "kept"}
    for model, more in (
        ("model", {}),
        ("other", {}),
        ("model", {"adapter": (made["adapter"],)}),
        ("model", {"adapter": (made["adapter"],), "adapter_weight": (0.5,)}),
        ("model", {"quantize": "8"}),
        ("model", {"quantize": "4", "quantize_group": 32}),
        ("model", {"kv_bits": 8}),
    ):
        text, known = _sampled(made[model], **more, **kept)
        assert known == 0 and text == _sampled(made[model], **more)[0], (model, more)
        assert _sampled(made[model], **more, **kept)[0] == text
    assert _sampled(made["model"], **kept)[1] > 100


@pytest.mark.parametrize("worn", [False, True])
def test_a_server_knows_what_a_command_has_read(made: dict[str, Path], tmp_path: Path, worn: bool) -> None:
    folder, adapters = tmp_path / "kept", (made["adapter"],) if worn else ()
    text, _ = _sampled(made["model"], prompt_cache_dir=folder, adapter=adapters)
    config = _serve_settings.Config(
        model=(f"m={made['model']}",), lora=tuple(map(str, adapters)), prompt_cache_dir=folder
    )
    opened = _served.Models(config.source, Lanes(config, Events()), Events()).open("m", None)
    engine = opened.engine
    answer = opened.lane.submit(engine.request(engine.encode(LONG), SampleConfig(**GREEDY)))
    opened.lane.drain()
    assert (answer.text, answer.n_cached) == (text, len(LONG) - 1)


def test_a_process_after_the_other(made: dict[str, Path], tmp_path: Path) -> None:
    words = ("sample", made["model"], "--prompt", LONG, "--tokens", 8, "--seed", 1, "--json")
    plain, first, second = (
        process(*words, *more).json["answers"][0]
        for more in ((), *[("--prompt-cache-dir", tmp_path / "kept")] * 2)
    )
    assert "cached_tokens" not in plain
    assert first == plain | {"cached_tokens": 0} and second == plain | {"cached_tokens": len(LONG) - 1}


@pytest.mark.parametrize(("text", "group"), [("8", 0), ("int4", 32), ("mxfp4", 0)])
def test_packed_as_it_is_read(made: dict[str, Path], text: str, group: int, tmp_path: Path) -> None:
    """In all of them, with an adapter on top: the text is that of the model packed so."""
    packing = generate.Config(model=made["model"], quantize=text, quantize_group=group).packing
    assert isinstance(packing, Packing) and packing.group_size == (group or packing.group_size)
    loaded, tokenizer = _pieces.open_model(made["model"], [made["adapter"]], packing=packing)
    engine = Engine(loaded.model, tokenizer, _pieces.template_of(tokenizer))
    config = SampleConfig(**GREEDY)
    worn: dict[str, Any] = {"quantize": text, "quantize_group": group, "adapter": (made["adapter"],)}
    expected = engine.generate_batch([engine.encode(LONG)], config)[0].text
    assert _sampled(made["model"], **worn)[0] == expected
    talk = Conversation(ChatConfig(model=made["model"], **worn, **GREEDY))
    asked = engine.encode_chat([{"role": "user", "content": "hi"}])
    assert "".join(talk.say("hi")) == engine.generate_batch([asked], config)[0].text
    assert _answered(made["model"], tmp_path, [LONG], **worn) == [expected]


def _answered(model: Path, folder: Path, prompts: list[str], **more: Any) -> list[str]:
    """What `generate` writes."""
    data, out = folder / "rows.jsonl", folder / "out.jsonl"
    data.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts), encoding="utf-8")
    out.unlink(missing_ok=True)
    predict.run(_asking.Config(model=model, data=data, out=out, **(GREEDY | more)), Events())
    return [json.loads(line)["output"] for line in out.read_text(encoding="utf-8").splitlines()]


def test_a_conversation_reads_its_history_once(made: dict[str, Path]) -> None:
    talk, forgetful = (
        Conversation(ChatConfig(model=made["model"], prompt_cache=gb, system=LONG, **GREEDY)) for gb in (1, 0)
    )
    said: list[int] = []
    for text in ("hello", "and then?", "go on"):
        assert list(talk.say(text)) == list(forgetful.say(text))
        assert talk.lane.prefixes is not None and forgetful.lane.prefixes is None
        said.append(talk.lane.prefixes.stats.tokens)
    first = len(talk.engine.encode_chat([*talk.start, {"role": "user", "content": "hello"}]))
    assert said[0] == 0 and said[1] >= first - 1 and said[2] - said[1] > said[1], "each time all that was"


def test_guesses_change_no_text(made: dict[str, Path], tmp_path: Path) -> None:
    prompts = [LONG + str(i) for i in range(5)]
    plain = _answered(made["model"], tmp_path, prompts)
    turns = ["hello", "hello hello hello"]
    quiet = Conversation(ChatConfig(model=made["model"], **GREEDY))
    expected = ["".join(quiet.say(text)) for text in turns]
    for how in ({"draft_model": made["model"]}, {"speculate": "ngram", "draft_tokens": 3}):
        sink = MemorySink()
        talk = Conversation(ChatConfig(model=made["model"], **how, **GREEDY), Events(sink))
        assert ["".join(talk.say(text)) for text in turns] == expected
        talk.end()
        assert any(isinstance(e, Note) and e.text.startswith("speculation: ") for e in sink.events)
        drafter = talk.engine.drafter
        assert drafter is not None and drafter.told.passes and (drafter.told.drafted or "speculate" in how)
        assert _answered(made["model"], tmp_path, prompts, **how) == plain


def test_answers_of_other_weights_or_other_draws_are_not_gone_on_with(
    made: dict[str, Path], tmp_path: Path
) -> None:
    known = {"data": tmp_path / "rows.jsonl", "out": tmp_path / "out.jsonl", "model": made["model"]}
    _answered(made["model"], tmp_path, [LONG], temperature=1.0)
    for more in ({"quantize": "8"}, {"draft_model": made["other"]}):
        with pytest.raises(Exception, match="other settings"):
            predict.run(_asking.Config(**known, **(GREEDY | {"temperature": 1.0} | more)), Events())
    same = GREEDY | {"temperature": 1.0, "speculate": "ngram", "prompt_cache": 0.0}
    assert predict.run(_asking.Config(**known, **same), Events())["kept"] == 1


def test_an_adapter_is_known_by_what_is_in_it(made: dict[str, Path], tmp_path: Path) -> None:
    """One that was trained again under its old name is another; one that was moved is not."""
    worn = tmp_path / "adapter"
    shutil.copytree(made["adapter"], worn)
    _answered(made["model"], tmp_path, [LONG], adapter=(worn,))
    known: dict[str, Any] = {"data": tmp_path / "rows.jsonl", "out": tmp_path / "out.jsonl"}
    moved = _asking.Config(model=made["model"], adapter=(made["adapter"],), **known, **GREEDY)
    assert predict.run(moved, Events())["kept"] == 1
    shutil.rmtree(worn)
    shutil.copytree(made["other adapter"], worn)
    with pytest.raises(DataError, match="other settings"):
        predict.run(_asking.Config(model=made["model"], adapter=(worn,), **known, **GREEDY), Events())


def test_settings_that_mean_nothing_are_refused(made: dict[str, Path], tmp_path: Path) -> None:
    model = made["model"]
    rows = {"data": tmp_path / "a", "out": tmp_path / "b"}
    for make, bad, what in (
        (generate.Config, {"quantize_group": 32}, "without --quantize"),
        (generate.Config, {"quantize": "7"}, "bits a weight"),
        (generate.Config, {"prompt_cache": 2.0}, "without --prompt-cache-dir"),
        (ChatConfig, {"prompt_cache_dir": tmp_path, "prompt_cache": 0.0}, "without --prompt-cache"),
        (ChatConfig, {"prompt_cache": -1.0}, "not be negative"),
        (ChatConfig, {"draft_model": model, "heads": model}, "guess the same tokens"),
        (_asking.Config, {"url": "http://x", "quantize": "8", **rows}, "--quantize says nothing to a server"),
        (_asking.Config, {"url": "http://x", "speculate": "ngram", **rows}, "--speculate says nothing"),
        (_asking.Config, {"url": "http://x", "prompt_cache_dir": tmp_path, **rows}, "says nothing"),
        (_asking.Config, {"url": "http://x", "prompt_cache": 0.0, **rows}, "--prompt-cache says nothing"),
    ):
        with pytest.raises(ConfigError, match=what):
            make(model=model, **bad)
