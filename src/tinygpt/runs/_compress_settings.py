"""The settings of `compress`, and what does not go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which text is made shorter, for which question, how far, and by what."""

    query: Annotated[str, "The question that the text is to answer."] = ""
    document: Annotated[Path | None, "File of the text; - for standard input."] = None
    data: Annotated[Path | None, "Rows of {question, context, ...} instead; each gets a 'kept'."] = None
    kind: Annotated[
        Literal["bm25", "head", "lead"], "By shared words, by the reranker --model, or the beginning."
    ] = "bm25"
    model: Annotated[Path | None, "Reranker of --kind head: see rerank-train."] = None
    ratio: Annotated[float | None, "Share of the text's length to keep; not given: 0.5."] = None
    tokens: Annotated[int, "Keep at most so many tokens of --tokenizer instead."] = 0
    letters: Annotated[int, "Keep at most so many letters instead."] = 0
    tokenizer: Annotated[str, "Count lengths in its tokens: 'byte', a directory or tokenizer.json."] = ""
    neighbours: Annotated[
        float | None,
        "Part of a score that comes from the sentences beside; not given: 0.25 by bm25, 0 by head.",
    ] = None
    threshold: Annotated[float, "Leave out what scores less, from 0 to 1."] = 0.0
    max_sentences: Annotated[int, "Keep at most so many sentences; 0: no bound."] = 0
    out: Annotated[Path | None, "File for what is kept: text, or rows with --data."] = None
    force: Annotated[bool, "Replace an existing --out."] = False

    def __post_init__(self) -> None:
        asked = bool(self.query) or (self.kind == "lead" and self.document is not None)
        if asked == (self.data is not None) or (self.document is None) == (self.data is None):
            raise ConfigError("give --query and --in, or --data", hint="and not both")
        if sum((self.ratio is not None, bool(self.tokens), bool(self.letters))) > 1:
            raise ConfigError("--ratio, --tokens and --letters all say how much is kept", hint="leave one")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise ConfigError(f"--ratio must be above 0 and at most 1, got {self.ratio:g}")
        for name in ("tokens", "letters", "max_sentences"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"--{name.replace('_', '-')} must not be negative, got {getattr(self, name)}"
                )
        if self.tokens and not self.tokenizer:
            raise ConfigError("--tokens: of which tokenizer?", hint="add --tokenizer, or use --letters")
        if self.letters and self.tokenizer:
            raise ConfigError("--letters counts no tokens", hint="leave out --tokenizer, or use --tokens")
        if (self.kind == "head") != (self.model is not None):
            raise ConfigError("--kind head and --model go together", hint="rerank-train makes such a model")
        for name, least, value in (("neighbours", 0.0, self.neighbours), ("threshold", 0.0, self.threshold)):
            if value is not None and not least <= value < 1:
                raise ConfigError(f"--{name} must be at least 0 and below 1, got {value:g}")
        if self.kind == "lead" and (self.neighbours is not None or self.threshold):
            raise ConfigError("--kind lead scores nothing", hint="leave out --neighbours and --threshold")
        if self.kind == "lead" and self.query:
            raise ConfigError("--kind lead answers no question", hint="leave out --query")
        if self.data is not None and self.out is None:
            raise ConfigError("--data needs --out, where its rows go")
        refuse_idle(self, {"force": "out"})
        if self.out is not None and self.out.exists() and not self.force:
            raise ConfigError(f"{self.out} exists", hint="choose another, or pass --force")
