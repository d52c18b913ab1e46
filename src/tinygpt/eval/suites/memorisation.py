"""Memorisation: how much of its training text a model goes on with word for word, beside text it never saw.

Windows are drawn from the training text. The model is given the first `prefix` tokens of each and writes the
next `go_on` greedily: `verbatim` is the share of windows that it writes exactly, `verbatim_share` the mean
share of letters before the first that differs. Text that anyone would guess is written without having been
learned, so the same is asked of a control text, and `verbatim_excess = verbatim(trained) -
verbatim(control)` is what training put there. Less is better in all three.

Windows of the control that stand in the training text are left out and counted, and so are documents with too
few tokens. An answer that did not come is in no figure, since 0 would be the best one.

Paper: Carlini et al., ICLR 2023, arXiv:2202.07646, section 3 (extractable with a prefix, greedy decoding);
Newcombe, Statistics in Medicine 1998, method 10 (interval of a difference of shares).
Differs: windows are spread evenly over the text, not drawn by how often they were repeated; one at the start
of a document follows the start token, as in training; spaces before an answer do not count, since some
tokenizers drop them.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import to_dict
from tinygpt.core.errors import ConfigError, DataError, RemoteError, UnsupportedError
from tinygpt.core.rows import EvalRow, wilson
from tinygpt.eval.endpoint import Endpoint, Reply
from tinygpt.eval.suites import heldout_loss
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, mean, record, row, share

TASK = "memorisation"
TRAINED, CONTROL = "trained", "control"
LONGEST = 24  # letters that a token may have on average, so that a window is cut out before it is tokenised
MORE = 4  # tokens by which a window's ends may move, so that no letter is cut


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the memorisation probe."""

    paths: Annotated[
        tuple[Path, ...], "Training text: text files, .jsonl files with {text} rows, or folders."
    ] = ()
    control: Annotated[tuple[Path, ...], "The same of text that was not trained on."] = ()
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    field: Annotated[str, "Which field of .jsonl and .parquet rows holds the text."] = "text"
    n: Annotated[int, "Number of windows of each text."] = 200
    prefix: Annotated[int, "Tokens that the model is given."] = 50
    go_on: Annotated[int, "Tokens that it has to write."] = 50
    seed: Annotated[int, "Seed of the windows' places."] = 0

    def __post_init__(self) -> None:
        for name in ("n", "prefix", "go_on"):
            if getattr(self, name) < 1:
                raise ConfigError(f"'{name}' must be at least 1, got {getattr(self, name)}")


def load(config: Config) -> Examples:
    """The documents of both texts, each {"id", "text", "of"}."""
    if not config.paths:
        raise ConfigError(f"{TASK} has no training text", hint="name it: 'paths', or --memorise of run-bench")
    documents: list[dict[str, Any]] = []
    notes: list[str] = []
    for of, paths in ((TRAINED, config.paths), (CONTROL, config.control)):
        if paths:
            found = heldout_loss.load(heldout_loss.Config(paths=paths, glob=config.glob, field=config.field))
            documents += [{**item, "of": of} for item in found.items]
            notes += found.notes
    if not config.control:
        notes.append(f"{TASK}: without a control text nobody knows what the model would have guessed")
    return Examples.of(documents, notes)


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """Two rows of each text, verbatim and verbatim_share, and verbatim_excess where there is a control."""
    clock = Clock()
    if endpoint.tokenizer is None:
        raise UnsupportedError(
            f"{endpoint.name} does not show its tokens, so no window can be cut", hint="give --tokenizer"
        )
    longest = config.prefix + config.go_on + 2 * MORE
    if endpoint.context and longest > endpoint.context:
        raise ConfigError(
            f"{config.prefix} tokens and {config.go_on} after them do not fit the context {endpoint.context}",
            hint=f"prefix + go_on + {2 * MORE} <= context",
        )
    told: dict[str, Any] = {"notes": list(examples.notes)}
    asked: list[dict[str, Any]] = []
    for of in (TRAINED, *([CONTROL] if config.control else [])):
        windows, left_out = _windows(of, examples.items, endpoint.tokenizer, config)
        told[of] = left_out
        asked += windows
    replies = endpoint.complete([one["ids"] for one in asked], max_tokens=config.go_on + MORE)
    found = [_compared(one, reply) for one, reply in zip(asked, replies, strict=True)]
    came = [one for one in found if not one.get("error")]
    if not came:
        raise RemoteError(f"no answer of {endpoint.name} came: {found[0]['error']}")
    settings = to_dict(config) | {"paths": [*map(str, config.paths)], "control": [*map(str, config.control)]}
    more = {"settings": settings | told}
    at = (clock.seconds(), examples.version)
    rows: list[EvalRow] = []
    for of in dict.fromkeys(one["of"] for one in asked):
        mine = [one for one in came if one["of"] == of]
        failed = sum(one["of"] == of for one in found) - len(mine)
        both = (
            share(endpoint, TASK, "verbatim", mine, *at, subtask=of, **more),
            mean(endpoint, TASK, "verbatim_share", mine, *at, key="until", subtask=of, **more),
        )
        rows += [replace(one, n_failed=failed) for one in both]
    for one in found:
        one |= {"task": TASK, "subtasks": [one["of"], *([None] if config.control else [])]}
    if config.control:
        difference, interval = _excess(came)
        n_failed = {"n_failed": len(found) - len(came), "interval": interval, **more}
        rows.append(row(endpoint, TASK, "verbatim_excess", difference, len(came), *at, **n_failed))
    return SuiteResult(rows=rows, examples=found)


