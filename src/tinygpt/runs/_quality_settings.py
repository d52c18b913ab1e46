"""The settings of `quality-filter`, and what does not go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinygpt.core.errors import ConfigError
from tinygpt.runs import _data_out


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is judged, by what, and what stays."""

    path: Annotated[Path, "File of rows, or of text with blank lines between documents."]
    classifier: Annotated[Path, "A classifier of train-quality-classifier."]
    out: Annotated[Path | None, "File for what stays."] = None
    score: Annotated[Path | None, "File for {doc_id, score} of every document, as JSON lines."] = None
    threshold: Annotated[float | None, "Keep what is at least this probable to be good; 0.5 unless told."] = (
        None
    )
    keep_percent: Annotated[float | None, "Keep this percentage, the best; instead of a threshold."] = None
    per_line: Annotated[bool, "Judge every line by itself, and keep the good ones."] = False
    field: Annotated[str, "Judge this field of a row; by default all that it says, or its text per line."] = (
        ""
    )
    max_docs: Annotated[int, "Read this many documents at most; 0: all."] = 0
    force: Annotated[bool, "Replace existing files."] = False

    def __post_init__(self) -> None:
        if self.out is None and self.score is None:
            raise ConfigError("--out or --score is needed", hint="what stays, or a score for each document")
        if self.threshold is not None and self.keep_percent is not None:
            raise ConfigError("--threshold and --keep-percent exclude each other", hint="leave one out")
        if self.out is None and (self.threshold is not None or self.keep_percent is not None):
            raise ConfigError("a threshold means nothing without --out", hint="add --out, or leave it out")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"--threshold must be between 0 and 1, got {self.threshold}")
        if self.keep_percent is not None and not 0 < self.keep_percent <= 100:
            raise ConfigError(f"--keep-percent must be above 0 and at most 100, got {self.keep_percent}")
        if self.max_docs < 0:
            raise ConfigError(f"--max-docs must be at least 0, got {self.max_docs}")
        _data_out.refuse({"--out": self.out, "--score": self.score}, (self.path,), force=self.force)
