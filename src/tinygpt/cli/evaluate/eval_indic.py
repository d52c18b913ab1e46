"""Score a model on benchmarks of Indian languages: MILU's exam questions, and XQuAD of IndicGenBench.

Example:

    tinygpt eval-indic runs/tutor/final --milu-data milu.jsonl --indicgen-data xquad_in.jsonl --out rows.jsonl
    tinygpt eval-indic runs/tutor/final --task milu --milu-data milu.jsonl --limit 500
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._rows import show
from tinygpt.cli._suite import ALSO
from tinygpt.core.errors import ConfigError
from tinygpt.runs.evaluate import SUITES, Asked, refuse_errors, run_suites

# What a task is measured by, and the setting that names its data.
TASKS = {"milu": ("milu", "milu_data"), "indicgenbench": ("xquad", "indicgen_data")}


@dataclass(frozen=True, kw_only=True)
class Config(Asked):
    """Settings of `eval-indic`."""

    task: Annotated[Literal["all", "milu", "indicgenbench"], "What is measured."] = "all"
    subtask: Annotated[Literal["xquad"], "Which part of IndicGenBench."] = "xquad"
    milu_data: Annotated[Path | None, "JSONL with {question, options, answer, language?}."] = None
    indicgen_data: Annotated[Path | None, "JSONL with {context, question, answers, language?}."] = None
    limit: Annotated[int, "Use the first so many rows of each; 0: all."] = 0
    max_tokens: Annotated[int, "Longest answer to a question of XQuAD, in tokens."] = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        for task, (_, data) in TASKS.items():
            flag, wanted = f"--{data.replace('_', '-')}", self.task in ("all", task)
            if wanted and getattr(self, data) is None:
                raise ConfigError(f"--task {self.task} needs {flag}", hint="or choose another --task")
            if not wanted and getattr(self, data) is not None:
                raise ConfigError(f"{flag} means nothing to --task {self.task}", hint="leave one out")

    @property
    def suites(self) -> dict[str, Any]:
        """The suites of the task, with their settings."""
        found: dict[str, Any] = {}
        for task, (suite, data) in TASKS.items():
            more = {"max_tokens": self.max_tokens} if suite == "xquad" else {}
            if self.task in ("all", task):
                found[suite] = SUITES.config(suite)(data=getattr(self, data), limit=self.limit, **more)
        return found


def call(config: Config, out: Output) -> None:
    rows = run_suites(config, config.suites, out.events())
    out.result([dataclasses.asdict(r) for r in rows], lambda: show(rows))
    refuse_errors(rows, config.max_errors)


main = from_config(
    Config, call, arguments=("model",), spares={"url": "model"}, also=ALSO | {"max_tokens": "max_new_tokens"}
)
