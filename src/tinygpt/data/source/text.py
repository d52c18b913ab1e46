"""Plain text: files, or a folder with a glob; the model learns to continue each of them.

A document is one file, or one row of a .jsonl or .parquet file with a field {"text": ...}. All documents form
one stream with the end token between them, which is cut into rows; attention stays inside a document. Every
token is read once an epoch, in an order that the seed decides. The last files in sorted order are held out:
as many as fit into the fraction `held_out` of the bytes, and where not even the last one fits (one big file),
its last part. Tokens are cached on disk by content.

Several corpora are mixed when they are given as name=path or name=path:weight: the weights say which share of
the rows each gives, whatever its size (without weights: its share of the text). Each goes round its own
epochs and holds out its own part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.core.files import cache_dir
from tinygpt.data import bpe_dropout, cache, corpus, encode
from tinygpt.data.pack import Alone, Cut, Rows
from tinygpt.data.source._mixture import Mixture
from tinygpt.data.source._source import Source
from tinygpt.data.tokenizer._protocol import byte_lengths

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to read."""

    paths: Annotated[
        tuple[Path, ...],
        "Text, .jsonl or .parquet files, folders or patterns; name=path:weight mixes several.",
    ]
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    exclude: Annotated[
        tuple[str, ...], "File and folder names to leave out, for example site-packages,test_*."
    ] = ()
    field: Annotated[str, "Which field of .jsonl and .parquet rows holds the text."] = "text"
    held_out: Annotated[float, "Fraction of the bytes kept for evaluation."] = 0.02
    cache: Annotated[bool, "Keep the tokens on disk for the next run."] = True
    strict: Annotated[bool, "Refuse files and rows that cannot be read, instead of counting them."] = False
    bpe_dropout: Annotated[
        float, "Chance that a merge of the tokenizer fails in training (0.1 is usual); 0: off."
    ] = 0.0
    workers: Annotated[int, "Processes that tokenise; 0: as many as pay."] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.bpe_dropout <= 1:
            raise ConfigError(f"--bpe-dropout must be from 0 to 1, got {self.bpe_dropout}")
        if self.workers < 0:
            raise ConfigError(f"--workers must not be negative, got {self.workers}")
        if not self.field:
            raise ConfigError("--field is empty", hint="name the field of a row that holds the text")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out must be at least 0 and below 1, got {self.held_out}")
        corpus.refuse_glob_outside(self.glob)


def build(
    config: Config,
    tokenizer: Tokenizer,
    *,
    length: int,
    batch_size: int,
    seed: int = 0,
    events: Events | None = None,
    packs: bool = True,
) -> Source:
    """The training source; `.held_out` is the evaluation source or None, `.files` what each reads. Where not
    `packs`, for a model that does not keep documents apart, a row holds a part of one only."""
    # What is not there is said before anything is tokenised.
    corpus.refuse_field(config.field, corpus.find(config))
    mixed = corpus.corpora(config.paths)
    if not mixed:
        return _one(config, tokenizer, length, batch_size, seed, (), events, packs)
    parts = {
        c.name: _one(
            replace(config, paths=(c.path,)), tokenizer, length, batch_size, seed, (i,), events, packs
        )
        for i, c in enumerate(mixed)
    }
    weights = {c.name: c.weight for c in mixed if c.weight is not None}
    return Mixture(parts, weights or None)


def _one(
    config: Config,
    tokenizer: Tokenizer,
    length: int,
    batch_size: int,
    seed: int,
    stream: tuple[int, ...],
    events: Events | None,
    packs: bool,
) -> Source:
    """The source of one corpus."""
    files = corpus.find(config)
    who = f"the corpus {config.paths[0]}" if len(config.paths) == 1 else "the corpus"
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    speller = bpe_dropout.Speller(tokenizer, config.bpe_dropout) if config.bpe_dropout else None

    def write(writer: cache.Writer) -> None:
        encode.tokenise(files, tokenizer, start, writer, events, field=config.field, workers=config.workers)
        refuse_bad(config, writer.facts)
        if not writer.n_tokens:
            raise DataError(f"{who} has no text", hint="give files that are not empty")

    if config.cache:
        name = cache.key("text", tokenizer.hash, *(_content(file, config.field) for file in files))
        tokens = cache.cached(cache_dir("tokens") / name, tokenizer.vocab_size, write, events)
    else:
        tokens = cache.uncached(tokenizer.vocab_size, write)
    refuse_bad(config, tokens.facts)
    if events and (sentence := left_out(len(files), tokens.facts)):
        events.note(sentence, level="warning")

    train, held = _split(tokens, config.held_out, tokenizer)
    if train.end < length:
        raise DataError(
            f"{who} has {train.end} tokens to train on, but one row needs {length}",
            hint="use a shorter context or more text",
        )

    def cut(part: _Part) -> Cut:
        laid = Cut if packs else Alone
        return laid(tokens.ids, tokens.starts, part.begin, part.end, length=length, eos_id=tokenizer.eos_id)

    def source(part: _Part, rows: Rows, **more: Any) -> Source:
        return Source(
            rows, length=length, batch_size=batch_size, pad_id=tokenizer.pad_id,
            files=_files(files, tokens, part), **more,
        )  # fmt: skip

    counts = {name: tokens.facts[name] for name in ("empty", "bad_files", "bad_rows")}
    evaluation = source(held, cut(held), seed=None, facts=held.facts()) if held else None
    rows: Rows = cut(train)
    if speller is not None:
        rows = bpe_dropout.Spelled(cut(train), speller, length=length, seed=(seed, *stream))
        counts |= {"bpe_dropout_growth": round(rows.growth, 4)}
    return source(train, rows, seed=seed, stream=stream, facts=train.facts() | counts, held_out=evaluation)


