"""prep-data and extractor-data by the real command line: mixtures, filters, splits, pairs, cards."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import fake_github
import fake_hub
import nano
from e2e.shell import good, refused, tinygpt
from fake_github import FakeGitHub
from fake_hub import FakeHub
from fake_openai import FakeOpenAI, chat
from tinygpt.data import rows
from tinygpt.runs import _github
from unit.test_data_pieces import bfcl_folder, tau_folder


def write(path: Path, found: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def pairs(n: int, name: str) -> list[dict[str, str]]:
    return [{"prompt": f"{name} {i}?", "completion": f"{name} {i}."} for i in range(n)]


@pytest.fixture
def mix(tmp_path: Path) -> Path:
    """A file of settings over two sources."""
    write(tmp_path / "a.jsonl", [*pairs(60, "a"), {"odd": 1}, *pairs(5, "a")])
    write(tmp_path / "b.jsonl", [{"ask": f"b {i}?", "say": "b" * (i + 1)} for i in range(100)])
    path = tmp_path / "mix.toml"
    path.write_text(f"""
out = "{tmp_path}/mix.jsonl"
held_out = 0.2
[[sources]]
path = "{tmp_path}/a.jsonl"
weight = 2
licence = "MIT"
[[sources]]
path = "{tmp_path}/b.jsonl"
weight = 1
map = ["prompt=ask", "completion=say"]
[[stages]]
name = "exact"
[[stages]]
name = "length"
max_chars = 60
""")
    return path


def test_a_file_says_what_is_read_filtered_mixed_and_split(mix: Path, tmp_path: Path) -> None:
    facts = good("prep-data", "--config", mix, "--json").json
    assert [s["kept"] for s in facts["sources"]] == [60, 55] and [s["taken"] for s in facts["sources"]] == [
        60,
        30,
    ]
    told = {s["name"]: (s["n_in"], s["n_out"]) for s in facts["stages"]}
    assert told["exact"] == (165, 160) and told["length"] == (160, 115) and told["mix"] == (115, 90)
    train, held = read(tmp_path / "mix.jsonl"), read(tmp_path / "mix.held_out.jsonl")
    assert len(train) + len(held) == 90 == facts["rows"] + facts["held_out"] and 8 < len(held) < 30
    both = [row["instruction"] for row in (*train, *held)]
    assert len(set(both)) == 90 and sum(text.startswith("a ") for text in both) == 60
    assert both != sorted(both), "shuffled"
    assert rows.read(tmp_path / "mix.jsonl", rows.to_messages, strict=True)[1].n_bad == 0
    card = json.loads((tmp_path / "mix.card.json").read_text())
    assert card["licences"] == ["MIT", "unknown"] and [s["n_rows"] for s in card["sources"]] == [65, 100]
    assert card["stages"][0]["dropped"] == {"no sft shape has the columns: odd": 1}
    other = json.loads((tmp_path / "mix.held_out.card.json").read_text())
    for told, found in ((card, train), (other, held)):
        assert told["stages"][-1]["n_in"] == 90 and told["stages"][-1]["n_out"] == len(found)
        assert all(s["n_in"] == s["n_out"] + sum(s["dropped"].values()) for s in told["stages"])
    assert [card["file"]["name"], other["file"]["name"]] == ["mix.jsonl", "mix.held_out.jsonl"]
    before = {p.name: p.read_bytes() for p in tmp_path.glob("mix.*")}
    good("prep-data", "--config", mix, "--force")
    assert before == {p.name: p.read_bytes() for p in tmp_path.glob("mix.*")}, "the same each time"
    good("prep-data", "--config", mix, "--force", "--seed", 1)
    assert read(tmp_path / "mix.jsonl") != train
    shown = good("prep-data", "--config", mix, "--dry-run").out
    assert re.search(r"exact +165 +160 +5 a duplicate", shown), shown


def test_flags_go_above_the_file(mix: Path, tmp_path: Path) -> None:
    line = (
        "prep-data",
        "--config",
        mix,
        "--out",
        tmp_path / "few.jsonl",
        "--limit",
        9,
        "--held-out",
        0,
        "--no-shuffle",
    )
    facts = good(*line, "--json").json
    assert [s["taken"] for s in facts["sources"]] == [6, 3] and len(read(tmp_path / "few.jsonl")) == 9
    assert not (tmp_path / "few.held_out.jsonl").exists() and not (tmp_path / "mix.jsonl").exists()
    names = [row["instruction"][0] for row in read(tmp_path / "few.jsonl")]
    assert names == ["a"] * 6 + ["b"] * 3, "unshuffled, in the order of the sources"
    good("prep-data", "--config", mix, "--dry-run", "--format", "sft")
    assert not (tmp_path / "mix.jsonl").exists()
    refused(tinygpt(*line), "few.jsonl exists", hint="--force")


def test_bfcl_tau_bench_and_exact_duplicates_by_flags(tmp_path: Path) -> None:
    line = ("--bfcl", bfcl_folder(tmp_path / "data"), "--tau-bench", tau_folder(tmp_path / "tau"))
    out = tmp_path / "calls.jsonl"
    facts = good("prep-data", *line, "--dedup", "--out", out, "--json").json
    assert facts["rows"] == 6 and facts["format"] == "sft"
    used = rows.read(out, rows.to_messages, strict=True)[0]
    assert all(c.messages[-1]["tool_calls"] for c in used)
    card = json.loads((tmp_path / "calls.card.json").read_text())
    assert card["licences"] == ["Apache-2.0", "MIT"]
    assert "is made for evaluation" in tinygpt("prep-data", *line, "--dry-run").err


def test_sources_of_the_hub_and_of_github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nano.require("huggingface_hub")
    monkeypatch.setattr(_github, "PAUSE", lambda _: None)
    with fake_hub.serving(FakeHub()) as hub, fake_github.serving(FakeGitHub()) as api:
        hub.add("datasets/org/data", {
            "README.md": b"---\nlicense: mit\n---\n",
            "train.jsonl": "".join(json.dumps(r) + "\n" for r in pairs(20, "h")).encode(),
        })  # fmt: skip
        fake_hub.point_at(hub, tmp_path / "cache", monkeypatch)
        api.repository("own/repo", None)
        licence = "BSD-3-Clause"  # GitHub finds none
        made = {
            "sources": [
                {"dataset": "hf://datasets/org/data"},
                {"github": "own/repo", "kind": "reviews", "api_url": api.endpoint, "licence": licence},
            ]
        }
        (tmp_path / "mix.json").write_text(json.dumps(made))
        line = ("prep-data", "--config", tmp_path / "mix.json", "--out", tmp_path / "mix.jsonl")
        api.faults = {"/repos/own/repo/pulls/comments": [(403, {}, {"message": "no"})]}
        refused(tinygpt(*line, "--quiet"), "GitHub refuses remarks")
        assert not (tmp_path / "mix.jsonl").exists()
        facts = good(*line, "--resume", "--json").json
        assert facts["rows"] == 24
        card = json.loads((tmp_path / "mix.card.json").read_text())
        assert card["licences"] == ["BSD-3-Clause", "mit"]
        assert card["sources"][0]["revision"] == fake_hub.commit_of(hub.repos["datasets/org/data"]["main"])
    assert not list(tmp_path.glob(".*part*"))


def test_settings_that_cannot_be_meant(mix: Path, tmp_path: Path) -> None:
    def said(text: str, *patterns: str, hint: str = "") -> None:
        (tmp_path / "bad.toml").write_text(text)
        line = ("prep-data", "--config", tmp_path / "bad.toml", "--dry-run", "--quiet")
        refused(tinygpt(*line), *patterns, hint=hint)

    source = f'[[sources]]\npath = "{tmp_path}/a.jsonl"\n'
    said("seed = 1", "no source is named")
    said(source + 'dataset = "a/b"', "a source names one of path, dataset.*; one names path and dataset")
    said(source + "wieght = 2", "unknown config key .*wieght.*'weight'")
    said(source + 'split = "train"', "'split' means nothing for a source of path", hint="for dataset: leave")
    said('[[sources]]\ngithub = "a/b"\nmap = ["prompt=q"]', "'map' means nothing", hint="path and dataset")
    said('[[sources]]\ndataset = "a/b"\nstate = "all"', "'state' means nothing for a source of dataset")
    said(source + source + "weight = 2", "some sources have a weight and some have none")
    said(source + '[[stages]]\nname = "dedpue"', "unknown stage 'dedpue'")
    said(source + '[[stages]]\nname = "length"\nmax = 2', "unknown config key 'stages\\[0\\].max'")
    said(source + '[[stages]]\nname = "length"\nmax_chars = 1', "no row is left", hint="loosen")
    said('[[sources]]\npath = "/nowhere/x.jsonl"', "there are no rows at /nowhere/x.jsonl")
    write(tmp_path / "t.jsonl", [{"text": "x"}])
    said(source + f'[[sources]]\npath = "{tmp_path}/t.jsonl"', "are of several formats", hint="--format")
    refused(tinygpt("prep-data", "--config", mix, "--held-out", 1), "--held-out must be")
    refused(tinygpt("prep-data", "--config", mix, "--kinds", "reviews"), "--kinds means nothing without --g")
    refused(tinygpt("prep-data", "--config", mix, "--resume"), "--resume means nothing without a source of G")


def test_what_was_made_before_is_not_read_again(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", pairs(30, "a"))
    (tmp_path / "mix.toml").write_text(f'[[sources]]\npath = "{tmp_path}/*.jsonl"\n')
    line = ("prep-data", "--config", tmp_path / "mix.toml", "--out", tmp_path / "mix.jsonl", "--quiet")
    good(*line, "--held-out", 0.5)
    refused(tinygpt(*line, "--force"), "--out .*mix.jsonl is one of the files that are read")
    refused(tinygpt(*line[:4], tmp_path / "a.jsonl", "--force", "--quiet"), "no card of tinygpt's beside it")
    refused(tinygpt(*line[:4], tmp_path / "x.json", "--quiet"), "JSON lines")


def test_a_folder_is_read_without_its_cards(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "more" / ".cache").mkdir(parents=True)
    write(folder / "a.jsonl", pairs(3, "a"))
    write(folder / "more" / "b.ndjson", pairs(4, "b"))
    write(folder / "more" / ".cache" / "c.jsonl", pairs(5, "c"))
    (folder / "a.card.json").write_text("{}")
    (folder / "dataset_infos.json").write_text("{}")
    (tmp_path / "mix.toml").write_text(f'[[sources]]\npath = "{folder}"\n')
    facts = good("prep-data", "--config", tmp_path / "mix.toml", "--dry-run", "--json").json
    assert facts["rows"] == 7


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    found = [
        {"type": "function", "function": {"name": n, "description": f"{n} a thing"}} for n in ("buy", "sell")
    ]
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(found, indent=1))
    return path


def talks(path: Path, n: int) -> Path:
    def row(i: int) -> dict[str, Any]:
        name = ("look", "find", "rare")[i % 2 if i else 2]
        call = {"function": {"name": name, "arguments": {}}}
        said = {"role": "assistant", "content": "", "tool_calls": [call]}
        return {"messages": [{"role": "user", "content": f"Please {name} {i}"}, said], "tools": [call]}

    both = [{"messages": row(2)["messages"]} | {"messages": [row(2)["messages"][0], row(1)["messages"][1]]}]
    return write(path, [*(row(i) for i in range(n)), row(4), *both, {"text": "no talk"}])


def test_pairs_of_requests_and_tools(tmp_path: Path) -> None:
    out, data = tmp_path / "pairs.jsonl", talks(tmp_path / "talks.jsonl", 60)
    facts = good("extractor-data", "--data", data, "--out", out, "--held-out", 0.25, "--json").json
    assert facts["tools"] == {"find": 30, "look": 28} and facts["pairs"] == 58
    [_, choose] = facts["stages"]
    assert choose["dropped"] == {
        "a duplicate": 1, "a tool with fewer than N requests": 1, "the same request with several tools": 2,
    }  # fmt: skip
    train, held = read(out), read(tmp_path / "pairs.held_out.jsonl")
    assert len(train) + len(held) == 58 and 5 < len(held) < 26 and {*train[0]} == {"query", "tool"}
    assert not {r["query"] for r in train} & {r["query"] for r in held}
    more = talks(tmp_path / "talks.jsonl", 90)
    good("extractor-data", "--data", more, "--out", out, "--held-out", 0.25, "--force")
    after = {r["query"] for r in read(tmp_path / "pairs.held_out.jsonl")}
    assert {r["query"] for r in held} <= after, "more data move no request to the other side"
    card = json.loads((tmp_path / "pairs.card.json").read_text())
    assert card["file"]["name"] == "pairs.jsonl" and (tmp_path / "pairs.held_out.card.md").is_file()
    assert card["sources"][0]["name"] == "talks.jsonl" and card["settings"]["min_examples"] == 5
    assert card["file"]["name"] == "pairs.jsonl" and card["stages"][-1]["n_out"] == len(read(out))
    held_out = tmp_path / "pairs.held_out.jsonl"
    write(tmp_path / "answers.jsonl", [r | {"predicted_tool": r["tool"]} for r in read(held_out)])
    scored = good("eval-router", "--predictions", tmp_path / "answers.jsonl", "--json").json
    assert {row["metric"]: row["score"] for row in scored}["accuracy"] == 1.0, (
        "eval-router reads what is held out"
    )


def test_pairs_of_benchmarks_and_schemas(tmp_path: Path, tools: Path) -> None:
    line = (
        "--bfcl",
        bfcl_folder(tmp_path / "data"),
        "--tau-bench",
        tau_folder(tmp_path / "tau"),
        "--tools",
        tools,
    )
    facts = good("extractor-data", *line, "--min-examples", 1, "--dry-run", "--json").json
    assert facts["tools"] == {"buy": 1, "f.g": 2, "none": 1, "pay": 1, "return_order": 1, "sell": 1}
    assert not list(tmp_path.glob("pairs*"))
    refused(tinygpt("extractor-data", *line, "--dry-run", "--quiet"), "no tool has 5 requests")
    refused(tinygpt("extractor-data", "--out", tmp_path / "x.jsonl"), "nothing is read")
    torn = write(tmp_path / "torn.json", [{}, {}])
    refused(tinygpt("extractor-data", "--tools", torn, "--dry-run"), "torn.json is not JSON")
    refused(tinygpt("extractor-data", "--tools", tools, "--synth", "--dry-run"), "--synth needs a model")
    refused(
        tinygpt("extractor-data", "--bfcl", tmp_path, "--synth", "--dry-run"), "--synth means nothing without"
    )
    for more in (("--synth-per-tool", 3), ("--resume",)):
        idle = tinygpt("extractor-data", *line, "--dry-run", *more)
        refused(idle, f"{more[0]} means nothing without --synth")


def test_a_model_writes_requests_and_is_not_asked_twice(tmp_path: Path, tools: Path) -> None:
    state = {"n": 0, "fails": False}

    def answer(path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/models"):
            return {"data": [{"id": "teacher"}]}
        text = body["messages"][0]["content"]
        name = "buy" if '"buy"' in text else "sell"
        if state["fails"] and name == "sell":
            return 400, {}, {"error": {"message": "no"}}
        state["n"] += 1
        n = state["n"]
        lines = [f"{i}. I want number {n} {i} of {name[::-1]}" for i in range(1, 6)]
        return chat("\n".join([*lines, f"- please {name} it", "", lines[0], "x" * 500]))

    out = tmp_path / "pairs.jsonl"
    with FakeOpenAI(answer).serving() as teacher:
        line = (
            "extractor-data",
            "--tools",
            tools,
            "--synth",
            "--synth-url",
            teacher.url,
            "--synth-per-tool",
            12,
        )
        line = (*line, "--out", out, "--held-out", 0, "--json")
        state["fails"] = True
        refused(tinygpt(*line, "--quiet"), "no requests for 'sell' were written", hint="--resume")
        assert not out.exists()
        state["fails"], asked = False, state["n"]
        done = good(*line, "--resume")
        assert done.json["tools"] == {"buy": 13, "sell": 13}, "twelve, and the description"
        assert state["n"] - asked <= 4, "what was written for the first tool is not asked for again"
    found = [row["query"] for row in read(out)]
    assert len(set(found)) == 26 and not [q for q in found if q.startswith(("1.", "-")) or len(q) > 400]
    assert not [q for q in found if "please buy" in q], "a request that names its tool gives it away"
    card = json.loads((tmp_path / "pairs.card.json").read_text())
    assert [s["name"] for s in card["sources"]] == ["tools.json", "written by teacher"]
    assert not list(tmp_path.glob(".*part*"))


def test_private_data_and_secrets_are_taken_out_on_the_way(tmp_path: Path) -> None:
    rows.write(tmp_path / "in.jsonl", [
        {"prompt": "who?", "completion": "write to jane.doe@example.com"},
        {"prompt": "key?", "completion": "AKIAIOSFODNN7EXAMPLQ is the key"},
        {"prompt": "sum?", "completion": "3"},
    ])  # fmt: skip
    settings = tmp_path / "mix.toml"
    settings.write_text(
        f'out = "{tmp_path}/out.jsonl"\n[[sources]]\npath = "{tmp_path}/in.jsonl"\n'
        '[[stages]]\nname = "pii"\n[[stages]]\nname = "secrets"\ndrop = true\n'
    )
    done = tinygpt("prep-data", "--config", settings, "--json")
    assert done.code == 0, done.err
    text = (tmp_path / "out.jsonl").read_text()
    assert "jane.doe" not in text and "[EMAIL]" in text and "AKIA" not in text
    assert done.json["rows"] == 2
