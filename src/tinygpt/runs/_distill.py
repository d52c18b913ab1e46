"""Settings of a distillation: the student, the teacher, how the two are compared, and on what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinygpt.core.config import Pick, refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family
from tinygpt.data.source import text
from tinygpt.distill import distillation, on_policy
from tinygpt.runs._hints import Hinted
from tinygpt.runs._teaching import Teaching

LOSSES = Family("tinygpt.distill.divergence", verb="losses")
# Settings of rows that say nothing about plain text.
OF_ROWS = (
    "map", "learn", "prompt_weight", "template", "truncate", "pack", "length_bucket", "val_data",
    "rationale_weight",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(Hinted, Teaching):
    """Settings of a distillation."""

    base: Annotated[
        Path | None, "Student to tune: a model, run or specialist directory; not given: a fresh model."
    ] = None
    loss: Annotated[Pick, "What makes the student's distributions like the teacher's.", LOSSES] = Pick(
        "forward_kl"
    )
    temperature: Annotated[float, "What both distributions are flattened by."] = 1.0
    alpha: Annotated[float, "Share of the teacher in the loss; the data's own tokens have the rest."] = 0.9
    on_policy: Annotated[
        float, "Share of the steps whose answers the student writes itself, for the teacher to judge (GKD)."
    ] = 0.0
    on_policy_temperature: Annotated[float, "How freely it writes them."] = 1.0
    data: Annotated[
        tuple[Path, ...],
        "Rows: .jsonl, .json, .parquet, .csv or .tsv, may be packed; may be repeated. path:weight mixes.",
    ] = ()
    corpus: Annotated[
        tuple[Path, ...],
        "In place of --data, plain text: files, folders or patterns; name=path:weight mixes several.",
    ] = ()
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    exclude: Annotated[
        tuple[str, ...], "File and folder names to leave out, for example site-packages,test_*."
    ] = ()
    field: Annotated[str, "Which field of .jsonl and .parquet rows holds the text."] = "text"
    workers: Annotated[int, "Processes that tokenise text; 0: as many as pay."] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mixed()
        self.writing()
        self.check_teacher(self.loss.name)
        refuse_idle(self, dict.fromkeys(("glob", "exclude", "field", "workers"), "corpus"))
        refuse_idle(self, {"on_policy_temperature": "on_policy"})
        if self.on_policy and (self.cache_teacher is not None or not self.alpha):
            why = "--alpha 0 does not hear it" if not self.alpha else "a cache knows the data's answers alone"
            raise ConfigError(f"--on-policy asks the teacher, and {why}", hint="leave one out")
        if self.hint is not None and self.cache_teacher is not None:
            raise ConfigError("--hint looks into the teacher, and a cache keeps none", hint="leave one out")
        if self.corpus and self.data:
            raise ConfigError("--data has rows, --corpus plain text", hint="leave one of them out")
        if self.corpus:
            refuse_idle(self, dict.fromkeys(OF_ROWS, "data"))

    def mixed(self) -> distillation.Config:
        """How labels and teacher are mixed."""
        return distillation.Config(
            temperature=self.temperature, alpha=self.alpha, prompt_weight=self.prompt_weight,
            z_loss=self.z_loss,
        )  # fmt: skip

    def writing(self) -> on_policy.Config:
        """How often the student writes, and how."""
        return on_policy.Config(share=self.on_policy, temperature=self.on_policy_temperature)

    def words(self) -> text.Config:
        """The settings of the source of plain text."""
        return text.Config(
            paths=self.corpus, glob=self.glob, exclude=self.exclude, held_out=self.held_out,
            strict=self.strict, field=self.field, workers=self.workers,
        )  # fmt: skip
