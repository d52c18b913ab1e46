"""Conversations: rows become rendered examples, and the model learns the answers only.

Rows of every shape in `tinygpt.data.rows` are turned into messages and rendered by a template; a row of
plain text is learned as it is, and so are recorded tokens (`_tokens`). Examples are kept whole and laid into
rows as `pack` says, each isolated from the others. An example longer than a row loses the beginning of its
prompt (`truncate`), and is counted; when no answer is left, the example is left out, and counted. The
held-out part is chosen by a hash of the rendered text: it does not depend on the seed or on the order of
rows, and equal rows are never on both sides: they stay together, and are held out only where all of them fit.
Files with weights are mixed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.data import corpus, rows
from tinygpt.data.rows import Conversation
from tinygpt.data.source import _examples, _tokens
from tinygpt.data.source._buckets import MOST, Bucketed, Dealt
from tinygpt.data.source._examples import Example, Facts, Learn, Row, Truncate
from tinygpt.data.source._mixture import Mixture
from tinygpt.data.source._rationale import tasks
from tinygpt.data.source._source import Source
from tinygpt.data.template import _choice

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

# Other names of ways to pack, as the original had them.
ALSO = {"sequence": "sequential", "sample": "best_fit"}
ISOLATES = ("best_fit", "sequential")  # these need a model that keeps the examples of a row apart
Pack = Literal["auto", "best_fit", "sequential", "bucket", "none", "sequence", "sample"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to read, what of it is learned, and how it is laid into rows."""

    paths: Annotated[tuple[Path, ...], "Files of rows; path:weight or name=path:weight mixes several."]
    template: Annotated[str, "How a conversation is written as text.", _choice.TEMPLATES] = _choice.AUTO
    map: Annotated[tuple[str, ...], "Columns to rename, new=old; old may be a.b."] = ()
    learn: Annotated[Learn, "Which tokens are targets."] = "answers"
    truncate: Annotated[Truncate, "What an example longer than a row loses."] = "left"
    pack: Annotated[Pack, "How examples are laid into rows; auto: best_fit where it can be."] = "auto"
    length_bucket: Annotated[int | None, "Widths of rows at most; None: 16, the most there may be."] = None
    held_out: Annotated[float, "Fraction of the rows kept for evaluation."] = 0.05
    val_paths: Annotated[tuple[Path, ...], "Files to evaluate on; then none of `paths` is held out."] = ()
    strict: Annotated[bool, "Refuse bad rows and answers that are too long, instead of counting them."] = (
        False
    )
    rationale: Annotated[str, "Field of the reasons, which are a second task; empty: none is read."] = ""
    rationale_weight: Annotated[float, "Weight of a rationale's token, where an answer's has 1."] = 1.0

    def __post_init__(self) -> None:
        if not self.rationale_weight > 0:
            raise ConfigError(f"rationale_weight must be positive, got {self.rationale_weight:g}")
        _choice.check(self.template)
        rows.renames(self.map)
        object.__setattr__(self, "pack", ALSO.get(self.pack, self.pack))
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out must be at least 0 and below 1, got {self.held_out}")
        if self.val_paths and self.held_out:
            if self.held_out != type(self).held_out:
                raise ConfigError("--val-data and --held-out both say what is held out", hint="leave one out")
            object.__setattr__(self, "held_out", 0.0)
        if self.length_bucket is not None:
            if self.pack not in ("bucket", "auto"):
                raise ConfigError(
                    f"--length-bucket says nothing with --pack {self.pack}", hint="leave it out"
                )
            if not 1 <= self.length_bucket <= MOST:
                raise ConfigError(f"--length-bucket must be from 1 to {MOST}, got {self.length_bucket}")

    def mode(self, packs: bool) -> str:
        """How rows are laid; `packs`: the model keeps examples of one row apart."""
        if not packs and self.pack in ISOLATES:
            raise ConfigError(
                f"--pack {self.pack}: this model does not keep the examples of a row apart",
                hint="use --pack bucket or --pack none",
            )
        mode = self.pack if self.pack != "auto" else "best_fit" if packs else "bucket"
        if self.length_bucket is not None and mode != "bucket":
            raise ConfigError("--length-bucket says nothing without --pack bucket", hint="add it")
        return mode


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
    """The training source; `.held_out` is the evaluation source, or None."""
    mode = config.mode(packs)
    mixed = corpus.corpora(config.paths, "--data")
    corpora = mixed or [corpus.parse(path, "--data") for path in config.paths]
    examples, facts = _fitted(config, [c.path for c in corpora], tokenizer, length, events)
    facts["packing"] = mode
    if config.rationale and not facts["rationales"]:
        raise DataError(
            f"no row of --data has a '{config.rationale}' to learn from",
            hint="name the field with --rationale-field, or leave --rationale-weight out",
        )
    if config.val_paths:
        corpus.refuse_weights(config.val_paths, "--val-data")
        held, held_facts = _fitted(config, config.val_paths, tokenizer, length, events)
        train = examples
        _report_overlap(train, held, config, events)
    else:
        (train, held), held_facts = _examples.split(examples, config.held_out, events), Facts()
    files = {i: (c.path,) for i, c in enumerate(corpora)} if mixed else {0: tuple(c.path for c in corpora)}
    if not mixed:
        train, held = ([replace(e, corpus=0) for e in part] for part in (train, held))

    def part(chosen: Sequence[Example], files: Sequence[Path], more: Facts, **how: Any) -> Source:
        laid = [piece for e in chosen for piece in _examples.pieces(e, length)]
        packed, n_learned = _examples.pack(laid, length, mode, learn_all=config.learn == "all")
        how |= {"length": length, "batch_size": batch_size, "pad_id": tokenizer.pad_id, "files": files}
        how["facts"] = {"documents": len(chosen), "learned_tokens": n_learned, **more}
        if mode == "bucket":
            return Bucketed(packed, most=config.length_bucket or MOST, **how)
        return Source(packed, **how)

    parts: dict[str, Source] = {}
    shared = part(held, config.val_paths, held_facts, seed=None) if config.val_paths else None
    for i, paths in files.items():
        mine = [e for e in train if e.corpus == i]
        if not mine:
            raise DataError(
                f"no row of {paths[0]} is left to train on", hint="lower --held-out, or leave it out"
            )
        kept = [] if config.val_paths else [e for e in held if e.corpus == i]
        aside = part(kept, paths, Facts(), seed=None) if kept else None
        parts[corpora[i].name] = part(
            mine, paths, {} if mixed else facts, seed=seed, stream=(i,) if mixed else (), held_out=aside
        )
    if not mixed:
        source = next(iter(parts.values()))
    else:
        weights = {c.name: c.weight for c in corpora if c.weight is not None}
        source = (Dealt if mode == "bucket" else Mixture)(parts, weights or None)
        source.facts = facts
    source.held_out = shared or source.held_out
    return source


