"""Runs on mixed corpora with BPE-dropout: resumed is straight, prefetched is not, corpora measured apart."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core import events as ev
from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError, DataError, UnsupportedError
from tinygpt.core.events import Events
from tinygpt.data import bpe, rows
from tinygpt.eval.suites import heldout_loss
from tinygpt.model.checkpoint import read_tensors
from tinygpt.runs import pretrain, tokenize


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("corpora")
    prose = "".join(f"the quick brown fox number {n} jumps over lazy dogs\n" for n in range(90))
    code = "".join(f"def f_{n}(x):\n    return x * {n} + {n % 7}\n\n" for n in range(90))
    (found / "prose.txt").write_text(prose)
    (found / "code.txt").write_text(code)
    bpe.train_bpe([prose, code], bpe.Config(vocab_size=420)).save(found / "tok")
    return found


def config(folder: Path, out: Path, **changes: Any) -> pretrain.Config:
    return from_dict(pretrain.Config, {
        "corpus": [f"prose={folder}/prose.txt:0.75", f"code={folder}/code.txt:0.25"], "out": str(out),
        "tokenizer": str(folder / "tok"), "steps": 4, "batch": 4, "context": 32, "seed": 1, "compile": False,
        "save_every": 2, "eval_every": 2, "held_out": 0.2, "bpe_dropout": 0.2, "lock": False,
        "model": {"hidden_size": 32, "num_hidden_layers": 1}, **changes,
    })  # fmt: skip


def test_resumed_prefetched_and_straight_are_equal(folder: Path, tmp_path: Path, memory: Any) -> None:
    result = pretrain.run(config(folder, tmp_path / "a"), Events(memory))
    assert {"loss", "loss.prose", "loss.code"} <= set(result.metrics)
    found = memory.of(ev.Evaluated)[-1].metrics
    assert found["loss"] == pytest.approx(0.75 * found["loss.prose"] + 0.25 * found["loss.code"])
    facts = memory.of(ev.RunStarted)[0].facts
    assert facts["epochs"].keys() == facts["corpora"].keys() == {"prose", "code"}
    assert all(c["bpe_dropout_growth"] > 1 for c in facts["corpora"].values())

    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "final")
    shutil.rmtree(tmp_path / "b" / "steps" / "000004")
    pretrain.run(config(folder, tmp_path / "b", resume=True, prefetch=True), Events())
    pretrain.run(config(folder, tmp_path / "c", prefetch=True), Events())
    straight = read_tensors(tmp_path / "a" / "final", "model")
    for other in ("b", "c"):
        tensors = read_tensors(tmp_path / other / "final", "model")
        assert all((tensors[name] == value).all().item() for name, value in straight.items())

    shutil.rmtree(tmp_path / "b" / "final")
    shutil.rmtree(tmp_path / "b" / "steps" / "000004")
    with pytest.raises(ConfigError, match="cannot resume .*: the data changed"):
        changed = [f"prose={folder}/prose.txt:0.7", f"code={folder}/code.txt:0.3"]
        pretrain.run(config(folder, tmp_path / "b", resume=True, corpus=changed), Events())
    with pytest.raises(ConfigError, match="bpe_dropout 0.2 -> 0.1"):
        pretrain.run(config(folder, tmp_path / "b", resume=True, bpe_dropout=0.1), Events())
    with pytest.raises(ConfigError, match="--corpus x=.* is inside --out"):
        given = [f"x={tmp_path}/a/events.jsonl:1"]
        pretrain.run(config(folder, tmp_path / "a", corpus=given, force=True), Events())


def test_what_makes_no_sense_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="--bpe-dropout needs a byte-level BPE tokenizer"):
        pretrain.run(config(folder, tmp_path / "a", tokenizer="byte"), Events())
    with pytest.raises(ConfigError, match="--bpe-dropout must be from 0 to 1"):
        pretrain.run(config(folder, tmp_path / "a", bpe_dropout=1.5), Events())
    with pytest.raises(ConfigError, match="two corpora are called x"):
        pretrain.run(
            config(folder, tmp_path / "a", corpus=[f"x={folder}/prose.txt", f"x={folder}/code.txt"]), Events()
        )


def test_a_tokenizer_is_trained_on_fields_and_corpora_apart(tmp_path: Path, memory: Any) -> None:
    rows.write(tmp_path / "a.jsonl", [{"body": f"lorem ipsum {n} dolor"} for n in range(200)])
    (tmp_path / "b").mkdir()
    for n in range(10):
        (tmp_path / "b" / f"{n}.txt").write_text(f"the text of file {n} " * 20)

    def run(*given: str, **more: Any) -> dict[str, Any]:
        data = {"corpus": [g.replace("@", f"{tmp_path}/") for g in given], "out": str(tmp_path / "tok")}
        return tokenize.run(
            from_dict(tokenize.Config, {**data, "force": True, "vocab_size": 300, **more}), Events(memory)
        )

    found = run("rows=@a.jsonl", "files=@b", field="body", held_out=0.1)
    assert found["files"] == 10, "the last of ten files is held out, as `train` will do for this corpus"
    assert "lorem" in (tmp_path / "tok" / "tokenizer.json").read_text()
    with pytest.raises(ConfigError, match="has a weight, but nothing is mixed here"):
        run("rows=@a.jsonl:1")
    with pytest.raises(ConfigError, match="--field body means nothing"):
        run("@b", field="body")
    rows.write(tmp_path / "talk.jsonl", [{"prompt": "what is it", "completion": "a file"}])
    (tmp_path / "b" / "a.txt").write_bytes(b"caf\xe9")
    assert run("@b", "@talk.jsonl", held_out=0)["files"] == 12, "what is named by hand can be read"
    with pytest.raises(DataError, match="a.txt is not UTF-8"):
        run("@b", "@talk.jsonl", "@b/a.txt", held_out=0)


def test_a_field_is_measured(tmp_path: Path) -> None:
    rows.write(tmp_path / "a.jsonl", [{"body": "one"}, {"body": "two"}])
    found = heldout_loss.load(heldout_loss.Config(paths=(tmp_path / "a.jsonl",), field="body"))
    assert [item["text"] for item in found.items] == ["one", "two"]
    with pytest.raises(ConfigError, match="the corpus x has a name, but nothing is mixed here"):
        heldout_loss.load(heldout_loss.Config(paths=(Path(f"x={tmp_path}/a.jsonl"),)))
