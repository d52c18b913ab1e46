"""The rows of a repository of GitHub, one piece of work after the other, each kept in a journal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tinygpt.core.errors import ConfigError, RemoteError
from tinygpt.core.events import Events, Progress
from tinygpt.data import review_rows
from tinygpt.data.card import UNKNOWN, Source
from tinygpt.data.tally import Tally
from tinygpt.runs._github import DIFF, GitHub, Page, Refused
from tinygpt.runs._journal import Journal

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked of each repository. `limit`: rows of each; 0: all."""

    kind: str = "issues-prs"
    label: str = ""
    state: str = "closed"
    since: str = ""
    max_diff_bytes: int = 10_000
    limit: int = 1000


def named(text: str) -> str:
    """owner/repo; an address of github.com is one too. ConfigError for what is none."""
    plain = re.sub(r"^(?:https?://)?github\.com/", "", text.strip()).removesuffix(".git").strip("/")
    if NAME.fullmatch(plain) is None or plain.endswith(("/.", "/..")):
        raise ConfigError(f"{text} is no repository", hint="write owner/repo")
    return plain


def source(api: GitHub, repo: str, n_rows: int = 0) -> Source:
    """The repository as a source: its licence is GitHub's finding, or unknown."""
    found = api.get(f"/repos/{repo}", f"repository {repo}").body
    if not isinstance(found, dict):
        raise RemoteError(f"the answer about {repo} makes no sense", hint="check --api-url")
    spdx = _inside(found, "license").get("spdx_id")
    licence = spdx if isinstance(spdx, str) and spdx not in ("NOASSERTION", "") else UNKNOWN
    return Source(name=f"github:{repo}", licence=licence, n_rows=n_rows)


def listing(api: GitHub, repo: str, wanted: Wanted) -> Iterator[Page]:
    """The pages of what is looked through for rows."""
    if wanted.kind == "issues-prs":
        asked = {"state": wanted.state, "labels": wanted.label, "sort": "created", "direction": "asc"}
        return api.pages(f"/repos/{repo}/issues", f"issues of {repo}", **asked, since=wanted.since)
    if wanted.kind == "reviews":
        asked = {"sort": "created", "direction": "asc", "since": wanted.since}
        return api.pages(f"/repos/{repo}/pulls/comments", f"remarks on pull requests of {repo}", **asked)
    return api.pages(f"/repos/{repo}/commits", f"commits of {repo}", since=wanted.since)


def rows(
    api: GitHub, repo: str, wanted: Wanted, journal: Journal, tally: Tally, events: Events
) -> Iterator[dict[str, Any]]:
    """The rows, in the order of the list. What the journal has is not asked for again."""
    seen: set[str] = set()
    n_rows = 0
    for page in listing(api, repo, wanted):
        for item in page.body:
            identity = _identity(item, wanted.kind)
            if identity is None:
                tally.drop("not as GitHub writes it")
                continue
            key = f"{repo} {wanted.kind} {identity}"
            if key in seen or _is_other(item, wanted.kind):
                continue  # a pull request in the list of issues, or one that moved to the next page
            seen.add(key)
            if key not in journal:
                journal.keep(key, _row(api, repo, item, wanted))
            found = journal[key]
            told = Progress(task=f"fetch {repo}", done=len(seen), total=100 * page.last, unit=wanted.kind)
            events.emit(told)
            if isinstance(found, str):
                tally.drop(found)
                continue
            tally.keep()
            n_rows += 1
            yield found
            if wanted.limit and n_rows >= wanted.limit:
                return


def _identity(item: Any, kind: str) -> Any:
    """What GitHub knows an item of a list by; None where it is none of its kind."""
    name = {"issues-prs": "number", "reviews": "id", "commits": "sha"}[kind]
    found = item.get(name) if isinstance(item, dict) else None
    return found if isinstance(found, str if kind == "commits" else int) else None


def _inside(value: Any, *path: str) -> dict[str, Any]:
    """The object at a path of keys; an empty one where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _is_other(item: Mapping[str, Any], kind: str) -> bool:
    return kind == "issues-prs" and "pull_request" in item


def _row(api: GitHub, repo: str, item: Mapping[str, Any], wanted: Wanted) -> dict[str, Any] | str:
    """A row of an item of the list, or why there is none."""
    if wanted.kind == "reviews":
        found = review_rows.review_row(repo, item)
        hunk = found["instruction"] if isinstance(found, dict) else ""
        return "the diff is too long" if len(hunk.encode()) > wanted.max_diff_bytes else found
    if wanted.kind == "commits":
        if len(item.get("parents") or ()) > 1:
            return "a merge"
        sha = str(item.get("sha"))
        diff = _diff(api, f"/repos/{repo}/commits/{sha}", f"commit {sha[:12]} of {repo}", wanted)
        return diff[1] or review_rows.commit_row(repo, item, diff[0])
    try:
        pull = _closed_by(api, repo, item)
    except Refused as error:
        if error.status in (404, 410):
            return "GitHub no longer shows the issue"
        raise
    if pull is None:
        return "no merged pull request says that it closes the issue"
    number = pull["number"]
    diff = _diff(api, f"/repos/{repo}/pulls/{number}", f"pull request {number} of {repo}", wanted)
    return diff[1] or review_rows.issue_row(repo, item, pull, diff[0])


def _closed_by(api: GitHub, repo: str, issue: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The first merged pull request of the same repository whose text closes an issue."""
    number = issue["number"]
    for page in api.pages(f"/repos/{repo}/issues/{number}/timeline", f"issue {number} of {repo}"):
        for event in page.body:
            other = _inside(event, "source", "issue")
            if not _inside(other, "pull_request").get("merged_at") or not isinstance(
                other.get("number"), int
            ):
                continue
            home, text = (
                str(_inside(other, "repository").get("full_name", repo)),
                str(other.get("body") or ""),
            )
            if home.lower() == repo.lower() and review_rows.closes(text, repo, number):
                return other
    return None


def _diff(api: GitHub, path: str, what: str, wanted: Wanted) -> tuple[str, str]:
    """(the diff, "") or ("", why there is none): a part of one would teach a change that was never made."""
    try:
        found = str(api.get(path, what, accept=DIFF).body)
    except Refused as error:
        if error.status in (404, 406, 410, 422):
            return "", "GitHub shows no diff of it"
        raise
    return ("", "the diff is too long") if len(found.encode()) > wanted.max_diff_bytes else (found, "")
