"""Pieces of the data pipeline: the catalogue, layouts of the hub, recognition, stages, mixing, requests."""

from __future__ import annotations

import collections
import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import catalogue, hub_files, mixing, recognise, requests, rows, table
from tinygpt.data.mixing import Pile
from tinygpt.data.tally import MOST, OTHER, Tally


def test_the_catalogue_has_its_entries_by_kind_and_format() -> None:
    assert len(catalogue.ENTRIES) == 22 == len({e.id.lower() for e in catalogue.ENTRIES})
    assert {k for e in catalogue.ENTRIES for k in e.kinds} == set(catalogue.KINDS)
    assert len(catalogue.listed("dpo")) == 3 == len(catalogue.listed(format="dpo"))
    assert [e.id for e in catalogue.listed("tools", "sft")][0] == "Salesforce/xlam-function-calling-60k"
    assert {e.id for e in catalogue.ENTRIES if e.gated} == {
        "Salesforce/xlam-function-calling-60k", "bigcode/the-stack-smol",
    }  # fmt: skip
    assert catalogue.find("metamathqa").id == "meta-math/MetaMathQA"
    with pytest.raises(ConfigError, match="unknown data set 'MetaMatQA'. Did you mean"):
        catalogue.find("MetaMatQA")
    with pytest.raises(ConfigError, match="unknown kind of specialist 'mat'"):
        catalogue.listed("mat")
    for entry in catalogue.ENTRIES:  # columns that are renamed are columns that sft, dpo or train read
        rows.renames(entry.map, known=recognise.COLUMNS)


NAMES = ["README.md", "data/train-0.parquet", "data/train-1.parquet", "data/test-0.parquet", "data/x.jsonl"]


def test_splits_are_the_words_in_the_names_of_the_commonest_kind() -> None:
    found = hub_files.layout({}, NAMES)
    assert found.usual == "default"
    assert found.configs["default"] == {"train": NAMES[1:3], "test": NAMES[3:4]}
    plain = hub_files.layout({}, ["b.jsonl", "a.jsonl", "dataset_infos.json", ".git/x.json"])
    assert plain.configs["default"] == {"train": ["a.jsonl", "b.jsonl"]}
    assert list(hub_files.layout({}, ["contest.csv", "trainer.csv"]).configs["default"]) == ["train"]
    with pytest.raises(DataError, match="only a program that would make them"):
        hub_files.layout({}, ["load.py", "README.md"])


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ("data/*-0.parquet", {"train": ["data/test-0.parquet", "data/train-0.parquet"]}),
        ([{"split": "a", "path": ["data/train-*"]}], {"a": NAMES[1:3]}),
        ({"split": "a", "path": "data/train-?.parquet"}, {"a": NAMES[1:3]}),
        ({"train": "data/tr*", "test": "**/test-*"}, {"train": NAMES[1:3], "test": NAMES[3:4]}),
        ("data", {"train": sorted(NAMES[1:])}),
        ("*.parquet", None),
    ],
)
def test_patterns_of_a_card(told: Any, wanted: Any) -> None:
    found = hub_files.layout({"configs": [{"config_name": "c", "data_files": told}]}, NAMES)
    assert found.configs.get("c") == wanted
    assert found.usual == ("c" if wanted else "default"), "what matches nothing is not taken as said"


def test_front_matter_that_cannot_be_read_says_nothing() -> None:
    nano.require("yaml")
    assert hub_files.front_matter("---\nlicense: mit\n---\nx") == {"license": "mit"}
    for text in ("# x", "---\n: : [\n---\n", "---\n- a\n---\n", "---\nlicense: mit\n"):
        assert hub_files.front_matter(text) == {}
    assert hub_files.licence({"license": ["mit", "apache-2.0"]}) == "mit AND apache-2.0"
    assert hub_files.licence({"license": "other", "license_name": "own"}) == "other: own"
    assert hub_files.licence({}) == "unknown"


def test_what_most_rows_are_is_what_they_are() -> None:
    sft, text = {"prompt": "a", "completion": "b"}, {"text": "c"}
    guess = recognise.agreed([sft, sft, sft, text])
    assert (guess.format, guess.confidence) == ("sft", 0.68)  # 3 of 4 rows, times 0.9
    assert recognise.agreed([sft, text, text, "no row"]).format == "plain"
    assert recognise.recognise({"prompt": "a", "text": "b"}, "plain").columns == {"text": "text"}
    with pytest.raises(DataError, match="no known shape has the columns: a, b"):
        recognise.agreed([{"a": 1, "b": 2}])
    with pytest.raises(DataError, match="the answer is empty"):
        recognise.convert({"prompt": "a", "completion": ""}, "sft")


