"""Rows of a fake GitHub by the real command line: every answer is right or refused; the token stays home."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fake_github
from e2e.shell import Done, good, refused, tinygpt
from fake_github import FakeGitHub
from tinygpt.core import files
from tinygpt.data import rows
from tinygpt.runs import _github

AT = "/repos/own/repo"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited."""
    found: list[float] = []
    monkeypatch.setattr(_github, "PAUSE", found.append)
    return found


@pytest.fixture
def api(waits: list[float]) -> Iterator[FakeGitHub]:
    with fake_github.serving(FakeGitHub()) as found:
        found.repository("own/repo")
        yield found


def ask(api: FakeGitHub, out: Path, *more: object, repo: str = "own/repo") -> Done:
    return tinygpt("fetch-github", repo, "--api-url", api.endpoint, "--out", out, "--json", *more)


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_issues_and_what_closed_them(api: FakeGitHub, tmp_path: Path) -> None:
    done = ask(api, tmp_path / "rows.jsonl")
    assert done.code == 0, done.err
    found = read(tmp_path / "rows.jsonl")
    assert [row["metadata"]["issue_number"] for row in found] == [1, 5]
    assert found[0]["instruction"] == "Issue 1\n\nIt breaks 1."
    assert found[0]["response"] == f"Fixes #1\n\n--- diff ---\n{fake_github.diff_of(1).rstrip()}"
    assert found[0]["metadata"] == {
        "repo": "own/repo", "kind": "issues-prs", "issue_number": 1, "pr_number": 101, "labels": ["bug"],
        "files_changed": ["f1.py"],
    }  # fmt: skip
    assert done.json["reasons"] == {
        "no merged pull request says that it closes the issue": 2, "the diff is too long": 1,
    }  # fmt: skip
    assert rows.read(tmp_path / "rows.jsonl", rows.to_messages)[1].n_bad == 0
    card = json.loads((tmp_path / "rows.card.json").read_text())
    assert card["sources"][0]["name"] == "github:own/repo" and card["licences"] == ["MIT"]
    assert len([r for r in api.log if r[0] == f"{AT}/issues"]) == 3, "pages are followed by their links"
    assert not [r for r in api.log if r[2]], "nobody gave a token"


def test_labels_states_days_and_limits_are_asked_for(api: FakeGitHub, tmp_path: Path) -> None:
    more = ("--label", "bug", "--state", "all", "--since", "2024-05-01", "--limit", 1)
    assert ask(api, tmp_path / "rows.jsonl", *more).json["rows"] == 1
    asked = next(r[1] for r in api.log if r[0] == f"{AT}/issues")
    assert asked["labels"] == "bug" and asked["state"] == "all" and asked["since"] == "2024-05-01T00:00:00Z"
    assert ask(api, tmp_path / "b.jsonl", "--max-diff-bytes", 50_000).json["rows"] == 3


def test_remarks_and_commits(api: FakeGitHub, tmp_path: Path) -> None:
    done = ask(api, tmp_path / "r.jsonl", "--kind", "reviews")
    assert [row["metadata"]["comment_id"] for row in read(tmp_path / "r.jsonl")] == [1, 3, 4, 5]
    assert read(tmp_path / "r.jsonl")[0]["response"] == "remark 1"
    assert done.json["reasons"] == {"an answer to another remark": 1}
    api.lists[f"{AT}/commits"] += ["odd", {"sha": None}]
    done = ask(api, tmp_path / "c.jsonl", "--kind", "commits")
    assert [row["response"] for row in read(tmp_path / "c.jsonl")] == [f"Change {n}" for n in (1, 2, 4, 5)]
    assert read(tmp_path / "c.jsonl")[0]["instruction"].startswith("diff --git a/f1.py")
    assert done.json["reasons"] == {"a merge": 1, "not as GitHub writes it": 2}
    refused(
        ask(api, tmp_path / "d.jsonl", "--kind", "commits", "--label", "bug"), "--label and --state choose"
    )