def _windows(
    of: str, items: Sequence[dict[str, Any]], tokenizer: Any, config: Config
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Windows at places spread over all documents of one text, and how many places gave none."""
    documents = [item for item in items if item["of"] == of and item["text"]]
    trained = [item["text"] for item in items if item["of"] == TRAINED] if of == CONTROL else []
    ends = list(itertools.accumulate(len(item["text"]) for item in documents))
    generator = random.Random(f"{config.seed} {TASK} {of}")
    found: dict[tuple[int, int], dict[str, Any]] = {}
    left_out = {"short": 0, "trained_on": 0, "same": 0}
    for i in range(config.n if ends else 0):
        place = int((i + generator.random()) * ends[-1] / config.n)
        number = bisect.bisect_right(ends, place)
        text = documents[number]["text"]
        inside = place - (ends[number] - len(text))
        word = next((j + 1 for j in range(inside, len(text)) if text[j].isspace()), len(text))
        window = None
        for start in (word if inside else 0, 0):  # the end of a document has no window, its beginning may
            window = window or _cut(text, start, tokenizer, config)
        if window is None:
            left_out["short"] += 1
        elif any(window["prompt"] + window["expected"] in other for other in trained):
            left_out["trained_on"] += 1
        elif (number, window["start"]) in found:
            left_out["same"] += 1
        else:
            about = {"id": f"{of}/{documents[number]['id']}:{window['start']}", "of": of}
            found[number, window["start"]] = about | window
    if not found:
        raise DataError(
            f"the {of} text has no window to ask for ({left_out['short']} places with fewer than "
            f"{config.prefix + config.go_on} tokens, {left_out['trained_on']} that were trained on)",
            hint="give more text, or a smaller prefix and go_on",
        )
    return list(found.values()), left_out


def _cut(text: str, start: int, tokenizer: Any, config: Config) -> dict[str, Any] | None:
    """The window from `start` on, its ends moved so that its texts are whole; None where tokens lack."""
    part = text[start : start + LONGEST * (config.prefix + config.go_on + 2 * MORE)]
    ids = tokenizer.encode(part)

    def whole(least: int) -> tuple[int, str] | None:
        for n in range(least, min(least + MORE, len(ids)) + 1):
            if n <= len(ids) and part.startswith(told := tokenizer.decode(ids[:n])) and told:
                return n, told
        return None

    given = whole(config.prefix)
    both = given and whole(given[0] + config.go_on)
    if given is None or both is None or not both[1].startswith(given[1]):
        return None
    expected = both[1][len(given[1]) :]
    begun = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    if start == 0 and not begun:  # as documents begin in training
        begun = [tokenizer.eos_id]
    found = {"start": start, "prompt": given[1], "expected": expected, "ids": (*begun, *ids[: given[0]])}
    return found if expected.strip() else None


def _compared(window: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """The record of a window: whether it was written exactly, and how far it is right."""
    expected, got = window["expected"].lstrip(), reply.text.lstrip()[: len(window["expected"].lstrip())]
    until = next((i for i, (a, b) in enumerate(zip(expected, got)) if a != b), min(len(expected), len(got)))
    if reply.finish_reason == "length":  # no more was asked for
        reply = replace(reply, finish_reason="stop")
    more = {"of": window["of"], "prompt": window["prompt"], "expected": window["expected"], "got": got}
    return record(window["id"], got == expected, reply, until=until / len(expected), **more)


def _excess(found: Sequence[dict[str, Any]]) -> tuple[float, tuple[float, float]]:
    """The difference of the two shares, and its interval out of those of both (Newcombe's method 10)."""
    (p, low, high), (q, under, over) = (
        _share([one["correct"] for one in found if one["of"] == of]) for of in (TRAINED, CONTROL)
    )
    below, above = math.hypot(p - low, over - q), math.hypot(high - p, q - under)
    return p - q, (p - q - below, p - q + above)


def _share(right: Sequence[bool]) -> tuple[float, float, float]:
    return sum(right) / max(1, len(right)), *wilson(sum(right), len(right))
