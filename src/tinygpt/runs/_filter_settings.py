"""The settings of `filter`, and what does not go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import refuse_idle, to_dict
from tinygpt.core.errors import ConfigError
from tinygpt.data import language, scrub
from tinygpt.data.filters import Filters, How
from tinygpt.data.where import Condition
from tinygpt.runs import _data_out

ASIDE = ("rows", "source", "out", "sidecar", "workers", "force", "dry_run")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is left out, what is taken out, and where it is told."""

    rows: Annotated[Path | None, "File of rows, or of lines of text."] = None
    source: Annotated[Path | None, "The same, as a flag."] = None
    out: Annotated[Path | None, "File to write: rows as JSON lines, lines as text."] = None
    pii: Annotated[
        tuple[str, ...],
        "Private data to look for; auto: all but names.",
    ] = ("auto",)
    drop_pii: Annotated[bool, "Leave out rows with private data, instead of putting [EMAIL] there."] = False
    secrets: Annotated[
        How, "Keys and passwords: put [SECRET] there, leave the row out, or look for none."
    ] = "redact"
    where: Annotated[
        tuple[str, ...],
        "Keep rows that meet this, such as score>=0.5, lang=en or text~word; may be repeated.",
    ] = ()
    min_chars: Annotated[int, "Leave out rows whose texts have fewer letters."] = 0
    max_chars: Annotated[int, "Leave out rows whose texts have more; 0: any number."] = 0
    language: Annotated[tuple[str, ...], "Keep these languages, such as en,de."] = ()
    language_min: Annotated[float, "Least probability of the language."] = 0.5
    repetition: Annotated[bool, "Leave out texts that repeat themselves, by the limits of Gopher."] = False
    toxicity: Annotated[
        float | None, "Leave out rows to which --toxicity-model gives this probability or more."
    ] = None
    toxicity_model: Annotated[
        Path | None, "A classifier of train-quality-classifier, whose positive class is toxic."
    ] = None
    sidecar: Annotated[Path | None, "Write what was done here: row, recogniser, place, reason."] = None
    workers: Annotated[int, "Processes; 0: as many as pay."] = 0
    dry_run: Annotated[bool, "Count, and write nothing."] = False
    force: Annotated[bool, "Replace an existing --out."] = False

    def __post_init__(self) -> None:
        for name in ("min_chars", "max_chars", "workers"):
            if (value := getattr(self, name)) < 0:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 0, got {value}")
        if 0 < self.max_chars < self.min_chars:
            raise ConfigError(f"--max-chars {self.max_chars} is below --min-chars {self.min_chars}")
        if not 0 <= self.language_min <= 1:
            raise ConfigError(f"--language-min must be between 0 and 1, got {self.language_min}")
        if self.toxicity is not None and not 0 < self.toxicity <= 1:
            raise ConfigError(f"--toxicity must be above 0 and at most 1, got {self.toxicity}")
        if (self.toxicity is None) != (self.toxicity_model is None):
            raise ConfigError(
                "--toxicity and --toxicity-model need each other",
                hint="train-quality-classifier --positive toxic.jsonl --negative fine.jsonl makes one",
            )
        if self.out is None and not self.dry_run:
            raise ConfigError("--out is missing", hint="name the file to write, or pass --dry-run")
        if (self.rows is None) == (self.source is None):
            raise ConfigError("one file is needed", hint="tinygpt filter rows.jsonl --out clean.jsonl")
        refuse_idle(self, {"language_min": "language"})
        if self.drop_pii and not scrub.named(self.pii):
            raise ConfigError("--drop-pii means nothing with --pii none", hint="leave one out")
        written = {"--out": self.out, "--sidecar": self.sidecar}
        _data_out.refuse(written, (self.file,), force=self.force or self.dry_run)

    @property
    def file(self) -> Path:
        """What is read."""
        found = self.rows or self.source
        assert found is not None
        return found

    def filters(self) -> Filters:
        """All that rows go through. ConfigError, DependencyError or CheckpointError where that cannot be."""
        names = scrub.named(self.pii)
        for name in names:  # what needs a package says so before anything is read
            scrub.PII.load(name).find("")
        scorer = None
        if self.toxicity_model:
            from tinygpt.runs import _classifier

            scorer = _classifier.toxic(self.toxicity_model)
        return Filters(
            where=tuple(map(Condition, self.where)), min_chars=self.min_chars, max_chars=self.max_chars,
            languages=language.checked(self.language) if self.language else (),
            language_min=self.language_min, repetition=self.repetition, scorer=scorer,
            most=self.toxicity or 1.0, secrets=self.secrets, pii=names, drop_pii=self.drop_pii,
        )  # fmt: skip

    def told(self) -> dict[str, Any]:
        """The settings that decide what the data are, for the card."""
        return {key: value for key, value in to_dict(self).items() if key not in ASIDE}
