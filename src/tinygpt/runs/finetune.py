"""Finetune: go on with a base on plain text, as an adapter or in all weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.source import text
from tinygpt.runs import _directory, _pieces, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._epochs import Epochs
from tinygpt.train.loop import Result
from tinygpt.train.objective import next_token
from tinygpt.train.world import world


@dataclass(frozen=True, kw_only=True)
class Config(Epochs):
    """Settings of a tuning run on plain text."""

    corpus: Annotated[
        tuple[Path, ...],
        "Text, .jsonl or .parquet files, folders or patterns; may be repeated. name=path:weight mixes them.",
    ]
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    exclude: Annotated[
        tuple[str, ...], "File and folder names to leave out, for example site-packages,test_*."
    ] = ()
    field: Annotated[str, "Which field of .jsonl and .parquet rows holds the text."] = "text"
    held_out: Annotated[float, "Fraction of the bytes, whole files at the end, kept for evaluation."] = 0.02
    strict: Annotated[bool, "Refuse files and rows that cannot be read, instead of counting them."] = False
    workers: Annotated[int, "Processes that tokenise; 0: as many as pay."] = 0
    base: Annotated[Path | None, "Model to tune: a model, run or specialist directory."] = None

    def words(self) -> text.Config:
        """The settings of the source."""
        return text.Config(
            paths=self.corpus, glob=self.glob, exclude=self.exclude, held_out=self.held_out,
            strict=self.strict, field=self.field, workers=self.workers,
        )  # fmt: skip


def run(config: Config, events: Events) -> Result:
    """Tune and leave `out/final`: an adapter directory in PEFT's format, or a model directory."""
    if config.base is None:
        raise ConfigError(
            "there is no base to tune", hint="name a model, or train a fresh one: tinygpt train --corpus FILE"
        )
    if not config.corpus:
        raise ConfigError("there is nothing to learn from", hint="give --corpus a file or a folder")
    directory = RunDirectory("finetune", config, world())
    opened = config.open(directory.seed)
    model, tokenizer, base = opened
    source = text.build(
        config.words(),
        tokenizer,
        length=config.row_length(model.config, whole=config.whole),
        batch_size=config.amounts.batch,
        seed=directory.seed,
        events=events,
        packs=getattr(model, "packs", True),
    )
    directory.config = config.counted(source)
    write, resume = config.learned(opened, directory.seed)
    facts = {"learned_parameters": _pieces.n_parameters(model), **source.describe()}
    facts["epochs"] = source.epochs(directory.config.amounts.steps)
    return _train.train(
        directory, source=source, held_out=source.held_out,
        objective=next_token.build(model, next_token.Config(z_loss=config.z_loss)),
        inputs=_directory.inputs(source, tokenizer, base), write=write, resume=resume, events=events,
        facts=facts, tokenizer=tokenizer,
    )  # fmt: skip
