"""The settings of `traces-to-data`, and what does not go together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.agent.turn import REPAIR
from tinygpt.core.config import changed, flag, refuse_idle, to_dict
from tinygpt.core.errors import ConfigError
from tinygpt.data.traces._alike import Alike
from tinygpt.data.traces._mend import Mend
from tinygpt.data.traces._trace import Trace
from tinygpt.data.traces._values import FORMATS

JUDGE, SUCCESS = "judge", "success"  # rewards that a judge, or who said so, gives
# Ends that are no success, whatever was said before.
FAILED = (
    "steps", "budget", "context", "unparsable", "cancelled", "error", "unfinished", "length",
    "content_filter", "escalated", "deferred",
)  # fmt: skip
OUTCOMES = ("answered", "unknown", *FAILED)
# Where data lie decides nothing of what they are.
ASIDE = ("paths", "out", "dry_run", "force", "judge_seconds", "licence")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which traces are read, which of them are kept, and what rows they become."""

    paths: Annotated[tuple[Path, ...], "Files of traces, or folders of them, read at any depth."]
    out: Annotated[Path, "JSONL file for the rows, which sft and dpo read; its card lies beside it."]
    format: Annotated[str, "What the files are; auto: each says it.", FORMATS] = "auto"
    mode: Annotated[
        Literal["sft", "dpo", "kto"], "Conversations, pairs of a better and a worse one, or one with a label."
    ] = "sft"
    turns: Annotated[
        Literal["whole", "last"], "The whole conversation, or the system prompt and the last turn."
    ] = "whole"
    token_exact: Annotated[
        bool, "For sft: the very tokens that were read and written, which only the same tokenizer reads."
    ] = False
    task: Annotated[tuple[str, ...], "Only traces of these tasks."] = ()
    outcome: Annotated[
        tuple[str, ...],
        "Only traces that ended so; not given: for sft all but failures, for dpo and kto all.",
    ] = ()
    success_only: Annotated[bool, "Only traces that are a success."] = False
    success_at: Annotated[
        str, "What counts as success: DIM=x, a reward of at least x; not given: what the trace says."
    ] = ""
    min_reward: Annotated[tuple[str, ...], "Only traces whose reward DIM is at least x, as DIM=x,..."] = ()
    score_field: Annotated[
        str, "A field that is a reward of its own name: a column of a log, an attribute of a span."
    ] = ""
    judge_model: Annotated[
        str, "Who gives each trace a mark from 1 to 10, the reward 'judge': a URL or a model directory."
    ] = ""
    judge_name: Annotated[str, "With a URL: the server's name for the model."] = "default"
    judge_seconds: Annotated[float, "With a URL: longest time for a mark."] = 60.0
    by: Annotated[
        str, "For dpo: the reward by which traces are compared; not given: judge, or the mean of all."
    ] = ""
    margin: Annotated[float, "For dpo: how much better one of a pair must be."] = 0.0
    refused: Annotated[Literal["drop", "keep"], "Calls that the policy did not allow, with its answers."] = (
        "drop"
    )
    redacted: Annotated[Literal["keep", "drop"], "Traces of which secrets were taken out."] = "keep"
    tool_echo_drop: Annotated[bool, "Leave out texts that only repeat a call or a result."] = True
    near_dup: Annotated[bool, "Leave out near duplicates, by MinHash (extra: dedupe)."] = True
    minhash_threshold: Annotated[float, "Least Jaccard similarity of shingles that is a duplicate."] = 0.85
    minhash_shingle: Annotated[int, "Words of a shingle."] = 5
    minhash_perms: Annotated[int, "Slots of a MinHash signature."] = 64
    licence: Annotated[str, "Licence of the traces, for the card."] = ""
    dry_run: Annotated[bool, "Count, and write nothing."] = False
    force: Annotated[bool, "Replace an existing --out."] = False

    def __post_init__(self) -> None:
        _ = self.least, self.good
        if self.format != "auto":
            FORMATS.path(self.format)
        if self.token_exact and self.mode != "sft":
            raise ConfigError(f"--token-exact: {self.mode} reads text alone", hint="leave one of them out")
        for name in ("by", "margin"):
            if self.mode != "dpo" and getattr(self, name) != getattr(type(self), name):
                raise ConfigError(f"--{name} compares traces: it is for --mode dpo", hint="leave it out")
        if self.success_only and self.mode != "sft":
            raise ConfigError(
                f"--success-only: {self.mode} learns from failures, too", hint="leave one of them out"
            )
        if not 0 <= self.margin < math.inf:
            raise ConfigError(f"--margin must be at least 0, got {self.margin}")
        refuse_idle(self, {"judge_name": "judge_model", "judge_seconds": "judge_model"})
        served = not self.judge_model or "://" in self.judge_model
        if not served and (odd := changed(self, ("judge_name", "judge_seconds"))):
            raise ConfigError(f"{flag(odd)} says nothing to a model directory", hint="leave it out")
        if self.success_at and self.mode == "sft" and not self.success_only:
            raise ConfigError(
                "--success-at means nothing for sft without --success-only",
                hint="add it, or use --min-reward",
            )
        if self.success_at and self.mode == "dpo" and self.by != SUCCESS:
            raise ConfigError(
                f"--success-at means nothing for dpo without --by {SUCCESS}: rewards are compared",
                hint="add it, or leave --success-at out",
            )
        refuse_idle(
            self, dict.fromkeys(("minhash_threshold", "minhash_shingle", "minhash_perms"), "near_dup")
        )
        if not 0 < self.minhash_threshold <= 1:
            raise ConfigError(
                f"--minhash-threshold must be above 0 and at most 1, got {self.minhash_threshold}"
            )
        if self.minhash_shingle < 1 or self.minhash_perms < 1 or not self.judge_seconds > 0:
            raise ConfigError("--minhash-shingle, --minhash-perms and --judge-seconds must be positive")

    @property
    def least(self) -> dict[str, float]:
        """The least reward of each dimension."""
        return dict(_bound("--min-reward", text) for text in self.min_reward)

    @property
    def good(self) -> tuple[str, float] | None:
        """The reward from which a trace is a success; None: it says so itself."""
        return _bound("--success-at", self.success_at) if self.success_at else None

    @property
    def mend(self) -> Mend:
        return Mend(repair=REPAIR, refused=self.refused == "drop", echoes=self.tool_echo_drop)

    @property
    def alike(self) -> Alike:
        return Alike(threshold=self.minhash_threshold, shingle=self.minhash_shingle, slots=self.minhash_perms)

    def judged(self, trace: Trace) -> Trace:
        """The trace with the success that --success-at finds."""
        if self.good is None:
            return trace
        name, least = self.good
        value = trace.reward.get(name)
        return dataclasses.replace(trace, success=None if value is None else value >= least)

    def fault(self, trace: Trace) -> str:
        """Why a trace is left out whatever was said in it; "" where it is not."""
        if self.task and trace.task not in self.task:
            return "another task"
        if self.outcome and trace.outcome not in self.outcome:
            return f"ended: {trace.outcome}"
        if not self.outcome and self.mode == "sft" and trace.outcome in FAILED:
            return f"ended: {trace.outcome}"
        return "secrets were taken out of it" if self.redacted == "drop" and trace.redacted else ""

    def worth(self, trace: Trace, names: tuple[str, ...] | None = None) -> str:
        """Why its rewards are not enough; of these names alone, where they are given."""
        for name, least in self.least.items():
            if names is None or name in names:
                value = trace.reward.get(name)
                if value is None:
                    return f"no reward '{name}'"
                if value < least:
                    return f"reward '{name}' below {least:g}"
        return ""

    def score(self, trace: Trace) -> float | None:
        """What traces are compared by; None where there is nothing."""
        said = {} if trace.success is None else {SUCCESS: float(trace.success)}
        name = self.by or (JUDGE if self.judge_model else "")
        if name:
            return (said | trace.reward).get(name)
        found = list((trace.reward or said).values())
        return sum(found) / len(found) if found else None

    def told(self) -> Mapping[str, Any]:
        """The settings that decide what the data are, for the card."""
        return {key: value for key, value in to_dict(self).items() if key not in ASIDE}


def _bound(flag: str, text: str) -> tuple[str, float]:
    name, _, given = text.rpartition("=")
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not name.strip() or not math.isfinite(value):
        raise ConfigError(f"{flag} {text} is no DIM=x", hint="such as success=1 or judge=7")
    return name.strip(), value
