"""Data sets of a fake hub by the real command line: every download is right or refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fake_hub
import nano
from e2e.shell import good, process, refused, tinygpt
from fake_hub import FakeHub
from tinygpt.core import files
from tinygpt.data import rows
from tinygpt.data.source._preferred import preferred

nano.require("huggingface_hub")
pyarrow = nano.require("pyarrow")
REPO = "datasets/org/data"
NAME = "hf://datasets/org/data"
ROWS = [{"question": f"{i} + 1?", "answer": f"{i + 1}, of course{'.' * 40}"} for i in range(60)]
WANTED = [{"instruction": row["question"], "response": row["answer"]} for row in ROWS]
CARD = b"---\nlicense: cc-by-4.0\ntags: [a]\n---\n# Data\n"


def lines(found: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in found).encode()


def arrow(found: list[Any], kind: str) -> bytes:
    from pyarrow import ipc, parquet

    table, out = pyarrow.Table.from_pylist(found), io.BytesIO()
    if kind == "parquet":
        parquet.write_table(table, out)
    else:
        with (ipc.new_stream if kind == "stream" else ipc.new_file)(out, table.schema) as writer:
            writer.write_table(table)
    return out.getvalue()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub.serving(FakeHub()) as found:
        found.add(REPO, {"README.md": CARD, "data/train.jsonl": lines(ROWS)})
        fake_hub.point_at(found, tmp_path / "cache", monkeypatch)
        yield found


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def fetch(out: Path, *more: object) -> Any:
    return good("download-dataset", NAME, "--out", out, "--json", *more).json


def test_every_kind_of_file_gives_the_same_rows(hub: FakeHub, tmp_path: Path) -> None:
    header = "question,answer\n" + "".join(f'"{r["question"]}","{r["answer"]}"\n' for r in ROWS)
    kinds = {
        "a.jsonl": lines(ROWS), "a.json": json.dumps(ROWS, indent=1).encode(), "a.csv": header.encode(),
        "a.jsonl.gz": gzip.compress(lines(ROWS), mtime=0), "a.parquet": arrow(ROWS, "parquet"),
        "a.arrow": arrow(ROWS, "stream"), "b.arrow": arrow(ROWS, "file"),
    }  # fmt: skip
    for i, (name, content) in enumerate(kinds.items()):
        hub.add(REPO, {"README.md": CARD, name: content})
        facts = fetch(tmp_path / f"{i}.jsonl")
        assert read(tmp_path / f"{i}.jsonl") == WANTED, name
        assert (facts["format"], facts["confidence"], facts["rows"]) == ("sft", 0.9, 60)
    used, report = rows.read(tmp_path / "0.jsonl", rows.to_messages)
    assert len(used) == 60 and not report.n_bad


def test_the_card_says_where_the_rows_are_from(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(REPO, {"README.md": CARD, "data/train.jsonl": lines([*ROWS, {"odd": 1}, "no row"])})
    facts = fetch(tmp_path / "rows.jsonl")
    commit = fake_hub.commit_of(hub.repos[REPO]["main"])
    assert facts["licence"] == "cc-by-4.0" and facts["commit"] == commit and facts["left_out"] == 2
    card = json.loads((tmp_path / "rows.card.json").read_text())
    [source] = card["sources"]
    assert (source["name"], source["revision"], source["n_rows"]) == (NAME, commit, 60)
    [origin] = source["origins"]
    content = hub.repos[REPO]["main"]["data/train.jsonl"]
    assert origin["name"] == "data/train.jsonl" and origin["sha256"] == hashlib.sha256(content).hexdigest()
    [stage] = card["stages"]
    assert (stage["n_in"], stage["n_out"]) == (62, 60) and sum(stage["dropped"].values()) == 2
    assert (
        card["licences"] == ["cc-by-4.0"] and "license: cc-by-4.0" in (tmp_path / "rows.card.md").read_text()
    )
    before = (tmp_path / "rows.jsonl").read_bytes(), (tmp_path / "rows.card.json").read_bytes()
    fetch(tmp_path / "rows.jsonl", "--force")
    assert before == ((tmp_path / "rows.jsonl").read_bytes(), (tmp_path / "rows.card.json").read_bytes())
    shown = good("download-dataset", "org/data", "--inspect").out
    assert "cc-by-4.0" in shown and "instruction=question" in shown and '"0 + 1?"' in shown


def test_configurations_splits_and_numbers_of_files(hub: FakeHub, tmp_path: Path) -> None:
    front = b"""---
