"""Pretrain: train a fresh model, or go on with one, on plain text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.source import text
from tinygpt.model import checkpoint
from tinygpt.runs import _directory, _pieces, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._settings import FreshModel
from tinygpt.train.loop import Result
from tinygpt.train.objective import next_token


@dataclass(frozen=True, kw_only=True)
class Config(FreshModel):
    """Settings of a pretraining run."""

    corpus: Annotated[
        tuple[Path, ...], "Text files, .jsonl files with {text} rows, or folders; may be repeated."
    ]
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    exclude: Annotated[
        tuple[str, ...], "File and folder names to leave out, for example site-packages,test_*."
    ] = ()
    held_out: Annotated[float, "Fraction of the bytes, whole files at the end, kept for evaluation."] = 0.02
    strict: Annotated[bool, "Refuse files and rows that cannot be read, instead of counting them."] = False


def run(config: Config, events: Events) -> Result:
    """Train and leave `out/final`; the last checkpoint in `out/steps` can be resumed."""
    if not config.corpus:
        raise ConfigError("there is nothing to train on", hint="give --corpus a file or a folder")
    directory = RunDirectory("train", config)
    base = None
    if config.base is not None:
        loaded, tokenizer = _pieces.open_model(config.base)
        base, model = loaded.path, loaded.model
    else:
        tokenizer = _pieces.open_tokenizer(config.tokenizer)
        model = config.fresh(tokenizer.vocab_size, directory.seed)
    length = config.row_length(model.config, whole=True)
    source = text.build(
        text.Config(
            paths=config.corpus, glob=config.glob, exclude=config.exclude, held_out=config.held_out,
            strict=config.strict,
        ),
        tokenizer, length=length, batch_size=config.amounts.batch, seed=directory.seed, events=events,
    )  # fmt: skip

    def write(path: Path, **parts: Any) -> Path:
        return checkpoint.save(
            path,
            model,
            write_tokenizer=tokenizer.save,
            ids=_pieces.ids(tokenizer),
            stop_ids=tokenizer.stop_ids,
            **parts,
        )

    def resume(path: Path) -> None:
        checkpoint.fill(model, checkpoint.load(path).tensors(), str(path))

    facts = {"parameters": _pieces.n_parameters(model), **source.describe()}
    return _train.train(
        directory,
        source=source,
        held_out=source.held_out,
        objective=next_token.build(model, next_token.Config(z_loss=config.z_loss)),
        inputs=_directory.inputs(source, tokenizer, base),
        write=write,
        resume=resume,
        events=events,
        facts=facts,
    )
