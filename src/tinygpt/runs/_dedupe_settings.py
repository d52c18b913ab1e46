"""The settings of `dedupe`, and what does not go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core.config import refuse_idle, to_dict
from tinygpt.core.errors import ConfigError
from tinygpt.data import minhash, ngram
from tinygpt.data.contamination import Evaluation, Settings
from tinygpt.data.sketch import Sketcher
from tinygpt.runs import _data_out

# Where data lie and how they are worked on decides nothing of what they are.
ASIDE = ("paths", "out", "report", "workers", "force", "strict", "decontaminate")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is compared, how alike is too alike, and what stays."""

    paths: Annotated[tuple[Path, ...], "Files of rows or text, folders or patterns, read as one."]
    out: Annotated[Path, "File to write: rows as JSON lines, lines and documents as text."]
    unit: Annotated[
        Literal["auto", "line", "doc", "file", "row"],
        "What is compared: lines, documents between blank lines, whole files, rows; auto: rows of files that "
        "have them, lines of others.",
    ] = "auto"
    field: Annotated[str, "Compare this field of a row; by default all that it says."] = ""
    normalise: Annotated[
        tuple[str, ...], "What does not count: forms of characters, case, spaces, marks; or none."
    ] = ("nfkc", "case", "space")
    min_len: Annotated[int, "Leave out what has fewer letters than this, once normalised."] = 0
    near_dup: Annotated[bool, "Near duplicates too, by MinHash (extra: dedupe)."] = False
    near_threshold: Annotated[float, "Least Jaccard similarity of shingles that is a duplicate."] = 0.85
    minhash_perms: Annotated[int, "Slots of a MinHash signature; more find candidates more sharply."] = 64
    shingle: Annotated[int, "Words of a shingle."] = 5
    keep: Annotated[Literal["first", "longest", "best"], "Which of a cluster stays."] = "first"
    score_field: Annotated[str, "Field with the number that --keep best goes by; the highest stays."] = ""
    decontaminate: Annotated[
        tuple[Path, ...], "Evaluation files; what shares a run of words with one of their examples goes."
    ] = ()
    run_words: Annotated[int, "Words in a row that count as shared with an evaluation."] = 13
    least_words: Annotated[int, "Shorter texts of an evaluation are too common to look for."] = 5
    most_shared: Annotated[int, "A run that more examples than this share is an instruction."] = 10
    report: Annotated[Path | None, "Write clusters and contaminated units here, as JSON lines."] = None
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*"
    exclude: Annotated[tuple[str, ...], "File and folder names to leave out."] = ()
    strict: Annotated[bool, "Refuse rows that cannot be read, instead of counting them."] = False
    workers: Annotated[int, "Processes that hash texts; 0: as many as pay."] = 0
    force: Annotated[bool, "Replace an existing --out."] = False

    def __post_init__(self) -> None:
        least = {"min_len": 0, "minhash_perms": 1, "shingle": 1, "run_words": 1, "least_words": 1,
                 "most_shared": 1, "workers": 0}  # fmt: skip
        for name, limit in least.items():
            if (value := getattr(self, name)) < limit:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {limit}, got {value}")
        if not 0 < self.near_threshold <= 1:
            raise ConfigError(f"--near-threshold must be above 0 and at most 1, got {self.near_threshold}")
        if odd := set(self.normalise) - {*ngram.NORMAL, "none"}:
            raise ConfigError(
                f"--normalise {min(odd)} is unknown", hint=f"known: {', '.join(ngram.NORMAL)}, none"
            )
        if "none" in self.normalise and len(self.normalise) > 1:
            raise ConfigError("--normalise none stands alone", hint="leave it out, or the others")
        if (self.keep == "best") != bool(self.score_field):
            raise ConfigError("--keep best and --score-field need each other", hint="give both, or none")
        refuse_idle(self, dict.fromkeys(("near_threshold", "minhash_perms", "shingle"), "near_dup"))
        refuse_idle(self, dict.fromkeys(("run_words", "least_words", "most_shared"), "decontaminate"))

    def refuse(self, found: Sequence[Path]) -> None:
        """ConfigError where what is written would take the place of something else."""
        written = {"--out": self.out, "--report": self.report}
        _data_out.refuse(written, (*found, *self.decontaminate), force=self.force)

    def refuse_of(self, unit: str) -> None:
        """ConfigError for settings of rows where there are none."""
        for name, value in {"field": self.field, "score-field": self.score_field}.items():
            if value and unit != "row":
                raise ConfigError(
                    f"--{name} {value} means nothing: a {unit} is compared as a whole", hint="leave it out"
                )

    def examples(self) -> Settings:
        """How examples of an evaluation are looked for."""
        return Settings(words=self.run_words, least=self.least_words, most_shared=self.most_shared)

    def sketcher(self, given: Evaluation | None) -> Sketcher:
        """How texts are hashed; ConfigError or DependencyError where near duplicates cannot be found."""
        bands, rows = 0, 0
        if self.near_dup:
            minhash.library()
            bands, rows = minhash.split(self.near_threshold, self.minhash_perms)
        return Sketcher(
            normalise=self.normalise, shingle=self.shingle, slots=self.minhash_perms, bands=bands, rows=rows,
            evaluation=given,
        )  # fmt: skip

    def told(self, unit: str) -> dict[str, Any]:
        """The settings that decide what the data are, for the card."""
        return {key: value for key, value in to_dict(self).items() if key not in ASIDE} | {"unit": unit}