configs:
- config_name: easy
  default: true
  data_files:
  - split: train
    path: easy/tr-*
  - split: test
    path: easy/te-*
- config_name: hard
  data_files: hard/*.jsonl
---
"""
    parts = {f"easy/tr-{i}.jsonl": lines(ROWS[20 * i : 20 * i + 20]) for i in range(2)}
    rest = {"easy/te-0.jsonl": lines(ROWS[40:50]), "hard/x.jsonl": lines(ROWS[50:])}
    hub.add(REPO, {"README.md": front, **parts, **rest})
    for more, wanted in (
        ((), WANTED[:40]), (("--max-files", 1), WANTED[:20]), (("--split", "test"), WANTED[40:50]),
        (("--config-name", "hard"), WANTED[50:]), (("--limit", 7), WANTED[:7]),
    ):  # fmt: skip
        fetch(tmp_path / "rows.jsonl", "--force", *more)
        assert read(tmp_path / "rows.jsonl") == wanted, more
    facts = good("download-dataset", NAME, "--dry-run", "--json").json
    assert facts["names"] == list(parts) and not (tmp_path / "none.jsonl").exists()
    refused(tinygpt("download-dataset", NAME, "--dry-run", "--split", "tset"), "no split 'tset'. .*'test'")
    refused(
        tinygpt("download-dataset", NAME, "--dry-run", "--config-name", "eas"), "no configuration .*'easy'"
    )


def test_preferences_conversations_texts_and_renamed_columns(hub: FakeHub, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    calls = {"query": "do", "tools": '[{"name": "f", "parameters": {"x": {"type": "int"}}}]'}
    calls["answers"] = '[{"name": "f", "arguments": {"x": 1}}]'
    cases: list[tuple[dict[str, Any], str, float, tuple[str, ...]]] = [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "dpo", 0.95, ()),
        ({"chosen": talk, "rejected": [talk[0], {"role": "assistant", "content": "c"}]}, "dpo", 0.7, ()),
        ({"messages": talk, "id": 3}, "sft", 0.75, ()), (calls, "sft", 0.9, ()),
        ({"body": "text", "n": 1}, "plain", 0.85, ()), ({"story": "text"}, "plain", 0.55, ()),
        ({"ask": "a", "say": "b"}, "sft", 0.9, ("--map", "ask:instruction,response=say")),
    ]  # fmt: skip
    for row, format, confidence, more in cases:
        hub.add(REPO, {"README.md": CARD, "train.jsonl": lines([row] * 3)})
        facts = fetch(tmp_path / "rows.jsonl", "--force", *more)
        assert (facts["format"], facts["confidence"]) == (format, confidence), row
        check = {"sft": rows.to_messages, "dpo": preferred, "plain": rows.to_text}[format]
        assert len([check(found) for found in read(tmp_path / "rows.jsonl")]) == 3
    made = rows.to_messages({"instruction": "x", "response": "y"})
    assert made.messages[0]["content"] == "x"
    refused(tinygpt("download-dataset", NAME, "--inspect", "--format", "dpo"), "no dpo shape has the columns")
    refused(tinygpt("download-dataset", NAME, "--inspect", "--map", "respnse=say"), "no shape has a column")


def test_cuts_are_gone_on_with_and_shards_come_side_by_side(hub: FakeHub, tmp_path: Path) -> None:
    shards = {f"data/train-{i}.jsonl": lines(ROWS[10 * i : 10 * i + 10] * 9) for i in range(6)}
    hub.add(REPO, {"README.md": CARD, **shards})
    hub.cuts = {"data/train-0.jsonl": [1000, 500], "data/train-3.jsonl": [0, 4000]}
    hub.statuses = {"data/train-5.jsonl": [(503, {}), (429, {"Retry-After": "0"})]}
    fetch(tmp_path / "rows.jsonl")
    wanted = [row for i in range(6) for row in WANTED[10 * i : 10 * i + 10] * 9]
    assert read(tmp_path / "rows.jsonl") == wanted
    ranges = [r[2] for r in hub.asked("train-0.jsonl") if "resolve" in r[1]]
    assert ranges == ["", "bytes=1000-", "bytes=1500-"]
    before = len(hub.asked("resolve"))
    fetch(tmp_path / "rows.jsonl", "--force")
    assert len(hub.asked("resolve")) == before, "what is in the cache is not asked for again"


def test_a_killed_fetch_is_resumed_and_writes_nothing_before(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts = {"data/train.jsonl": [3000, *[0] * 9]}
    done = tinygpt("download-dataset", NAME, "--out", tmp_path / "rows.jsonl")
    refused(done, "does not arrive|cannot be reached")
    assert not list(tmp_path.glob("rows*"))
    hub.cuts, hub.log = {}, []
    fetch(tmp_path / "rows.jsonl")
    assert read(tmp_path / "rows.jsonl") == WANTED
    assert [r[2] for r in hub.asked("train.jsonl")] == ["bytes=3000-"]


def test_what_is_not_what_the_hub_lists_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    content = hub.repos[REPO]["main"]["data/train.jsonl"]
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
    for lie in (content[:-2] + b"x\n", content + b"{}\n", pointer, b""):
        hub.lies = {"data/train.jsonl": lie}
        refused(
            tinygpt("download-dataset", NAME, "--out", tmp_path / "rows.jsonl"), "train.jsonl of hf://datas"
        )
        assert not list(tmp_path.glob("rows*"))
    hub.lies = {}
    hub.add(REPO, {"README.md": CARD, "data/train.jsonl": pointer})  # it was put there without LFS
    refused(tinygpt("download-dataset", NAME, "--out", tmp_path / "rows.jsonl"), "is a pointer to the data")
    hub.add(REPO, {"README.md": CARD, "data/train.jsonl": content})
    fetch(tmp_path / "rows.jsonl")
    assert read(tmp_path / "rows.jsonl") == WANTED


def test_a_branch_that_moves_in_between_gives_one_commit(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are asked for by the commit that was listed, so the ETags of another one are never mixed in."""
    from tinygpt.runs import _hub_data

    first, look = fake_hub.commit_of(hub.repos[REPO]["main"]), _hub_data.look

    def moved(*given: Any) -> Any:
        found = look(*given)
        hub.add(REPO, {"README.md": CARD, "data/train.jsonl": lines(ROWS[:5])})
        return found

    monkeypatch.setattr(_hub_data, "look", moved)
    assert fetch(tmp_path / "rows.jsonl")["commit"] == first and len(read(tmp_path / "rows.jsonl")) == 60
    monkeypatch.setattr(_hub_data, "look", look)
    fetch(tmp_path / "rows.jsonl", "--force")
    assert len(read(tmp_path / "rows.jsonl")) == 5
    fetch(tmp_path / "rows.jsonl", "--force", "--revision", first)
    assert len(read(tmp_path / "rows.jsonl")) == 60


def test_the_token_goes_to_the_hub_alone(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hf_verysecrettoken"
    monkeypatch.setenv("HF_TOKEN", secret)
    hub.token = secret
    other = FakeHub(repos=hub.repos, commits=hub.commits)
    with fake_hub.serving(other):
        hub.cdn = other.endpoint.replace("127.0.0.1", "localhost")
        done = good("download-dataset", NAME, "--out", tmp_path / "rows.jsonl")
    assert read(tmp_path / "rows.jsonl") == WANTED
    assert other.asked("train.jsonl") and not any(request[3] for request in other.log)
    assert all(request[3] == f"Bearer {secret}" for request in hub.log)
    kept = "".join(p.read_text(errors="replace") for p in tmp_path.rglob("*") if p.is_file())
    kept += "".join(p.read_text() for p in files.cache_dir("hub").rglob("*.json"))
    assert secret not in done.out + done.err + kept


def test_every_refusal_is_one_line(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ("download-dataset", NAME, "--out", tmp_path / "rows.jsonl")
    page = f"{hub.endpoint}/datasets/org/data"
    hub.gated = {REPO}
    refused(tinygpt(*line), "is gated", hint=f"visit {page}")
    assert good("download-dataset", NAME, "--dry-run", "--json").json["gated"] == "auto"
    monkeypatch.setenv("HF_TOKEN", "hf_someone")
    refused(tinygpt(*line), "is gated", hint=f"visit {page}")  # known, but did not agree
    hub.let_in = {"Bearer hf_someone"}
    assert len(good(*line).out) > 1
    hub.gated = set()
    hub.token = "another"
    refused(tinygpt(*line, "--force"), "does not accept the token")
    hub.token = ""
    refused(tinygpt("download-dataset", "org/none", "--dry-run"), "the hub has no dataset org/none")
    refused(tinygpt("download-dataset", f"{NAME}@v2", "--dry-run"), "has no revision 'v2'")
    refused(tinygpt("download-dataset", "hf://org/data", "--dry-run"), "is not the name of a data set")
    hub.add(REPO, {"load.py": b"print()"})
    refused(tinygpt(*line, "--force"), "only a program", hint="refs/convert/parquet")
    for status, said in ((403, "refuses"), (429, "too many requests"), (500, "out of order")):
        hub.status = status
        refused(tinygpt("download-dataset", "org/new", "--dry-run"), said)
    hub.status = 0
    hub.add("datasets/org/lost", {"README.md": b"---\nlicense: mit\n---\n", "train.jsonl": b"{}"})
    hub.statuses = {"train.jsonl": [(404, {})]}
    refused(
        tinygpt("download-dataset", "org/lost", "--inspect"), "lists train.jsonl of .*, but does not have"
    )
    refused(tinygpt("download-dataset", NAME), "--out is needed")
    refused(tinygpt(*line), "rows.jsonl exists", hint="--force")
    (tmp_path / "mine.jsonl").write_text("{}\n")
    refused(tinygpt(*line[:3], tmp_path / "mine.jsonl", "--force"), "no card of tinygpt's")


def test_without_a_network_what_is_here_is_used(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(REPO, {"README.md": CARD, "a-train.jsonl": lines(ROWS[:30]), "b-train.jsonl": lines(ROWS[30:])})
    there = fake_hub.environment(hub, tmp_path / "cache")
    fetch(tmp_path / "one.jsonl", "--max-files", 1)
    away = there | {"HF_HUB_OFFLINE": "1"}
    line = ("download-dataset", NAME, "--out", tmp_path / "rows.jsonl")
    refused(process(*line, **away), "b-train.jsonl of .* is not in the cache")
    assert process(*line, "--max-files", 1, **away).code == 0
    assert read(tmp_path / "rows.jsonl") == WANTED[:30]
    gone = process(
        "download-dataset", "org/new", "--dry-run", **there | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    )
    refused(gone, "is not in the cache, and the hub at .* cannot be reached")


def test_a_data_set_is_inspected_here_and_on_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    front = (
        b"---\nlicense: mit\ndataset_info:\n  features:\n  - name: question\n    dtype: string\n"
        b"  - name: tags\n    sequence: string\n---\n"
    )
    content = {"README.md": front, "d/train-0.jsonl": lines(ROWS), "d/test.jsonl": lines(ROWS[:2])}
    commit = hub.add(REPO, content)
    facts = good("hf-inspect", NAME, "--json").json
    assert facts["pinned"] == f"{NAME}@{commit}" and facts["licence"] == "mit" and facts["files"] == 3
    assert facts["configs"] == {"default": {"train": 1, "test": 1}} and facts["rows"] == ROWS[:3]
    assert facts["features"] == {"question": "string", "tags": "sequence of string"}
    assert (facts["format"], facts["shape"]) == ("sft", "{instruction=question, response=answer}")
    for name, found in content.items():
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_bytes(found)
    local = good("hf-inspect", tmp_path / "here", "--json").json
    same = ("licence", "configs", "rows", "features", "format", "files", "bytes", "kinds")
    assert {key: local[key] for key in same} == {key: facts[key] for key in same}
    assert good("hf-inspect", tmp_path / "here/d/train-0.jsonl", "--json").json["rows"] == ROWS[:3]
    assert "mit" in good("hf-inspect", NAME).out
    hub.gated = {REPO}
    hub.add(REPO, content | {"d/train-0.jsonl": lines(ROWS[::-1])})
    facts = good("hf-inspect", NAME, "--json").json
    assert facts["gated"] == "auto" and not facts["rows"] and "is gated" in facts["no_rows"]
    refused(tinygpt("hf-inspect", tmp_path / "nothing"), "nothing")
