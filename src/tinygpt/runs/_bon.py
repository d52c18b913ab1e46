"""Settings of a choice among several answers, what is asked, and what the best of n is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.core.family import Family
from tinygpt.data import rows
from tinygpt.data.source._asked import SHAPES, asked
from tinygpt.eval.verifier._candidate import Case
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.runs._adapters import Adapters

VERIFIERS = Family("tinygpt.eval.verifier")
# What each verifier is told, by the setting that says it.
TOLD: dict[str, dict[str, str]] = {
    "self": {},
    "corpus_ppl": {"corpus": "corpus", "corpus_model": "model"},
    "command": {"command": "command", "seconds": "seconds"},
    "judge": {"judge": "judge", "judge_name": "name", "seconds": "seconds"},
    "reward": {"reward_fn": "reward_fn"},
}


@dataclass(frozen=True, kw_only=True)
class Config(SampleConfig, Adapters):
    """Settings of `bon`."""

    model: Annotated[Path, "A model, run or specialist directory."]
    prompt: Annotated[str | None, "Text to continue."] = None
    data: Annotated[
        tuple[Path, ...], "Or JSONL files of prompts; answers in them show how many are solved."
    ] = ()
    n: Annotated[int, "Answers to a prompt."] = 16
    scan: Annotated[
        tuple[str, ...], "Numbers of answers to compare, as 1,2,4,8; the largest replaces --n."
    ] = ()
    verifier: Annotated[Literal["self", "corpus-ppl", "command", "judge", "reward"], "Who chooses."] = "self"
    corpus: Annotated[Path | None, "For corpus-ppl: text whose byte n-grams are counted."] = None
    corpus_model: Annotated[Path | None, "For corpus-ppl: a model trained on the corpus, in its place."] = (
        None
    )
    command: Annotated[str, "For command: reads an answer on stdin; exits with 0, or prints a number."] = ""
    judge: Annotated[str, "For judge: URL of an OpenAI-compatible server, or a model directory."] = ""
    judge_name: Annotated[str, "For judge: the server's name for the model."] = "default"
    reward_fn: Annotated[str, "For reward: a .toml or .json file of dimensions, or file.py:function."] = ""
    seconds: Annotated[float, "For command and judge: longest time for an answer."] = 30.0
    max_tokens: Annotated[int, "Longest answer in tokens."] = 30
    seed: Annotated[int | None, "Same seed, same answers."] = 42
    out: Annotated[Path | None, "JSON file for the result; the curve of --scan goes beside it, as .svg."] = (
        None
    )

    def __post_init__(self) -> None:
        SampleConfig.__post_init__(self)
        Adapters.__post_init__(self)
        if (self.prompt is None) == (not self.data):
            raise ConfigError(
                "bon answers a prompt or the rows of a file", hint="give either --prompt or --data"
            )
        if odd := next((text for text in self.scan if not text.isdecimal()), None):
            raise ConfigError(f"--scan: '{odd}' is no number of answers", hint="write it as 1,2,4,8")
        if self.n < 1 or 0 in self.counts:
            raise ConfigError("--n and --scan must be at least 1")
        for name in dict.fromkeys(n for told in TOLD.values() for n in told):
            if name not in TOLD[self.kind] and getattr(self, name) != getattr(type(self), name):
                raise ConfigError(
                    f"--{name.replace('_', '-')} says nothing to the verifier '{self.verifier}'",
                    hint="leave it out",
                )
        if self.out is not None and (self.out.is_dir() or self.out.suffix == ".svg"):
            raise ConfigError(f"--out {self.out} cannot be the JSON file", hint="name it as result.json")
        if self.temperature == 0 and self.most > 1:
            raise ConfigError("--temperature 0 gives the same answer each time", hint="raise it")

    @property
    def kind(self) -> str:
        """The verifier's file."""
        return self.verifier.replace("-", "_")

    @property
    def most(self) -> int:
        """How many answers are drawn to a prompt."""
        return max(self.counts, default=self.n)

    @property
    def counts(self) -> list[int]:
        """The numbers of --scan, from the smallest."""
        return sorted({int(text) for text in self.scan})


def cases(config: Config, engine: Engine, events: Events) -> list[Case]:
    if config.prompt is not None:
        ids = engine.encode(config.prompt)
        engine.room(ids, 1)
        return [Case(prompt=config.prompt, text=config.prompt, ids=ids)]
    found: list[Case] = []
    for path in config.data:
        used, report = rows.read(path, asked, known=SHAPES)
        if report.n_bad:
            events.note(f"{path}: {report.sentence()}", level="warning")
        for one in used:
            ids, text = engine.encode_chat(one.prompt, one.tools), one.prompt[-1]["content"]
            found.append(Case(prompt=one.prompt, text=text, ids=ids, expected=one.expected, row=one.row))
    fitting = [case for case in found if len(case.ids) < engine.context]
    if len(fitting) < len(found):
        events.note(
            f"{len(found) - len(fitting)} prompts that do not fit the context were left out", level="warning"
        )
    if not fitting:
        raise ConfigError(f"no prompt fits a context of {engine.context} tokens", hint="shorten them")
    return fitting


def point(scored: Sequence[tuple[list[float], list[bool] | None]], k: int) -> dict[str, float]:
    """What the best of k is worth: the mean over all choices of k of the answers that were drawn, which
    needs no draws of its own. The answer of rank i (from 1, the worst) is the best of a choice in C(i - 1, k
    - 1) of C(N, k)."""
    totals, solved = list[float](), list[float]()
    for scores, right in scored:
        n = len(scores)
        order = sorted(range(n), key=lambda i: scores[i])
        shares = [math.comb(rank, k - 1) / math.comb(n, k) for rank in range(n)]
        totals.append(sum(share * scores[i] for share, i in zip(shares, order) if share))
        if right is not None:
            solved.append(sum(share * right[i] for share, i in zip(shares, order)))
    found: dict[str, float] = {"n": k, "score": sum(totals) / len(totals)}
    return found | ({"solved": sum(solved) / len(solved)} if solved else {})
