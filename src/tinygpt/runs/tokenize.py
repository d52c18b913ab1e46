"""Train a tokenizer on text files or on the rows of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import files
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.data import bpe, corpus, rows, table
from tinygpt.data.source import text
from tinygpt.data.template import chatml
from tinygpt.data.template._spans import join
from tinygpt.data.tokenizer.hf import HFTokenizer


@dataclass(frozen=True, kw_only=True)
class Config(bpe.Config):
    """What to train a tokenizer on; the rest are the trainer's own settings."""

    out: Annotated[Path, "Directory to write tokenizer.json and tokenizer_config.json into."]
    corpus: Annotated[
        tuple[Path, ...], "Text, .jsonl or .parquet files, folders or patterns; may be repeated."
    ]
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    exclude: Annotated[
        tuple[str, ...], "File and folder names to leave out, for example site-packages,test_*."
    ] = ()
    field: Annotated[str, "Which field of .jsonl and .parquet rows holds the text."] = "text"
    held_out: Annotated[
        float,
        "Leave out the files at the end that fit into this fraction of the bytes: the text files that "
        "`train` holds out. Of rows, or of a single file, it holds out a part, which the tokenizer reads.",
    ] = 0.02
    force: Annotated[bool, "Replace an existing --out."] = False


def run(config: Config, events: Events) -> dict[str, Any]:
    """Train and save; returns the vocabulary size and the measured bytes per token on the training text."""
    from tinygpt.model import checkpoint  # here, since it loads MLX, which --help does without
    from tinygpt.runs._pieces import refuse_inside

    if not config.corpus:
        raise ConfigError("there is nothing to train on", hint="give --corpus a file or a folder")
    refuse_inside(config.out)
    files.refuse_existing(
        config.out, force=config.force, what="tokenizer directory", mark=files.MANIFEST, replaced={"": ()}
    )
    if Path.cwd().is_relative_to(config.out.resolve()):
        raise ConfigError(
            f"--out {config.out} is made or replaced as a whole, and the current directory is in it",
            hint="choose another --out, or start from elsewhere",
        )
    settings = text.Config(
        paths=config.corpus, glob=config.glob, exclude=config.exclude, held_out=config.held_out,
        field=config.field,
    )  # fmt: skip
    corpus.refuse_mixture(config.corpus)
    apart = [replace(settings, paths=(c.path,)) for c in corpus.corpora(config.corpus)] or [settings]
    found = [f for one in apart for f in without_held_out(corpus.find(one), config.held_out)]
    corpus.refuse_field(config.field, found)
    total = sum(f.stat().st_size for f in found)
    trainer = {name: getattr(config, name) for name in bpe.Config.__dataclass_fields__}
    facts = corpus.new_facts()
    how = bpe.Config(**trainer)
    tokenizer = _trained(texts(found, facts, config.field), how, events, total, facts, config.field)
    text.refuse_bad(settings, facts, lambda file, found: texts([file], found, config.field))
    with files.atomic_directory(config.out, replace=config.force) as folder:
        tokenizer.save(folder)
        checkpoint.seal(folder, kind="tokenizer")  # what --force may replace later
    again = texts(found, corpus.new_facts(), config.field)
    sample = "".join(t for _, t in zip(range(200), again))[:1_000_000]
    return {
        "out": str(config.out), "vocab_size": tokenizer.vocab_size, "files": len(found), "bytes": total,
        "bytes_per_token": len(sample.encode()) / max(1, len(tokenizer.encode(sample))),
    }  # fmt: skip


def _trained(
    found: Iterator[str],
    settings: bpe.Config,
    events: Events,
    total: int,
    facts: dict[str, Any],
    field: str,
) -> HFTokenizer:
    """Train, and say what could not be read."""
    try:
        tokenizer = bpe.train_bpe(found, settings, events=events, n_bytes=total)
    except DataError as error:
        if not facts["first_bad"]:
            raise
        hint = text.about_field(facts["first_bad"], field) or "convert it to UTF-8"
        raise DataError(f"no text could be read: {facts['first_bad'][0]}", hint=hint) from error
    if facts["first_bad"]:
        left_out = f"{facts['bad_files']} files and {facts['bad_rows']} rows were left out"
        events.note(f"{left_out}: {'; '.join(facts['first_bad'][:3])}", level="warning")
    return tokenizer


def texts(found: list[Path], facts: dict[str, Any], field: str = "text") -> Iterator[str]:
    """Texts of files; rows of conversations as the template writes them. What cannot be read is counted in
    `facts`."""
    for file in found:
        if table.kind(file) == ".jsonl" and field == "text":
            bad: list[tuple[int, str]] = []
            yield from rows.each(file, _row_text, bad)
            facts["bad_rows"] += len(bad)
            facts["first_bad"] += [f"{file.name} line {line}: {reason}" for line, reason in bad[:3]]
        else:
            yield from corpus.documents(file, facts, field)


def _row_text(row: Any) -> str:
    if rows.shape(row) == "text":
        return rows.to_text(row)
    conversation = rows.to_messages(row)
    return join(chatml.render(conversation.messages, conversation.tools))


def without_held_out(found: list[Path], fraction: float) -> list[Path]:
    """The files without those at the end that a training run with the same fraction keeps for evaluation.
    What it holds out of a file, rows or the end of a single one, is not taken off."""
    budget = fraction * sum(f.stat().st_size for f in found)
    kept = list(found)
    while len(kept) > 1 and kept[-1].stat().st_size <= budget:
        budget -= kept.pop().stat().st_size
    return kept