@pytest.mark.parametrize("status", [404, 410])
def test_an_issue_that_was_deleted_is_left_out(api: FakeGitHub, tmp_path: Path, status: int) -> None:
    whole = ask(api, tmp_path / "whole.jsonl").json
    api.faults = {f"{AT}/issues/1/timeline": [(status, {}, {"message": "This issue was deleted"})]}
    api.lists[f"{AT}/issues"].insert(0, {"number": "x", "state": "closed"})
    facts = ask(api, tmp_path / "rows.jsonl").json
    assert facts["rows"] == whole["rows"] - 1
    assert facts["reasons"]["GitHub no longer shows the issue"] == 1
    assert facts["reasons"]["not as GitHub writes it"] == 1


def test_several_repositories_and_what_is_known_of_their_licences(api: FakeGitHub, tmp_path: Path) -> None:
    api.repository("own/other", None)
    (tmp_path / "repos.txt").write_text(
        "# mine\nown/repo\nhttps://github.com/own/other.git  # too\n\nown/repo\n"
    )
    line = ("--multi-repo", tmp_path / "repos.txt", "--kind", "reviews", "--limit", 2)
    done = ask(api, tmp_path / "rows.jsonl", *line)
    assert done.json["repos"] == [
        {"repo": "own/repo", "licence": "MIT", "rows": 2},
        {"repo": "own/other", "licence": "unknown", "rows": 2},
    ]  # fmt: skip
    assert json.loads((tmp_path / "rows.card.json").read_text())["licences"] == ["MIT", "unknown"]
    dry = good("fetch-github", "own/repo", "--api-url", api.endpoint, "--dry-run", "--json").json
    assert dry["repos"] == [{"repo": "own/repo", "licence": "MIT", "first_page": 2, "pages": 3}]


