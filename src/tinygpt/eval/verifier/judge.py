"""A model that reads prompt and answer and gives a mark from 1 to 10: ours, or a server's.

The key of a server, where it wants one, is read from the environment: OPENAI_API_KEY.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import ConfigError, RemoteError
from tinygpt.eval.verifier._candidate import Candidate, Case, Judging, Verify

ASK = (
    "Rate the answer to the request from 1 (useless or wrong) to 10 (right, complete and clear).\n\n"
    "Request:\n{prompt}\n\nAnswer:\n{answer}\n\nReply with the number alone."
)
MARK = re.compile(r"(?<![\d.])(10|[1-9])(?:\.0+)?(?![\d.]*\d)")
Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Who judges."""

    judge: Annotated[str, "URL of a server, as http://127.0.0.1:8000/v1, or a model directory."]
    name: Annotated[str, "The server's name for the model."] = "default"
    seconds: Annotated[float, "Longest time for an answer of the server."] = 60.0

    def __post_init__(self) -> None:
        if not self.judge:
            raise ConfigError(
                "the verifier 'judge' needs someone to judge", hint="give --judge URL or a directory"
            )


def build(judging: Judging, config: Config) -> Verify:
    """An answer without a mark has the lowest score, and is counted."""
    ask = _server(config) if "://" in config.judge else _local(judging, Path(config.judge))

    def verify(case: Case, candidates: Sequence[Candidate]) -> list[float]:
        asked = [ASK.format(prompt=case.text, answer=candidate.text) for candidate in candidates]
        scores: list[float] = []
        for reply in ask([[{"role": "user", "content": text}] for text in asked]):
            found = MARK.search(reply)
            if found is None:
                judging.failed(f"the judge gave no mark but {reply[:60]!r}")
            scores.append(float(found.group(1)) if found else float("-inf"))
        return scores

    return verify


def _local(judging: Judging, path: Path) -> Callable[[Sequence[list[Message]]], list[str]]:
    endpoint = judging.open(path)
    return lambda asked: [reply.text for reply in endpoint.complete(asked, max_tokens=8)]


def _server(config: Config) -> Callable[[Sequence[list[Message]]], list[str]]:
    url = config.judge.rstrip("/") + "/chat/completions"
    key = os.environ.get("OPENAI_API_KEY", "")
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def one(messages: list[Message]) -> str:
        body = {"model": config.name, "messages": messages, "temperature": 0, "max_tokens": 8}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=config.seconds) as response:
                found = json.load(response)
            return str(found["choices"][0]["message"]["content"] or "")
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            why = (
                f"HTTP {error.code}"
                if isinstance(error, urllib.error.HTTPError)
                else str(error) or type(error).__name__
            )
            raise RemoteError(
                f"the judge at {url} gave no answer: {why}",
                hint="check --judge, --judge-name and OPENAI_API_KEY",
            ) from error

    return lambda asked: [one(messages) for messages in asked]
