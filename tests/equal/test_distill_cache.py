"""Learning from a teacher's cache: as from the same signals computed at each step, without the teacher."""

from __future__ import annotations

import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equal import test_distill_runs as runs
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data import rows
from tinygpt.distill.signal import LocalTeacher, Sparse
from tinygpt.distill.store import Key, Places, Store, packed
from tinygpt.runs import _pieces, _teacher, _teacher_cache, distill

folder = runs.folder
K = 6
WAYS: dict[str, dict[str, Any]] = {
    "answers": {"full": True, "loss": {"name": "jsd", "beta": 0.3}},
    "prompts too, at another temperature": {"full": True, "prompt_weight": 0.3, "temperature": 2.0},
    "rows of few widths": {"adapter": "lora", "pack": "bucket"},
    "plain text that is mixed": {
        "full": True, "data": None, "corpus": ["a=text.txt:3", "b=other.txt:1"], "steps": 12,
    },
    "qlora": {"qlora": True, "qlora_group_size": 32},
}  # fmt: skip


class Online:
    """The same k tokens, rounded in the same way, from the teacher itself."""

    def __init__(self, model: Any, n: int, temperature: float) -> None:
        self.dense, self.n, self.temperature = LocalTeacher(model, n), n, temperature

    def __call__(self, batch: Any) -> Sparse:
        z = np.array(self.dense(batch).logits_BLN, np.float64) / self.temperature
        log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
        ids = np.argsort(-log_p, -1, kind="stable")[..., :K].astype(np.int32)
        top = np.take_along_axis(log_p, ids, -1).astype(np.float32)
        flat = Places(ids.reshape(-1, K), top.reshape(-1, K), np.ones(top[..., 0].size, bool))
        kept = packed(flat, 2).log_p.reshape(top.shape)
        return Sparse(mx.array(ids), mx.array(kept), mx.ones(kept.shape[:2]), self.n)


def given(folder: Path, tmp: Path, way: str) -> dict[str, Any]:
    how = dict(WAYS[way])
    if "corpus" in how:
        (folder / "other.txt").write_text("".join(f"another {i * i}\n" for i in range(90)))
        how["corpus"] = [spec.replace("=", f"={folder}/") for spec in how["corpus"]]
    return {"cache_teacher": str(tmp / "kept"), "top_k": K, **how}


def refuse_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("the teacher was opened")

    monkeypatch.setattr(_teacher, "opened", fail)