def test_what_is_made_is_read_by_the_sources() -> None:
    made = recognise.convert({"question": "q", "context": "c", "answer": "a", "system": "s", "n": 1}, "sft")
    assert made == {"system": "s", "instruction": "q", "input": "c", "response": "a"}
    assert [m["content"] for m in rows.to_messages(made).messages] == ["s", "q\n\nc", "a"]
    assert recognise.convert({"prompt": "q", "responses": ["a", "b"]}, "sft")["response"] == "a"
    turns = [{"role": "user", "content": "q"}]
    said = [{"role": "assistant", "content": "a"}]
    made = recognise.convert({"prompt": turns, "completion": said}, "sft")
    assert rows.to_messages(made).messages == [*turns, *said]


def test_a_tally_does_not_grow_with_what_it_counts() -> None:
    tally = Tally("x")
    for i in range(100):
        tally.drop(f"line {i} is bad", f"row {i}")
        tally.drop("reason " + "x" * i)
    assert tally.dropped["line N is bad"] == 100 and len(tally.dropped) == MOST + 1
    assert sum(tally.dropped.values()) == tally.n_in == 200 and tally.dropped[OTHER] > 0
    assert tally.sentence().startswith("x: 200 of 200 rows left out: row 0: line 0 is bad")


def test_shares_are_the_largest_mix_of_the_weights() -> None:
    assert mixing.shares([100, 100], [1, 3]) == [33, 100]
    assert mixing.shares([10, 1000], [1, 1], limit=8) == [4, 4]
    assert mixing.shares([10, 20], [0, 0]) == [10, 20] and mixing.shares([10, 20], [0, 0], 15) == [10, 5]
    with pytest.raises(ConfigError, match="give each one a weight"):
        mixing.shares([1, 1], [1, 0])


@pytest.mark.wide
def test_every_choice_and_every_order_is_as_likely(tmp_path: Path) -> None:
    pile = Pile(tmp_path).fill(range(4))
    drawn = collections.Counter(b"".join(mixing.drawn(pile, 2, seed, "x")) for seed in range(1200))
    assert len(drawn) == 6 and all(140 < n < 260 for n in drawn.values())  # 200 each, deviation 12.9
    for part in (1 << 20, 3):  # in memory, and in parts
        orders = collections.Counter(
            b"".join(mixing.shuffled([b"a", b"b", b"c"], 6, seed, tmp_path, part)) for seed in range(1200)
        )
        assert set(orders) == {"".join(p).encode() for p in itertools.permutations("abc")}
        assert all(140 < n < 260 for n in orders.values())
    pile.close()
    assert not list(tmp_path.iterdir())


def bfcl_folder(folder: Path) -> Path:
    """BFCL's data in small: two simple requests, one with two calls, one that no tool serves."""
    call = {"name": "f.g", "description": "adds", "parameters": {"type": "dict", "properties": {
        "x": {"type": "float"}, "y": {"type": "integer"}}}}  # fmt: skip

    def asked(name: str, n: int, **more: Any) -> dict[str, Any]:
        return {"id": f"{name}_{n}", "question": [[{"role": "user", "content": f"{name} {n}?"}]],
                "function": [call], **more}  # fmt: skip

    def write(path: Path, found: list[Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in found))

    write(folder / "BFCL_v4_simple_python.json", [asked("simple", n) for n in range(3)])
    answers = [
        {"id": f"simple_{n}", "ground_truth": [{"f.g": {"x": [n, 9], "y": ["", 0]}}]} for n in range(2)
    ]
    write(folder / "possible_answer/BFCL_v4_simple_python.json", answers)
    write(folder / "BFCL_v4_parallel.json", [asked("parallel", 0)])
    both = [{"f.g": {"x": [1]}}, {"f.h": {"x": [2]}}]
    write(folder / "possible_answer/BFCL_v4_parallel.json", [{"id": "parallel_0", "ground_truth": both}])
    write(folder / "BFCL_v4_irrelevance.json", [asked("irrelevance", 0)])
    write(folder / "BFCL_v4_memory.json", [{"id": "x"}])
    return folder


def test_bfcl_as_it_is_installed(tmp_path: Path) -> None:
    found = list(requests.bfcl(bfcl_folder(tmp_path / "data").parent))
    told = {f.query: f for f in found if not isinstance(f, str)}
    assert [f for f in found if isinstance(f, str)] == ["no reference answer"]
    assert told["simple 1?"].calls == ({"name": "f.g", "arguments": {"x": 1}},)
    assert {q: f.tool() for q, f in told.items()} == {
        "irrelevance 0?": "none", "parallel 0?": "", "simple 0?": "f.g", "simple 1?": "f.g",
    }  # fmt: skip
    row = told["simple 0?"].row()
    assert isinstance(row, dict)
    schema = rows.to_messages(row).tools
    assert schema is not None and schema[0]["function"]["parameters"] == {
        "type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "integer"}},
    }  # fmt: skip
    assert told["irrelevance 0?"].row() == "there is no answer in words"
    with pytest.raises(DataError, match="there is no data of BFCL"):
        list(requests.bfcl(tmp_path / "none"))


