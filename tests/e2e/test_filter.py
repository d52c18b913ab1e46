"""`filter` end to end: what it takes out, leaves out, writes beside and refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.shell import good, refused, snapshot, tinygpt
from tinygpt.data import language

KEY = "aB3dE5gH7jK9mN1pQ3sT5vW7"
ROWS: list[dict[str, Any]] = [
    {"id": "jo@mail.org", "messages": [
        {"role": "user", "content": "Mail jo@mail.org"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"function": {"name": "pay", "arguments": json.dumps({"card": "4111 1111 1111 1111"})}}]}]},
    {"prompt": f'api_key = "{KEY}"', "completion": "Call +1 415-555-0132.", "score": 0.9},
    {"text": "Das Wetter ist heute schön, und morgen regnet es.", "score": 0.1},
    {"text": "ok"},
]  # fmt: skip


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def given(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "rows.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "no json\n", encoding="utf-8")
    return path


def test_private_data_and_secrets_go_whatever_the_shape(given: Path, tmp_path: Path) -> None:
    out, side = tmp_path / "out.jsonl", tmp_path / "side.jsonl"
    done = good("filter", given, "--out", out, "--sidecar", side, "--json")
    found = lines(out)
    assert found[0]["id"] == "[EMAIL]" and found[0]["messages"][0]["content"] == "Mail [EMAIL]"
    call = found[0]["messages"][1]["tool_calls"][0]["function"]
    assert json.loads(call["arguments"]) == {"card": "[CREDIT_CARD]"}
    assert found[1] == {"prompt": 'api_key = "[SECRET]"', "completion": "Call [PHONE].", "score": 0.9}
    assert found[2:] == ROWS[2:]
    assert done.json["found"] == {"credit_card": 1, "email": 2, "phone": 1, "secret:assigned": 1}
    assert (done.json["read"], done.json["kept"], done.json["changed"]) == (5, 4, 2)
    assert done.json["dropped"] == {"unreadable": 1} and "line 5: not JSON" in done.err
    told = {(line["row"], line.get("recogniser", line.get("reason"))): line for line in lines(side)}
    where = told[2, "secret:assigned"]
    assert ROWS[1]["prompt"][where["start"] : where["end"]] == KEY and where["done"] == "redacted"
    assert (5, "unreadable") in told and KEY not in side.read_text() and "4111" not in side.read_text()
    card = json.loads((tmp_path / "out.card.json").read_text())
    assert card["stages"][0]["dropped"] == {"unreadable": 1} and card["sources"][0]["n_rows"] == 5
    assert KEY not in json.dumps(card)


def test_what_is_left_out_is_told_with_its_reason(given: Path, tmp_path: Path) -> None:
    out, side = tmp_path / "out.jsonl", tmp_path / "side.jsonl"
    files = ("--out", out, "--sidecar", side)
    strict = (
        "--drop-pii",
        "--min-chars",
        5,
        "--language",
        "en,fr",
        "--secrets",
        "drop",
        "--where",
        "score!=7",
    )
    refused(tinygpt("filter", "--in", given, *files, *strict, "--quiet"), "nothing is left")
    assert not out.exists() and not side.exists()
    only = ("--pii", "phone,email", "--drop-pii", "--min-chars", 5, "--secrets", "none")
    done = good("filter", given, *files, *only, "--json")
    assert done.json["dropped"] == {"private data": 2, "shorter than 5 letters": 1, "unreadable": 1}
    assert lines(out) == [ROWS[2]]
    assert [line["row"] for line in lines(side) if line.get("reason") == "private data"] == [1, 2]
    assert {line["done"] for line in lines(side) if "recogniser" in line} == {"dropped"}


def test_dry_run_writes_nothing_and_workers_change_nothing(given: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    counted = good("filter", given, "--dry-run", "--json").json
    assert snapshot(tmp_path) == before and counted["out"] is None
    one = good("filter", given, "--out", tmp_path / "a" / "x.jsonl", "--workers", 1, "--json").json
    two = good("filter", given, "--out", tmp_path / "b" / "x.jsonl", "--workers", 2, "--json").json
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert [one[k] for k in ("found", "kept")] == [two[k] for k in ("found", "kept")] == [counted["found"], 4]


def test_lines_of_text(tmp_path: Path) -> None:
    path, out = tmp_path / "notes.txt", tmp_path / "clean.txt"
    path.write_text("write to jo@mail.org\n\nfine\n", encoding="utf-8")
    assert "found: email" in good("filter", path, "--out", out).out
    assert out.read_text() == "write to [EMAIL]\nfine\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--pii", "emial"], "'email'"),
        (["--toxicity", "0.5"], "--toxicity-model"),
        (["--where", "a"], "no condition"),
        (["--toxicity", "0.5", "--toxicity-model", "heuristic"], "no classifier"),
        (["--language", "en,xx"], "language"),
        (["--toxicity", "2", "--toxicity-model", "x"], "at most 1"),
        (["--min-chars", "9", "--max-chars", "3"], "below"),
        (["--pii", "none", "--drop-pii"], "--drop-pii"),
        (["--secrets", "maybe"], "maybe"),
        (["--toxicity", "0.5", "--toxicity-model", "{at}"], "no tinygpt.json"),
        (["--in", "other"], "one file"),
        (["--sidecar", "{out}"], "--out"),
        (["--language-min", "0.9"], "--language"),
    ],
)
def test_refusals(words: list[str], why: str, given: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    filled = [word.format(at=tmp_path, out=out) for word in words]
    refused(tinygpt("filter", given, "--out", out, *filled), why)
    assert not out.exists()


def test_what_is_not_installed_is_named(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("phonenumbers", "py3langid.langid"):
        monkeypatch.setitem(sys.modules, package, None)
    language._model.cache_clear()
    out = ("--out", tmp_path / "out.jsonl")
    refused(tinygpt("filter", given, *out), "'phonenumbers'", hint="tinygpt[filter]")
    refused(tinygpt("filter", given, *out, "--pii", "ip", "--language", "en"), "py3langid", hint="[filter]")
    good("filter", given, *out, "--pii", "email,ip")


def test_files_are_not_replaced_unasked(given: Path, tmp_path: Path) -> None:
    refused(tinygpt("filter", given, "--out", given, "--force"), "is one of the files that are read")
    out = tmp_path / "out.jsonl"
    out.write_text("mine", encoding="utf-8")
    refused(tinygpt("filter", given, "--out", out), "exists", hint="--force")
    refused(tinygpt("filter", given, "--out", tmp_path / "x.parquet"), "plain text")
    refused(tinygpt("filter", given), "--out is missing")
    refused(tinygpt("filter", tmp_path / "no.jsonl", "--out", tmp_path / "y.jsonl"), "no file")
    assert out.read_text() == "mine"
    good("filter", given, "--out", out, "--force")
    assert lines(out)