def examples(
    config: Config, tokenizer: Tokenizer, *, length: int, events: Events | None = None
) -> list[Example]:
    """The examples of `paths` as they are learned, cut to a row's length, in the order of their digests."""
    named = corpus.corpora(config.paths, "--data") or [corpus.parse(p, "--data") for p in config.paths]
    return _fitted(config, [c.path for c in named], tokenizer, length, events)[0]


def _fitted(
    config: Config, paths: Sequence[Path], tokenizer: Tokenizer, length: int, events: Events | None
) -> tuple[list[Example], Facts]:
    """The examples of some files that fit into rows, in the order of their digests, and what was left out."""
    found: list[Row] = []
    facts: Facts = {"bad_rows": 0}
    for i, path in enumerate(paths):
        found += _read(config, i, path, tokenizer, facts, events)
    examples, bad = _examples.encode(
        found, _choice.of(tokenizer, config.template).render, config.learn, tokenizer, events
    )
    if bad:
        what = f"{len(bad)} of {len(found)} rows cannot be learned: {bad[0].message}"
        if config.strict or not examples:
            raise DataError(what, hint=bad[0].hint or "fix the rows, or leave them out")
        facts["bad_rows"] += len(bad)
        if events:
            events.note(f"{what}; they were left out", level="warning")
    # Sorting by digest is the keyed shuffle: it also mixes the rows of several files.
    examples.sort(key=lambda example: example.digest)
    fitted = [
        one for example in examples if (one := _examples.fit(example, length, config.truncate)) is not None
    ]
    if not fitted:
        what = "examples" if config.truncate == "drop" else "answers"
        raise DataError(
            f"all {len(examples)} {what} are longer than a row of {length} tokens",
            hint="use a longer context, or shorter answers",
        )
    n_long = sum(len(e.ids) > length + 1 and not e.plain for e in examples)
    facts["dropped"] = len(examples) - len(fitted)
    facts["truncated"] = n_long - facts["dropped"]
    _report_long(facts, config, length, events)
    return fitted, facts