@pytest.mark.parametrize("way", WAYS)
def test_it_is_learning_from_the_teacher_that_is_read_at_each_step(
    way: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = given(folder, tmp_path, way)
    one = distill.run(runs.config(folder, tmp_path / "a", **how), Events())
    live = {name: value for name, value in how.items() if name not in ("cache_teacher", "top_k")}

    def opened(path: Path, *_: Any) -> _teacher.Taught:
        loaded, tokenizer = _pieces.open_model(path)
        online = Online(loaded.model, tokenizer.vocab_size, how.get("temperature", 1.0))
        return _teacher.Taught(teacher=online, inputs={})

    monkeypatch.setattr(_teacher, "opened", opened)
    other = distill.run(runs.config(folder, tmp_path / "b", **live), Events())
    told = [name for name in ("loss", "divergence") if name in other.metrics]
    assert [one.metrics[n] for n in told] == pytest.approx([other.metrics[n] for n in told], rel=1e-3)
    a, b = runs.weights(tmp_path / "a" / "final"), runs.weights(tmp_path / "b" / "final")
    for name, value in a.items():
        np.testing.assert_allclose(np.array(value), np.array(b[name]), rtol=1e-2, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("way", ["answers", "plain text that is mixed", "rows of few widths"])
def test_resumed_is_straight_and_opens_no_teacher(
    way: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {**given(folder, tmp_path, way), "steps": 6}
    distill.run(runs.config(folder, tmp_path / "a", **how), Events())
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "final")
    shutil.rmtree(tmp_path / "b" / "steps" / "000006")
    refuse_teachers(monkeypatch)
    distill.run(runs.config(folder, tmp_path / "b", **how, resume=True), Events())
    distill.run(runs.config(folder, tmp_path / "c", **how), Events())
    a = runs.weights(tmp_path / "a" / "final")
    for other in ("b", "c"):
        b = runs.weights(tmp_path / other / "final")
        assert all((b[name] == value).all().item() for name, value in a.items())


def test_a_whole_cache_needs_no_teacher_on_this_machine(folder: Path, tmp_path: Path, memory: Any) -> None:
    """Not its weights, and not its folder; other rows than it has are refused."""
    mine = tmp_path / "teacher"
    shutil.copytree(folder / "teacher", mine)
    how = {**given(folder, tmp_path, "answers"), "teacher": str(mine)}
    found = distill.cache(runs.config(folder, tmp_path / "a", **how, cache_only=True), Events())
    assert not (tmp_path / "a").exists() and found["measured"] > 0
    assert Path(found["path"]).parent == tmp_path / "kept" and 0 < found["kl_events"] < 1e-3
    shutil.rmtree(mine)
    how["teacher"] = None
    done = distill.run(runs.config(folder, tmp_path / "b", **how), Events(memory))
    assert done.step == 6
    facts = next(e.facts for e in memory.events if e.kind == "run.started")
    assert facts["teacher_cache"] == {name: value for name, value in found.items() if name != "path"}
    rows.write(tmp_path / "new.jsonl", [{"prompt": f"new {i}", "completion": "no"} for i in range(20)])
    with pytest.raises(ConfigError, match="lacks rows of this run, and there is no teacher"):
        distill.run(
            runs.config(folder, tmp_path / "c", **how | {"data": [str(tmp_path / "new.jsonl")]}), Events()
        )
    with pytest.raises(ConfigError, match="has 0 caches with k 5"):
        distill.run(runs.config(folder, tmp_path / "c", **how | {"top_k": 5}), Events())
    assert not (tmp_path / "c").exists()


def test_the_teacher_is_gone_before_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, begun = list[Any](), list[Any]()
    init, train = _teacher_cache.Likeliest.__init__, distill._train.train

    def met(self: Any, model: Any, key: Key) -> None:
        there.append(weakref.ref(model))
        init(self, model, key)

    def checked(*given: Any, **how: Any) -> Any:
        begun.extend(ref() for ref in there)
        return train(*given, **how)

    monkeypatch.setattr(_teacher_cache.Likeliest, "__init__", met)
    monkeypatch.setattr(distill._train, "train", checked)
    distill.run(runs.config(folder, tmp_path / "a", **given(folder, tmp_path, "answers")), Events())
    assert begun == [None]


def test_what_was_asked_before_a_stop_is_not_asked_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {**given(folder, tmp_path, "rows of few widths"), "cache_only": True}
    read, asked = _teacher_cache.Likeliest.__call__, list[int]()

    def counted(self: Any, batch: Any, counts: Any) -> Any:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(counts))
        return read(self, batch, counts)

    monkeypatch.setattr(_teacher_cache, "TOKENS", 64)
    monkeypatch.setattr(_teacher_cache.Likeliest, "__call__", counted)
    with pytest.raises(KeyboardInterrupt):
        distill.cache(runs.config(folder, tmp_path / "a", **how), Events())
    first = sum(asked)
    monkeypatch.setattr(_teacher_cache.Likeliest, "__call__", read)
    done = distill.cache(runs.config(folder, tmp_path / "a", **how), Events())
    assert 0 < first < done["rows"] and done["shards"] == 2
    whole = distill.cache(
        runs.config(folder, tmp_path / "a", **how | {"cache_teacher": str(tmp_path / "other")}), Events()
    )
    told = ("rows", "places", "measured", "tail", "kl_events", "kl_spread")
    assert [done[name] for name in told[:2]] == [whole[name] for name in told[:2]]
    assert done["tail"] == pytest.approx(whole["tail"], rel=0.3)


def test_of_two_that_fill_a_cache_one_asks(tmp_path: Path, folder: Path) -> None:
    config = runs.config(folder, tmp_path / "a", pack="none", context=32)
    source = distill._source(config, config.open(1), 1, Events())
    key = Key(teacher="t", tokenizer="w", vocabulary=50, k=2)
    asked, both, first = list[int](), threading.Barrier(2, timeout=30), threading.Event()

    def teach(key: Key) -> Any:
        first.wait(30)

        def reader(batch: Any, counts: Any) -> list[Places]:
            asked.append(len(counts))
            each = [int(row.sum()) for row in counts]
            top = np.full((sum(each), 2), -1.0, np.float32)
            every = Places(
                np.tile(np.arange(2, dtype=np.int32), (sum(each), 1)), top, np.ones(sum(each), bool)
            )
            edges = np.cumsum([0, *each])
            return [
                Places(every.ids[a:z], every.log_p[a:z], every.known[a:z]) for a, z in zip(edges, edges[1:])
            ]

        return reader

    def fill(told: Events) -> None:
        store = Store(tmp_path, key)
        both.wait()
        _teacher_cache._fill(store, teach, lambda: iter([source[0], source[1]]), False, told)
        assert len(store.at) == sum(asked)

    class Waits:
        def write(self, event: Any) -> None:
            if "waiting" in getattr(event, "text", ""):
                first.set()

        def close(self) -> None:
            """Nothing is open."""

    threads = [threading.Thread(target=fill, args=(Events(Waits()),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert first.is_set() and len(asked) == 1 and asked[0] == len(Store(tmp_path, key).at) > 4


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"top_k": 0}, "top-k must be at least 1"),
        ({"cache_teacher": None, "top_k": 9}, "--top-k means nothing without --cache-teacher"),
        ({"cache_teacher": None, "cache_only": True}, "--cache-only means nothing without"),
        ({"loss": "hard"}, "--loss hard asks for one token"),
        ({"teacher": None}, "no teacher, and .* has 0 caches"),
        ({"teacher_url": "http://127.0.0.1:1"}, "two teachers"),
        ({"teacher_model": "x"}, "--teacher-model means nothing without --teacher-url"),
        (
            {"teacher": None, "teacher_url": "http://127.0.0.1:1", "temperature": 2.0},
            "at temperature 1 alone",
        ),
        ({"teacher": "foreign"}, "another tokenizer"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], why: str, folder: Path, tmp_path: Path) -> None:
    if change.get("teacher"):
        change = {"teacher": str(folder / change["teacher"])}
    how = {"cache_teacher": str(tmp_path / "kept"), **change}
    with pytest.raises(ConfigError, match=why):
        distill.run(runs.config(folder, tmp_path / "a", **how), Events())
    assert not (tmp_path / "a").exists() and not list(tmp_path.glob("kept/*/shards"))
