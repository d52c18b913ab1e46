"""Pretrain: train a fresh model, or go on with one, on plain text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import Fills, Pick
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.prefetch import Prefetched
from tinygpt.data.source import text
from tinygpt.runs import _anneal, _directory, _learned, _pieces, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._settings import FreshModel
from tinygpt.train.loop import Result
from tinygpt.train.objective import next_token
from tinygpt.train.world import world

# To go on with a trained model on another kind of text: slowly, and at the same speed until near the end.
DOMAIN_ADAPT = Fills(
    {
        "lr": 1e-4,
        "schedule": {"name": "wsd", "warmup": 100, "decay": 0.05, "final": 0.1},
        "lr_layer_decay": 0.85,
    }
)


@dataclass(frozen=True, kw_only=True)
class Config(FreshModel):
    """Settings of a pretraining run."""

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
    bpe_dropout: Annotated[
        float, "Chance that a merge of the tokenizer fails in training (0.1 is usual); 0: off."
    ] = 0.0
    workers: Annotated[int, "Processes that tokenise; 0: as many as pay."] = 0
    prefetch: Annotated[bool, "Lay out the next batch in a thread while a step runs."] = False
    domain_adapt: Annotated[
        bool,
        "Go on with --base on other text; unless given: lr 1e-4, wsd with 100 warm-up steps and a decay to a "
        "tenth in the last 5 % of steps, and 0.85 as the rate of each layer relative to the next.",
        DOMAIN_ADAPT,
    ] = False
    decay_only: Annotated[
        bool,
        "Anneal --base, a checkpoint in a run's steps/: its optimizer and batches go on, the rate falls. "
        "Not given, lr, batch and seed are that run's, steps a quarter of what it took.",
    ] = False

    def __post_init__(self) -> None:
        if self.domain_adapt and self.base is None:
            raise ConfigError("--domain-adapt means nothing without --base", hint="give the model to adapt")
        if self.domain_adapt and self.decay_only:
            raise ConfigError("--domain-adapt and --decay-only are two ways to go on", hint="leave one out")
        super().__post_init__()

    @property
    def course(self) -> Pick:
        return _anneal.falling(self.schedule, self.amounts.steps) if self.decay_only else self.schedule

    def derived(self) -> dict[str, Any]:
        return _anneal.derived(self) if self.decay_only else super().derived()


def run(config: Config, events: Events) -> Result:
    """Train and leave `out/final`; the last checkpoint in `out/steps` can be resumed."""
    if not config.corpus:
        raise ConfigError("there is nothing to train on", hint="give --corpus a file or a folder")
    directory = RunDirectory("train", config, world())
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
            strict=config.strict, field=config.field, bpe_dropout=config.bpe_dropout, workers=config.workers,
        ),
        tokenizer, length=length, batch_size=config.amounts.batch, seed=directory.seed, events=events,
    )  # fmt: skip

    write, resume = _learned.learned(model, tokenizer)
    inputs = _directory.inputs(source, tokenizer, base)
    if config.decay_only:
        _anneal.tell_other_batches(config, inputs, events)
    facts = {"parameters": _pieces.n_parameters(model), **source.describe()}
    facts["epochs"] = source.epochs(config.amounts.steps)
    return _train.train(
        directory,
        source=Prefetched(source) if config.prefetch else source,
        held_out=source.held_out,
        objective=next_token.build(model, next_token.Config(z_loss=config.z_loss)),
        inputs=inputs,
        write=write,
        resume=resume,
        events=events,
        facts=facts,
        after=base if config.decay_only else None,
        tokenizer=tokenizer,
    )
