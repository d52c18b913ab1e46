"""Settings of `prep-data`, checked before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tinygpt.core.config import Pick, flag, refuse_idle
from tinygpt.core.errors import ConfigError, unknown
from tinygpt.data import review_rows
from tinygpt.data.stages import STAGES, Context, Scorer, Step
from tinygpt.runs._data_out import HELD_OUT
from tinygpt.runs._prep_sources import Origin


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `prep-data`."""

    sources: Annotated[tuple[Origin, ...], "Tables of a file: what is read."] = ()
    stages: Annotated[tuple[Pick, ...], "Tables of a file: what rows go through, in order.", STAGES] = ()
    bfcl: Annotated[tuple[Path, ...], "One more source: BFCL's data, a folder or a file."] = ()
    tau_bench: Annotated[Path | None, "One more source: a clone of tau-bench or tau2-bench."] = None
    github: Annotated[tuple[str, ...], "One more source: owner/repo."] = ()
    kinds: Annotated[tuple[str, ...], "Of --github: issues-prs, reviews, commits."] = ("issues-prs",)
    dedup: Annotated[bool, "One more stage: leave out what was there before."] = False
    out: Annotated[Path | None, "JSONL file to write; its card goes beside it."] = None
    format: Annotated[
        Literal["auto", "sft", "dpo", "plain", "any"], "What rows are made for; any: left as they are."
    ] = "auto"
    held_out: Annotated[float, f"Share of the rows that goes to NAME{HELD_OUT}."] = 0.0
    shuffle: Annotated[bool, "Shuffle the rows."] = True
    seed: Annotated[int, "Of the draws and the shuffle."] = 0
    limit: Annotated[int, "Rows in all at most, the held-out ones included; 0: all."] = 0
    resume: Annotated[bool, "Go on with what an interrupted command got from GitHub."] = False
    dry_run: Annotated[bool, "Read and count; write nothing."] = False
    force: Annotated[bool, "Replace an --out that tinygpt wrote."] = False

    def __post_init__(self) -> None:
        if wrong := next((kind for kind in self.kinds if kind not in review_rows.KINDS), None):
            raise unknown("kind", wrong, review_rows.KINDS)
        refuse_idle(self, {"kinds": "github"})
        if not self.origins:
            raise ConfigError(
                "no source is named", hint="--config FILE with [[sources]], or --bfcl, --github"
            )
        refuse_idle(self, {"kinds": "github"})
        if self.resume and not any(one.github for one in self.origins):
            raise ConfigError("--resume means nothing without a source of GitHub", hint="leave it out")
        if len({one.weight > 0 for one in self.origins}) > 1:
            raise ConfigError("some sources have a weight and some have none", hint="give each one a weight")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"--held-out must be at least 0 and below 1, got {self.held_out:g}")
        if self.limit < 0:
            raise ConfigError(f"{flag('limit')} must not be negative, got {self.limit}")
        if self.out is None and not self.dry_run:
            raise ConfigError("--out is needed: where the rows go", hint="or count first: --dry-run")

    @property
    def origins(self) -> tuple[Origin, ...]:
        """All sources, those of the flags last."""
        more = [Origin(bfcl=path) for path in self.bfcl]
        more += [Origin(tau_bench=self.tau_bench)] if self.tau_bench is not None else []
        more += [Origin(github=repo, kind=kind) for repo in self.github for kind in self.kinds]  # type: ignore[arg-type]
        return (*self.sources, *more)

    def steps(self) -> list[tuple[str, Step]]:
        """The stages by name, ready."""
        context = Context(seed=self.seed, classifier=_quality)
        picks = [*self.stages, *([Pick("exact", {}).resolve(STAGES, "dedup")] if self.dedup else [])]
        return [(pick.name, STAGES.load(pick.name).build(pick.options, context)) for pick in picks]


def _quality(path: Path) -> Scorer:
    """A classifier of train-quality-classifier; what opens it needs a back end, and is imported here."""
    from tinygpt.runs import _classifier

    return _classifier.load(path, "quality")
