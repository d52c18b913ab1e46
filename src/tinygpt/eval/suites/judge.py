"""Judge: a model that reads answers says which of two is better, or how good one is.

`pairwise`: each pair is shown in both orders, since judges favour a place. An answer wins when both verdicts
name it, all else is a tie: `win_rate` is that of response_a, a tie counts half. `order_agreement` is the
share of pairs with one verdict in both orders, `position_bias = |first - second|`, the shares of verdicts for
either place. `rate`: `mean_rating` on a scale, by a rubric. Rows with a label say what the judge is worth:
`label_agreement`, `label_kappa = (p_o - p_e) / (1 - p_e)` of pairs, `label_spearman` of ratings.

A verdict that cannot be read stands for nothing: its example is left out and counted. A model of this process
is held to the verdicts' words, unless it may reason first.

Paper: Zheng et al., NeurIPS 2023, arXiv:2306.05685 (both orders, ties); Cohen 1960 (kappa); Spearman 1904.
Differs: nothing.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.rows import EvalRow
from tinygpt.eval.endpoint import GREEDY, Endpoint, Reply
from tinygpt.eval.suites import _rows
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, mean, of_all, record, share

SHAPES = {
    "pairwise": "{prompt, response_a, response_b, label?: a | b | tie}",
    "rate": "{prompt, response, label?: number}",
}
ASK = {
    "pairwise": "Two answers to a request are compared.\n\nRequest:\n{prompt}\n\nAnswer A:\n{first}\n\n"
    "Answer B:\n{second}\n\n{rubric}Which answer is better? {how}",
    "rate": "An answer to a request is rated.\n\nRequest:\n{prompt}\n\nAnswer:\n{response}\n\n"
    "{rubric}Rate it from {low} (worst) to {high} (best). {how}",
}
HOW = {False: "Reply with {words} and nothing else.",
       True: "Say why in a few sentences. End with a line `Verdict:` and {words}."}  # fmt: skip
WORDS = ("A", "B", "TIE")
LAST = re.compile(r"verdict\W*(\w+)(?:\s*/\s*\d+)?\W*$", re.IGNORECASE)
ALONE = re.compile(r"\W*(?:(?:the|answer|verdict|rating|score|is)\W+)*(\w+)(?:\s*/\s*\d+)?\W*", re.IGNORECASE)
WORTH = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True, kw_only=True)
class Config(_rows.Rows):
    """Knobs of judging."""

    data: Annotated[Path, "JSONL with {prompt, response_a, response_b}, or {prompt, response}; label?."]
    mode: Annotated[Literal["pairwise", "rate"], "Compare two answers, or rate one."] = "pairwise"
    rubric: Annotated[Path | None, "Text file that says what a good answer is."] = None
    low: Annotated[int, "Lowest rating."] = 1
    high: Annotated[int, "Highest rating."] = 10
    reason: Annotated[bool, "Let the judge reason before its verdict; nothing holds it to a form then."] = (
        False
    )
    judged: Annotated[str, "Who wrote the responses (response_a), in the rows; empty: the judge."] = ""
    max_tokens: Annotated[int, "Longest verdict in tokens; 0: 16, with --reason 1024."] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens < 0:
            raise ConfigError(f"'max_tokens' must not be negative, got {self.max_tokens}")
        if not 0 <= self.low < self.high:
            raise ConfigError(f"a scale from {self.low} to {self.high} is none", hint="0 <= low < high")
        if self.mode == "pairwise" and (self.low, self.high) != (1, 10):
            raise ConfigError("'low' and 'high' mean nothing to pairs", hint="add --mode rate")

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What a judge can say."""
        ratings = tuple(str(n) for n in range(self.low, self.high + 1))
        return WORDS if self.mode == "pairwise" else ratings


def load(config: Config) -> Examples:
    """A question for each rating, two for each pair: response_a first, then response_b first."""
    rubric = _rubric(config)

    def item(row: dict[str, Any]) -> dict[str, Any]:
        keys = ("prompt", "response") if config.mode == "rate" else ("prompt", "response_a", "response_b")
        return {key: _rows.text(row, key) for key in keys} | {"label": _label(row.get("label"), config)}

    found = _rows.load(config, item, SHAPES[config.mode])
    how = HOW[config.reason].format(words=_listed(config.verdicts))
    asked = {"rubric": rubric, "how": how, "low": config.low, "high": config.high}
    items: list[dict[str, Any]] = []
    for one in found.items:
        orders = [("", {"response": one.get("response")})]
        if config.mode == "pairwise":
            a, b = one["response_a"], one["response_b"]
            orders = [("ab", {"first": a, "second": b}), ("ba", {"first": b, "second": a})]
        for order, shown in orders:
            text = ASK[config.mode].format(prompt=one["prompt"], **shown, **asked)
            told = {"row": one["id"], "order": order, "label": one["label"], "least": config.verdicts[0]}
            items.append({"id": one["id"] + order, "messages": _rows.question(text), **told})
    return _rows.of(items, found.notes)


def _rubric(config: Config) -> str:
    if config.rubric is None:
        return ""
    try:
        return config.rubric.read_text(encoding="utf-8").strip() + "\n\n"
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the rubric {config.rubric}: {error}") from error


def _listed(words: Sequence[str]) -> str:
    return f"a number from {words[0]} to {words[-1]}" if len(words) > 3 else f"{words[0]}, {words[1]} or TIE"


def _label(given: Any, config: Config) -> Any:
    if given is None:
        return None
    if config.mode == "pairwise" and str(given).strip().lower() in WORTH:
        return str(given).strip().lower()
    if config.mode == "rate" and isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    raise DataError(f"the label {given!r} is no verdict", hint=SHAPES[config.mode])