def tau_folder(folder: Path) -> Path:
    """The tasks of tau-bench and of tau2-bench in small; the first is a program that must not be run."""
    old, new = folder / "tau_bench/envs/retail", folder / "data/tau2/domains/mock"
    old.mkdir(parents=True)
    new.mkdir(parents=True)
    (old / "tasks_test.py").write_text(
        "raise SystemExit\nTASKS = [Task(user_id='u', instruction='Return my lamp. ', actions=[\n"
        "  Action(name='get_order_details', kwargs={'id': 1}),\n"
        "  Action(name='return_order', kwargs={'id': 1})], outputs=[]),\n"
        "  {'instruction': 'Two', 'actions': [\n"
        "    {'name': 'cancel', 'arguments': {}}, {'name': 'pay', 'arguments': {}}]},\n"
        "  Task(instruction=f'{x}', actions=[])]\n"
    )
    actions = [
        {"name": "pay", "arguments": {}}, {"name": "toggle", "requestor": "user", "arguments": {}},
    ]  # fmt: skip
    told = {"instructions": {"reason_for_call": "Pay."}}
    task = {"user_scenario": told, "evaluation_criteria": {"actions": actions}}
    (new / "tasks.json").write_text(json.dumps([task, {"id": "odd"}]))
    return folder


def test_tau_bench_is_read_and_not_run(tmp_path: Path) -> None:
    found = list(requests.tau_bench(tau_folder(tmp_path)))
    told = {f.query: f.tool() for f in found if not isinstance(f, str)}
    assert told == {"Return my lamp.": "return_order", "Two": "", "Pay.": "pay"}
    reasons = [f for f in found if isinstance(f, str)]
    assert sorted(reasons) == ["not as tau-bench writes it", "not as tau2-bench writes it"]


def test_the_requests_of_a_conversation() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    row = {
        "messages": [
            {"role": "user", "content": "one"}, {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "r"}, {"role": "assistant", "content": "done"},
            {"role": "user", "content": "two"}, {"role": "assistant", "content": "no"},
        ],
        "tools": [call],
    }  # fmt: skip
    assert [(r.query, r.tool()) for r in requests.conversation(row)] == [("one", "f"), ("two", "none")]
    assert len(requests.conversation(row | {"tools": None})) == 1, "without tools, words say nothing of them"


@pytest.mark.parametrize("block", [1, 3, 7, 1 << 16])
def test_an_array_is_read_by_pieces(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BLOCK", block)
    found = [{"a": 'é\U0001f600\\"]', "n": 12345}, 12, [1, [2]], "x", None, {"b": -1.5e3}]
    path = tmp_path / "a.json"
    for indent in (None, 1):
        path.write_text(
            "\ufeff \n" + json.dumps(found, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        assert [row() for _, row in table.records(path)] == found
    for bad, said in (
        ("[1, 2", "is no JSON array"), ("[1 2]", "expecting ','"), ("[1] x", "more after"),
        ("[1,]", "is no JSON array"),
    ):  # fmt: skip
        path.write_text(bad)
        with pytest.raises(DataError, match=said):
            list(table.records(path))
    path.write_bytes(b'["ok",\n"\xff"]')
    with pytest.raises(DataError, match="byte 8, on line 2"):
        list(table.records(path))


@pytest.mark.wide
def test_an_array_larger_than_a_block_is_not_held(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write("[")
        for i in range(20_000):
            file.write(("," if i else "") + json.dumps({"text": "x" * 400, "n": i}))
        file.write("]")
    tracemalloc.start()
    n = sum(row()["n"] >= 0 for _, row in table.records(path))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 20_000 and most < 2 << 20 < path.stat().st_size


@pytest.mark.wide
def test_arrow_that_is_none(tmp_path: Path) -> None:
    pyarrow = nano.require("pyarrow")
    from pyarrow import ipc

    out = io.BytesIO()
    found = pyarrow.Table.from_pylist([{"a": i, "b": {"c": None, "d": "x"}} for i in range(3000)])
    with ipc.new_stream(out, found.schema) as writer:
        writer.write_table(found)
    path = tmp_path / "a.arrow"
    path.write_bytes(out.getvalue())
    read = [row() for _, row in table.records(path)]
    assert read == [{"a": i, "b": {"d": "x"}} for i in range(3000)]
    for bad in (out.getvalue()[:-2000], b"ARROW1 no", b""):
        path.write_bytes(bad)
        with pytest.raises(DataError, match="cannot read .*a.arrow"):
            list(table.records(path))
    with pytest.raises(DataError, match="there is no file"):
        list(table.records(tmp_path / "none.arrow"))
