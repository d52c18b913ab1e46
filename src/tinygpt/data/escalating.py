"""Rows that teach a small model to answer what it gets right, and to hand over what a larger one would.

{instruction | prompt, input?, response, local_correct, cloud_correct?, reason?} becomes {instruction,
response}, whose response is JSON:

    local right                 {"defer_to_cloud": false, "response": ...}
    local wrong, cloud right    {"defer_to_cloud": true, "reason": ...}

Where both are wrong, or nobody knows whether the cloud is right, nothing can be learned.

`decision` reads that form again, for whoever meets it: the agent, and the suite that measures it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data import table
from tinygpt.data.message import kind_of, text_of

SHAPE = "{instruction | prompt, response, local_correct, cloud_correct?, reason?}"
REASON = "the local model gets this wrong"
KEPT, DEFERRED = "kept", "deferred"
BOTH, UNKNOWN = "both are wrong", "local is wrong, cloud_correct is not known"
AHEAD = re.compile(r"^.*?</think(?:ing)?>", re.DOTALL)  # what was thought aloud before the answer
FENCED = re.compile(r"^```\w*\n(.*?)\n?```$", re.DOTALL)
BEGUN = re.compile(r'\{\s*"defer_to_cloud"\s*:\s*(true|false)\b')
TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What an answer in this form says. `reason` and `response` are "" where it does not say them, or was cut
    off before."""

    defer: bool
    reason: str = ""
    response: str = ""


def decision(text: str) -> Decision | None:
    """What an answer decides; None where it is not in this form. The object must be the whole answer, in a
    code fence or not, or stand at its beginning with `defer_to_cloud` first: what only quotes the form
    decides nothing."""
    said = AHEAD.sub("", text).strip()
    if fenced := FENCED.match(said):
        said = fenced[1].strip()
    if '"defer_to_cloud"' not in said:
        return None
    try:
        found = table.parse(said)
    except DataError:
        begun = BEGUN.match(said)
        return Decision(defer=begun[1] == "true") if begun else None
    if not isinstance(found, dict) or not isinstance(found.get("defer_to_cloud"), bool):
        return None
    return Decision(
        defer=found["defer_to_cloud"],
        **{name: _plain(found[name]) for name in ("reason", "response") if found.get(name) is not None},
    )


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Escalating:
    """Rows, one by one; `seen` counts what became of them."""

    def __init__(self, reason: str = REASON) -> None:
        self._reason, self.seen = reason, Counter[str]()

    def __call__(self, row: Any) -> dict[str, Any] | None:
        """A row as it trains; None for one of which nothing can be learned. DataError: it does not fit."""
        if not isinstance(row, Mapping):
            raise DataError(f"expected a JSON object, got {kind_of(row)}")
        name = "instruction" if "instruction" in row else "prompt"
        if name not in row:
            raise DataError("there is no 'instruction' and no 'prompt'")
        asked = text_of(row[name], name)
        if row.get("input"):
            asked += "\n\n" + text_of(row["input"], "input")
        if not asked.strip():
            raise DataError(f"'{name}' is empty")
        local, cloud = _truth(row, "local_correct"), _truth(row, "cloud_correct")
        if local is None:
            raise DataError("'local_correct' is neither true nor false")
        if local:
            answer = text_of(row.get("response"), "response")
            said: dict[str, Any] = {"defer_to_cloud": False, "response": answer}
        elif cloud:
            said = {"defer_to_cloud": True, "reason": text_of(row.get("reason") or self._reason, "reason")}
        else:
            self.seen[UNKNOWN if cloud is None else BOTH] += 1
            return None
        self.seen[KEPT if local else DEFERRED] += 1
        return {"instruction": asked, "response": json.dumps(said, ensure_ascii=False)}


def _truth(row: Mapping[str, Any], name: str) -> bool | None:
    """True or false, also as a table writes it; None where it is not there."""
    value = row.get(name)
    if value is None or value == "":
        return None
    found = value if isinstance(value, bool) else TRUTHS.get(str(value).strip().lower())
    if found is None:
        raise DataError(f"'{name}' is neither true nor false: {value!r}")
    return found
