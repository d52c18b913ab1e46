"""Settings of runs that learn from rows: conversations, questions with answers, plain text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tinygpt.core.errors import ConfigError
from tinygpt.data.source import chat
from tinygpt.data.template import _choice
from tinygpt.runs._epochs import Epochs
from tinygpt.train.objective import response


@dataclass(frozen=True, kw_only=True)
class Conversations(Epochs):
    """What is read, what of it is learned, and how it is laid into rows."""

    data: Annotated[
        tuple[Path, ...],
        "Rows: .jsonl, .json, .parquet, .csv or .tsv, may be packed; may be repeated. path:weight mixes.",
    ]
    map: Annotated[tuple[str, ...], "Columns to rename, new=old,...; old may be a.b."] = ()
    learn: Annotated[
        Literal["answers", "last", "all"],
        "Learn the assistant's tokens, those of its last turn, or every token.",
    ] = "answers"
    prompt_weight: Annotated[
        float,
        "Weight of the prompt's tokens beside the answers', which have 1; from scratch 0.1 to 0.3 helps.",
    ] = 0.0
    template: Annotated[str, _choice.HELP, _choice.TEMPLATES] = _choice.AUTO
    truncate: Annotated[
        Literal["left", "right", "drop"],
        "What an example longer than a row loses: its beginning, its end, or all of it.",
    ] = "left"
    pack: Annotated[
        chat.Pack,
        "How examples are laid into rows: several where they fit best, several in their order, one a row "
        "among rows of few widths, one a row. auto: best_fit, or bucket where a model cannot keep "
        "the examples of a row apart. sample is best_fit, sequence is sequential.",
    ] = "auto"
    length_bucket: Annotated[
        int | None, "Widths of rows at most with --pack bucket; not given: 16, the most."
    ] = None
    held_out: Annotated[float, "Fraction of the rows kept for evaluation."] = 0.05
    val_data: Annotated[tuple[Path, ...], "Rows to evaluate on, in place of --held-out."] = ()
    strict: Annotated[
        bool,
        "Refuse bad rows, answers that are too long and rows of --val-data that are learned, instead of "
        "counting them.",
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        response.Config(prompt_weight=self.prompt_weight)
        if self.prompt_weight and self.learn == "all":
            raise ConfigError(
                "prompt_weight says nothing where all tokens are learned", hint="leave one of them out"
            )
        if self.sample_every and self.sample_prompt is None:
            raise ConfigError("--sample-every needs a request to answer", hint="add --sample-prompt TEXT")
        self.rows()

    def rows(self) -> chat.Config:
        """The settings of the source."""
        return chat.Config(
            paths=self.data, map=self.map, learn=self.learn, template=self.template, truncate=self.truncate,
            pack=self.pack, length_bucket=self.length_bucket, held_out=self.held_out,
            val_paths=self.val_data, strict=self.strict,
        )  # fmt: skip
