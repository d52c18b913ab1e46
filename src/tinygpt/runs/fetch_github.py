"""Rows of what people did in repositories of GitHub: issues and what closed them, reviews, commits."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core.config import flag
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.data import card
from tinygpt.data import rows as row_files
from tinygpt.data.card import Card, Source
from tinygpt.data.tally import Tally
from tinygpt.runs import _data_out, _github_rows
from tinygpt.runs._github import PUBLIC, GitHub
from tinygpt.runs._github_rows import Wanted
from tinygpt.runs._journal import Journal


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `fetch-github`."""

    repo: Annotated[str, "owner/repo; more of them in --multi-repo."] = ""
    out: Annotated[Path | None, "JSONL file to write; its card goes beside it."] = None
    kind: Annotated[Literal["issues-prs", "reviews", "commits"], "What rows are made of."] = "issues-prs"
    label: Annotated[str, "Only issues with this label; commas between several, all of which count."] = ""
    state: Annotated[Literal["closed", "open", "all"], "Only issues in this state."] = "closed"
    since: Annotated[str, "Only what changed since this day or moment, as 2024-05-01."] = ""
    max_diff_bytes: Annotated[int, "Longer diffs are left out whole."] = 10_000
    limit: Annotated[int, "Rows of each repository at most; 0: all."] = 1000
    multi_repo: Annotated[Path | None, "File of owner/repo lines; # begins a remark."] = None
    token_env: Annotated[str, "Variable that holds a token; not given: GITHUB_TOKEN for github.com."] = ""
    api_url: Annotated[str, "Address of the API, for GitHub Enterprise."] = PUBLIC
    max_wait: Annotated[float, "Seconds to wait in all for GitHub's limits of requests."] = 900.0
    resume: Annotated[bool, "Go on where an interrupted command with the same settings stopped."] = False
    dry_run: Annotated[bool, "Ask for licences and first pages only; write nothing."] = False
    force: Annotated[bool, "Replace an --out that tinygpt wrote."] = False

    def __post_init__(self) -> None:
        if not self.repo and self.multi_repo is None:
            raise ConfigError("no repository is named", hint="give owner/repo, or --multi-repo FILE")
        for name in ("max_diff_bytes", "limit", "max_wait"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{flag(name)} must not be negative, got {getattr(self, name)}")
        if self.kind != "issues-prs" and (self.label or self.state != "closed"):
            raise ConfigError(f"--label and --state choose issues, not {self.kind}", hint="leave them out")
        if self.out is None and not self.dry_run:
            raise ConfigError("--out is needed: where the rows go", hint="or ask first: --dry-run")
        _ = self.moment

    @property
    def moment(self) -> str:
        """`since` as the API has it."""
        if not self.since:
            return ""
        try:
            found = datetime.datetime.fromisoformat(self.since)
        except ValueError as error:
            raise ConfigError(f"--since {self.since} is no day or moment", hint="as 2024-05-01") from error
        utc = found.astimezone(datetime.UTC) if found.tzinfo else found
        return utc.strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def repos(self) -> list[str]:
        """All that are named, each once."""
        found = [self.repo] if self.repo else []
        if self.multi_repo is not None:
            try:
                text = self.multi_repo.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"--multi-repo: {self.multi_repo} cannot be read: {error}") from error
            found += [bare for line in text.splitlines() if (bare := line.partition("#")[0].strip())]
        return list(dict.fromkeys(map(_github_rows.named, found)))


def run(config: Config, events: Events) -> dict[str, Any]:
    """Fetch and write; the facts of what was done."""
    repos = config.repos
    if not repos:
        raise DataError(f"--multi-repo: {config.multi_repo} names no repository")
    if config.out is not None and not config.dry_run:
        _data_out.check(config.out, force=config.force)
    api = GitHub(
        config.api_url, token_env=config.token_env, max_wait=config.max_wait, events=events
    )  # fmt: skip
    wanted = Wanted(
        kind=config.kind, label=config.label, state=config.state, since=config.moment,
        max_diff_bytes=config.max_diff_bytes, limit=config.limit,
    )  # fmt: skip
    if config.dry_run:
        return {"repos": [_first(api, repo, wanted) for repo in repos], "kind": config.kind, "rows": 0}
    assert config.out is not None
    settings = {"api_url": config.api_url, "repos": repos, **wanted.__dict__}
    tally, sources, counts = Tally(config.kind), list[Source](), dict.fromkeys(repos, 0)
    with Journal(config.out, settings, resume=config.resume, force=config.force) as journal:

        def each() -> Iterator[dict[str, Any]]:
            for repo in repos:
                sources.append(_github_rows.source(api, repo))
                if sources[-1].licence == card.UNKNOWN:
                    events.note(f"GitHub knows no licence of {repo}: ask its owners", "warning")
                for row in _github_rows.rows(api, repo, wanted, journal, tally, events):
                    counts[repo] += 1
                    yield row
            if not tally.n_out:
                raise DataError(f"nothing became a row. {tally.sentence()}".strip(), hint="ask for others")

        n = row_files.write(config.out, each())
        journal.done()
    told = tuple(
        Source(name=s.name, licence=s.licence, n_rows=counts[repo]) for s, repo in zip(sources, repos)
    )
    made = Card(
        made_by="tinygpt fetch-github", settings=settings, sources=told, stages=(tally.stage(),)
    )  # fmt: skip
    where = card.write(config.out, made)
    return {
        "rows": n, "kind": config.kind, "left_out": tally.n_in - n, "reasons": dict(tally.dropped),
        "repos": [{"repo": repo, "licence": s.licence, "rows": counts[repo]} for s, repo in zip(told, repos)],
        "requests": api.n_asked, "unchanged": api.n_unchanged, "out": str(config.out), "card": str(where),
    }  # fmt: skip


def _first(api: GitHub, repo: str, wanted: Wanted) -> dict[str, Any]:
    """What the first page tells of a repository."""
    licence = _github_rows.source(api, repo).licence
    page = next(iter(_github_rows.listing(api, repo, wanted)))
    return {"repo": repo, "licence": licence, "first_page": len(page.body), "pages": max(1, page.last)}