def _content(file: Path, field: str) -> str:
    """What the tokens of a file depend on; one that cannot be read has none, and `blocks` counts it."""
    rows = f" {field}" if corpus.has_rows(file) else ""
    try:
        return f"{cache.content_hash(file)} {''.join(file.suffixes[-2:])}{rows}"
    except OSError:
        return f"{file} cannot be read"


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Tokens begin..end of a corpus, which belong to the documents first..last (ends not included)."""

    begin: int
    end: int
    first: int
    last: int
    n_bytes: int

    def facts(self) -> dict[str, Any]:
        return {"documents": self.last - self.first, "bytes": self.n_bytes}


Read = Callable[[Path, dict[str, Any]], Iterable[str]]


def refuse_bad(config: Config, facts: dict[str, Any], read: Read | None = None) -> None:
    """A file named by hand must be readable; one found in a folder may be left out, unless `strict`.

    `facts` count what could not be read, but not where: when there is any, files named by hand are read
    again, by `read` where documents are not what is read of them."""
    bad: list[str] = []
    if config.strict:
        bad = facts["first_bad"] if facts["bad_files"] + facts["bad_rows"] else []
    elif facts["bad_files"]:
        for file in corpus.by_hand(config):
            found = corpus.new_facts()
            for _ in read(file, found) if read else corpus.documents(file, found, config.field):
                pass
            bad += found["first_bad"] if found["bad_files"] else []
    if bad:
        hint = "repair it, convert it (iconv -f latin1 -t utf-8 IN > OUT), or leave it out"
        raise DataError("; ".join(bad[:3]), hint=about_field(bad, config.field) or hint)


def about_field(bad: Sequence[str], field: str) -> str:
    """What to do about the first of these reasons where the rows lack the field; else nothing."""
    lacks = (f"no '{field}' in the row", f"no column '{field}'")
    how = f"the text was looked for in the field '{field}': name another one (train, tokenize-train: --field)"
    return how if bad and any(reason in bad[0] for reason in lacks) else ""


def left_out(n_files: int, facts: dict[str, Any]) -> str:
    """One sentence on what could not be read; empty when all could."""
    if not facts["bad_files"] + facts["bad_rows"]:
        return ""
    what = f"{facts['bad_files']} of {n_files} files and {facts['bad_rows']} rows were left out"
    return f"{what}: {'; '.join(facts['first_bad'][:3])}"


def _split(tokens: cache.Tokens, fraction: float, tokenizer: Tokenizer) -> tuple[_Part, _Part | None]:
    """The parts to train on and to hold out: whole documents from the end, else the tail of the last one."""
    n, last, n_bytes = len(tokens.ids), len(tokens.starts), int(tokens.sizes.sum())
    budget = int(fraction * n_bytes)
    first, used = last, 0
    while first and used + int(tokens.sizes[first - 1]) <= budget:
        first -= 1
        used += int(tokens.sizes[first])
    begin = int(tokens.starts[first]) if first < last else n
    last_of_train = first
    if first == last and budget:
        begin, used = _tail(tokens, budget, tokenizer)
        first = last - 1
    train = _Part(begin=0, end=begin, first=0, last=last_of_train, n_bytes=n_bytes - used)
    return train, _Part(begin=begin, end=n, first=first, last=last, n_bytes=used) if begin < n else None


def _tail(tokens: cache.Tokens, budget: int, tokenizer: Tokenizer) -> tuple[int, int]:
    """(where the last `budget` bytes of the last document begin, how many they are)."""
    lengths = byte_lengths(tokenizer)
    least = int(tokens.starts[-1]) + 1  # its start token stays in training
    at, used = len(tokens.ids), 0
    # Back over the tokens in blocks: the document may be larger than memory.
    while at > least:
        sizes = lengths[tokens.ids[max(least, at - (1 << 20)) : at]][::-1].cumsum()
        fits = int((sizes <= budget - used).sum())
        used += int(sizes[fits - 1]) if fits else 0
        at -= fits
        if fits < len(sizes):
            break
    return at, used


def _files(files: Sequence[Path], tokens: cache.Tokens, part: _Part) -> tuple[Path, ...]:
    """The files that the documents of a part come from."""
    found: list[Path] = []
    at = 0
    for file, count in zip(files, tokens.facts["per_file"], strict=True):
        if count and at < part.last and at + count > part.first:
            found.append(file)
        at += count
    return tuple(found)