def test_limits_are_waited_for_or_said(api: FakeGitHub, tmp_path: Path, waits: list[float]) -> None:
    soon = {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": str(int(time.time()) + 30)}
    secondary = {"message": "You have exceeded a secondary rate limit."}
    api.faults = {
        f"{AT}/issues": [(403, soon, b""), (429, {"Retry_After": "7"}, b"")],
        f"{AT}/pulls/101": [(403, {}, secondary), (403, {}, secondary)],
    }  # fmt: skip
    done = ask(api, tmp_path / "rows.jsonl")
    assert done.code == 0 and len(read(tmp_path / "rows.jsonl")) == 2
    assert 28 <= waits[0] <= 31.5 and waits[1:] == [7.0, 60.0, 120.0]
    waits.clear()
    api.faults = {f"{AT}/issues": [(403, soon | {"X_RateLimit_Reset": str(int(time.time()) + 3000)}, b"")]}
    done = ask(api, tmp_path / "later.jsonl")
    refused(done, "GitHub asks to wait 50 minutes more", hint="--resume")
    assert not waits and not (tmp_path / "later.jsonl").exists()
    api.faults = {f"{AT}/issues": [(429, {"Retry_After": "0"}, b"")] * 99}
    refused(ask(api, tmp_path / "later.jsonl", "--max-wait", 20, "--quiet"), "GitHub asks to wait")
    assert len(waits) == 20, "asking again at once, without end, is no way to wait"


def test_cuts_and_faults_are_asked_again(api: FakeGitHub, tmp_path: Path, waits: list[float]) -> None:
    api.faults = {f"{AT}/issues": [5, (502, {}, b"")], f"{AT}/pulls/101": [30], AT: [0]}
    assert ask(api, tmp_path / "rows.jsonl").code == 0
    assert read(tmp_path / "rows.jsonl")[0]["response"].endswith(fake_github.diff_of(1).rstrip())
    assert waits == [1.0, 1.0, 2.0, 1.0]
    api.faults = {f"{AT}/issues": [(500, {}, b"")] * 9}
    refused(ask(api, tmp_path / "no.jsonl"), "does not answer about issues of own/repo: status 500")
    api.faults = {f"{AT}/issues": [(200, {}, b"<html>")]}
    refused(ask(api, tmp_path / "no.jsonl"), "is no JSON")
    assert not (tmp_path / "no.jsonl").exists()


def test_an_interrupted_fetch_goes_on_without_asking_twice(api: FakeGitHub, tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    ask(api, whole)
    out, before = tmp_path / "rows.jsonl", len(api.asked("/pulls/"))
    api.faults = {f"{AT}/pulls/105": [(403, {}, {"message": "no"})]}
    refused(ask(api, out), "GitHub refuses pull request 105")
    assert not out.exists() and len(api.asked("/pulls/")) == before + 3
    api.log.clear()
    refused(ask(api, out), "an interrupted command left what it had got", hint="--resume")
    refused(ask(api, out, "--resume", "--kind", "commits"), "was begun with other settings")
    done = ask(api, out, "--resume")
    assert done.code == 0 and out.read_bytes() == whole.read_bytes()
    assert [r[0] for r in api.asked("/pulls/")] == [f"{AT}/pulls/105"]
    assert not list(tmp_path.glob(".*part*"))
    pages = [r for r in api.log if r[0] == f"{AT}/issues"]
    assert all(r[3] for r in pages) and done.json["unchanged"] >= len(pages), (
        "pages are asked for by their ETags"
    )
    api.lists[f"{AT}/issues"][0]["title"] = "Another title"
    assert ask(api, tmp_path / "new.jsonl").code == 0
    assert read(tmp_path / "new.jsonl")[0]["instruction"].startswith("Another title"), "an ETag that changed"


def test_the_token_goes_home_only(api: FakeGitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "ghp_verysecret"
    api.token = secret
    monkeypatch.setenv("GITHUB_TOKEN", secret)
    refused(
        ask(api, tmp_path / "rows.jsonl"), "to known people only"
    )  # github.com's token is not for another API
    assert not [r for r in api.log if r[2]]
    monkeypatch.setenv("WORK_TOKEN", secret)
    with fake_github.serving(FakeGitHub(diffs=api.diffs)) as other:
        api.elsewhere = other.endpoint
        done = ask(api, tmp_path / "rows.jsonl", "--token-env", "WORK_TOKEN")
        assert done.code == 0 and len(read(tmp_path / "rows.jsonl")) == 2, done.err
        assert other.log and not [r for r in other.log if r[2]]
        api.odd_next = f"{other.endpoint}{AT}/issues?page=2"
        api.lists[f"{AT}/issues"][0]["title"] = "New"
        bad = ask(api, tmp_path / "odd.jsonl", "--token-env", "WORK_TOKEN")
        refused(bad, "the next page of issues of own/repo is said to be at")
        assert not [r for r in other.log if r[2]]
    kept = "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    kept += "".join(p.read_text() for p in files.cache_dir("github").rglob("*.json"))
    assert secret not in done.out + done.err + bad.err + kept
    monkeypatch.setenv("WORK_TOKEN", "another")
    refused(
        ask(api, tmp_path / "no.jsonl", "--token-env", "WORK_TOKEN"),
        "does not accept the token in WORK_TOKEN",
    )
    refused(ask(api, tmp_path / "no.jsonl", "--token-env", "NO_TOKEN"), "there is no token in NO_TOKEN")
    open_ = ("--api-url", "http://ghe.example/api/v3", "--token-env", "WORK_TOKEN")
    refused(tinygpt("fetch-github", "a/b", *open_, "--dry-run"), "would be sent there in the open")


def test_every_refusal_is_one_line(api: FakeGitHub, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    refused(ask(api, out, repo="own/none"), "there is no repository own/none, or it is private")
    refused(ask(api, out, repo="one"), "one is no repository", hint="owner/repo")
    refused(ask(api, out, "--since", "May"), "--since May is no day")
    refused(ask(api, out, "--label", "nothing"), "nothing became a row")
    refused(tinygpt("fetch-github", "--out", out), "no repository is named")
    refused(tinygpt("fetch-github", "a/b", "--api-url", "ftp://x", "--out", out), "is no address of an API")
    (tmp_path / "mine.jsonl").write_text("{}\n")
    refused(ask(api, tmp_path / "mine.jsonl"), "mine.jsonl exists")
    api.faults = {AT: [(302, {"Location": f"{api.endpoint}{AT}"}, b"")] * 9}
    refused(ask(api, out), "leads from one address to another without end")
    api.faults = {AT: [(302, {"Location": "file:///etc/passwd"}, b"")]}
    refused(ask(api, out), "which is not followed")
    api.faults = {}
    api.token = "needed"
    refused(ask(api, out), "to known people only", hint="--token-env")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.jsonl"], "nothing came, nothing is kept"
    api.token = ""
    api.objects[AT] = []
    refused(ask(api, out), "makes no sense")
    assert not out.exists()