def gold(example: dict[str, Any]) -> str:
    """The verdict of the label; that of response_a, or the lowest rating, where there is none."""
    label = example["label"]
    if not example["order"]:
        return example["least"] if label is None else str(int(label))
    label = label or "a"
    return "TIE" if label == "tie" else "A" if example["order"].startswith(label) else "B"


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """See the head of this file; DataError where no verdict can be read."""
    clock = Clock()
    held = () if config.reason else config.verdicts
    sampling = dataclasses.replace(GREEDY, choices=held)
    most = config.max_tokens or (1024 if config.reason else 16)
    replies = _rows.answers(endpoint, examples, most, sampling)
    said = [verdict(reply, config.verdicts, reasoned=config.reason) for reply in replies]
    pairs = config.mode == "pairwise"
    step = 2 if pairs else 1
    found = [
        (_pair if pairs else _rating)(examples.items[i], replies[i : i + step], said[i : i + step])
        for i in range(0, len(said), step)
    ]
    judged = [one for one in found if one["readable"]]
    if not judged and not any(one.get("error") for one in found):
        raise DataError(
            f"{endpoint.name} gave no verdict that can be read; one is {replies[0].text[:60]!r}",
            hint="a judge answers with a word of the scale; --reason asks it to end with one",
        )
    worse = {kind: sum(one["finish_reason"] == kind for one in found) for kind in ("error", "length")}
    unreadable = len(found) - len(judged) - worse["error"]
    who = {"name": endpoint.name, "path": endpoint.path, "model_hash": endpoint.model_hash}
    counts = collections.Counter(one["outcome"] for one in judged)
    told = {"judge": who, "unreadable": unreadable, "outcomes": {str(k): n for k, n in counts.items()}}
    settings = _rows.settings(config, examples, **told)
    at = (clock.seconds(), examples.version)
    rows = _pair_rows(endpoint, judged, at) if pairs else _rating_rows(endpoint, judged, at)
    named = {"model_name": config.judged, "model_path": "", "model_hash": None} if config.judged else {}
    more = {"settings": settings, "n_failed": worse["error"], "n_truncated": worse["length"]}
    return SuiteResult(rows=[dataclasses.replace(row, **more, **named) for row in rows], examples=found)


def verdict(reply: Reply, words: Sequence[str], *, reasoned: bool = False) -> str | None:
    """Which of the words an answer is; None where it is none. `reasoned`: it ends with one."""
    found = (LAST.search if reasoned else ALONE.fullmatch)(reply.answer)
    word = found.group(1).upper() if found and not reply.error else ""
    return word if word in words else None


def _worst(replies: Sequence[Reply]) -> Reply:
    return min(replies, key=lambda reply: ("error", "length").index(reply.finish_reason)
               if reply.finish_reason in ("error", "length") else 2)  # fmt: skip


def _pair(item: dict[str, Any], replies: Sequence[Reply], said: Sequence[str | None]) -> dict[str, Any]:
    names = [{"A": order[0], "B": order[1], "TIE": "tie"} for order in ("ab", "ba")]
    verdicts = [name.get(word or "", "") for name, word in zip(names, said)]
    readable = all(verdicts)
    outcome = verdicts[0] if readable and verdicts[0] == verdicts[1] else "tie"
    first, second = (sum(word == place for word in said) for place in ("A", "B"))
    told = {"readable": readable, "verdicts": verdicts, "outcome": outcome, "win": WORTH[outcome]}
    told |= {"same": verdicts[0] == verdicts[1], "first": first, "second": second, "label": item["label"]}
    right = readable and (outcome == item["label"] if item["label"] else told["same"])
    return record(item["row"], right, _worst(replies), **told, got=[reply.text for reply in replies])


def _pair_rows(endpoint: Endpoint, judged: list[dict[str, Any]], at: Any) -> list[EvalRow]:
    rows = [
        mean(endpoint, "judge", "win_rate", judged, *at, key="win"),
        share(endpoint, "judge", "order_agreement", judged, *at, key="same"),
        of_all(endpoint, "judge", "position_bias", judged, *at, "absolute_mean", _bias, bounded=False),
    ]
    if labelled := [one for one in judged if one["label"]]:
        rows.append(share(endpoint, "judge", "label_agreement", labelled, *at))
        rows.append(of_all(endpoint, "judge", "label_kappa", labelled, *at, "kappa", _both, bounded=False))
    return rows


def _bias(one: dict[str, Any]) -> float:
    """Of a pair that is asked twice: 1 where the first place won both times, -1 the second."""
    return (one["first"] - one["second"]) / 2


def _both(one: dict[str, Any]) -> tuple[Any, Any]:
    return one["outcome"], one["label"]


def _rating(item: dict[str, Any], replies: Sequence[Reply], said: Sequence[str | None]) -> dict[str, Any]:
    rating = None if said[0] is None else int(said[0])
    told = {"readable": rating is not None, "outcome": rating, "label": item["label"]}
    right = rating is not None and (item["label"] is None or rating == item["label"])
    return record(item["row"], right, replies[0], **told, got=replies[0].text)


def _rating_rows(endpoint: Endpoint, judged: list[dict[str, Any]], at: Any) -> list[EvalRow]:
    rows = [mean(endpoint, "judge", "mean_rating", judged, *at, key="outcome", bounded=False)]
    if labelled := [one for one in judged if one["label"] is not None]:
        rows.append(share(endpoint, "judge", "label_agreement", labelled, *at))
        rows.append(
            of_all(endpoint, "judge", "label_spearman", labelled, *at, "spearman", _both, bounded=False)
        )
    return rows
