"""Rows of what people do in a repository: issues and what closed them, remarks, commits.

{instruction, response, metadata {repo, kind, ...}}

issues-prs   title and text of an issue -> text and diff of the pull request that closed it
reviews      a piece of a diff -> the first remark of a reviewer on it
commits      a diff -> the message of its commit
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

KINDS = ("issues-prs", "reviews", "commits")
MARK = "--- diff ---"
CLOSES = r"\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?)\b:?\s+(?:{repo})?#{number}\b"
_FILE = re.compile(r"^diff --git a/.* b/(.*)$", re.MULTILINE)

Row = dict[str, Any]


def closes(text: str, repo: str, number: int) -> bool:
    """Whether the text of a pull request says, in GitHub's words, that it closes an issue."""
    pattern = CLOSES.format(repo=re.escape(repo), number=number)
    return re.search(pattern, text or "", re.IGNORECASE) is not None


def files_of(diff: str) -> list[str]:
    """The files that a diff changes, by their new names."""
    return _FILE.findall(diff)


def by_machine(user: Any) -> bool:
    """Whether an account is a program's."""
    named = user if isinstance(user, Mapping) else {}
    return named.get("type") == "Bot" or str(named.get("login", "")).endswith("[bot]")


def issue_row(repo: str, issue: Mapping[str, Any], pull: Mapping[str, Any], diff: str) -> Row | str:
    """A row, or why there is none."""
    asked, told = _joined(issue.get("title"), issue.get("body")), _text(pull.get("body"))
    if not asked or not diff.strip():
        return "the issue is empty" if not asked else "the diff is empty"
    labels = [str(one.get("name")) for one in issue.get("labels") or () if isinstance(one, Mapping)]
    metadata = {
        "repo": repo, "kind": "issues-prs", "issue_number": issue["number"], "pr_number": pull["number"],
        "labels": labels, "files_changed": files_of(diff),
    }  # fmt: skip
    answer = _joined(told, f"{MARK}\n{diff.rstrip()}")
    return {"instruction": asked, "response": answer, "metadata": metadata}


def review_row(repo: str, comment: Mapping[str, Any]) -> Row | str:
    """A row, or why there is none."""
    hunk, said = _text(comment.get("diff_hunk")), _text(comment.get("body"))
    if comment.get("in_reply_to_id"):
        return "an answer to another remark"
    if by_machine(comment.get("user")):
        return "written by a program"
    if not hunk or not said:
        return "the diff is empty" if not hunk else "the remark is empty"
    pull = str(comment.get("pull_request_url", "")).rpartition("/")[2]
    metadata = {
        "repo": repo, "kind": "reviews", "comment_id": comment.get("id"), "file": comment.get("path"),
        "pr_number": int(pull) if pull.isdigit() else None,
    }  # fmt: skip
    return {"instruction": hunk, "response": said, "metadata": metadata}


def commit_row(repo: str, commit: Mapping[str, Any], diff: str) -> Row | str:
    """A row, or why there is none."""
    told = commit.get("commit")
    message = _text(told.get("message") if isinstance(told, Mapping) else "")
    if not message or not diff.strip():
        return "the message is empty" if not message else "the diff is empty"
    metadata = {
        "repo": repo, "kind": "commits", "sha": commit.get("sha"), "files_changed": files_of(diff),
    }  # fmt: skip
    return {"instruction": diff.rstrip(), "response": message, "metadata": metadata}


def _text(value: Any) -> str:
    return value.replace("\r\n", "\n").strip() if isinstance(value, str) else ""


def _joined(*parts: Any) -> str:
    return "\n\n".join(text for text in map(_text, parts) if text)