def _read(
    config: Config, i: int, path: Path, tokenizer: Tokenizer, facts: Facts, events: Events | None
) -> list[Row]:
    """The rows of file number `i`; how many there are of each shape goes into the facts."""
    shapes: Counter[str] = Counter()
    pairs = rows.renames(config.map)

    def convert(row: Any) -> list[Row]:
        row = rows.renamed(row, pairs)
        if _tokens.is_tokens(row):
            tokens = _tokens.to_tokens(row, tokenizer)
            shapes[_tokens.SHAPE] += 1
            return [Row(tokens, i)]
        plain = isinstance(row, dict) and rows.shape(row) == "text"
        content = rows.to_text(row) if plain else rows.to_messages(row)
        if not content:
            raise DataError("the text is empty")
        found = [Row(content, i)]
        if config.rationale and isinstance(content, Conversation):
            found = [
                Row(task.content, i, config.rationale_weight if task.reasons else 1.0, task.key, task.reasons)
                for task in tasks(row, content, config.rationale)
            ]
        shapes[rows.columns(row)] += 1
        return found

    known = f"{rows.SHAPES}, {_tokens.SHAPE}; --map new=old renames columns"
    used, report = rows.read(path, convert, strict=config.strict, known=known)
    facts["bad_rows"] += report.n_bad
    facts.setdefault("read", {})[str(path)] = dict(shapes.most_common())
    if report.n_bad and events:
        events.note(f"{path}: {report.sentence()}", level="warning")
    made = [one for found in used for one in found]
    if config.rationale:
        facts["rationales"] = facts.get("rationales", 0) + sum(one.twin for one in made)
    return made


def _report_overlap(
    train: Sequence[Example], held: Sequence[Example], config: Config, events: Events | None
) -> None:
    """Rows to evaluate on that are learned too: their loss says nothing about new ones."""
    learned = {example.digest for example in train}
    if equal := sum(example.digest in learned for example in held):
        what = f"{equal} of {len(held)} rows of --val-data are in --data too"
        if config.strict:
            raise DataError(what, hint="take them out of one")
        if events:
            events.note(f"{what}: their loss is not that of new rows", level="warning")


def _report_long(facts: Facts, config: Config, length: int, events: Events | None) -> None:
    truncated, dropped = facts["truncated"], facts["dropped"]
    what = "examples" if config.truncate == "drop" else "answers"
    total = f"{dropped} {what} are longer than a row of {length} tokens"
    if dropped and config.strict:
        raise DataError(total, hint="use a longer context, or leave the rows out")
    if dropped and events:
        events.note(f"{total}; their rows were left out", level="warning")
    if truncated and events:
        lost = "beginning" if config.truncate == "left" else "end"
        events.note(
            f"{truncated} conversations are longer than {length} tokens and lost their {lost}",
            level="warning",
        )
