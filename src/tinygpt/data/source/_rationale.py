"""Rationales as a second task: each row is learned twice, once for its answer and once for the reasons.

A row {"prompt", "completion", "rationale"}, or of any other shape with such a field beside it, becomes

    [label] question -> answer        [rationale] question -> rationale

and the tokens of a rationale count `weight` where those of an answer count 1. The student is asked with
"[label] " and writes no reasons, so it answers as fast as one that never saw any. A row without a rationale
is learned for its answer alone. Both examples of a row are on one side of what is held out.

Paper: Hsieh et al. 2023 (Distilling Step-by-Step), arXiv:2305.02301, section 3.2 (loss = label + lambda
rationale, task prefixes).
Differs: the mean is over the weighted tokens of both tasks, where the paper adds two means; the prefix stands
before the last request of a conversation.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tinygpt.core.errors import DataError
from tinygpt.data.message import text_of
from tinygpt.data.rows import Conversation

LABEL, RATIONALE = "[label] ", "[rationale] "


class Task(NamedTuple):
    """A conversation to learn, and whether it is about the reasons; `key` is the same for both tasks."""

    content: Conversation
    reasons: bool
    key: str


def tasks(row: dict[str, Any], content: Conversation, field: str) -> list[Task]:
    """The tasks of a row whose conversation is `content`. DataError where nothing is asked in it, or the
    rationale is no text."""
    last = max(i for i, message in enumerate(content.messages) if message["role"] == "assistant")
    asked = max((i for i, m in enumerate(content.messages[:last]) if m["role"] == "user"), default=-1)
    if asked < 0:
        raise DataError("no request comes before the answer, so no task can be named")
    key = json.dumps([content.messages, content.tools], sort_keys=True)
    found = [Task(_asking(content, asked, LABEL), False, key)]
    given = row.get(field)
    if given is None or given == "":
        return found
    reasons = {"role": "assistant", "content": text_of(given, field)}
    before = sum(m["role"] == "assistant" for m in content.messages[:last])
    about = _asking(content, asked, RATIONALE)
    messages = [*about.messages[:last], reasons]
    return [
        *found,
        Task(Conversation(messages=messages, tools=content.tools, unlearned=tuple(range(before))), True, key),
    ]


def _asking(content: Conversation, at: int, prefix: str) -> Conversation:
    """The conversation with a prefix before the text of message number `at`."""
    messages = list(content.messages)
    messages[at] = {**messages[at], "content": prefix + messages[at]["content"]}
    return Conversation(messages=messages, tools=content.tools, unlearned=content.unlearned)
