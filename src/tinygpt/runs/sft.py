"""Supervised tuning: learn the answers, as an adapter, in all weights, or from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.source import chat
from tinygpt.data.template import _choice
from tinygpt.peft._adapter import PEFT
from tinygpt.runs import _directory, _pieces, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._epochs import Epochs
from tinygpt.runs._mask import MaskedRow, mask_view
from tinygpt.train.loop import Result
from tinygpt.train.objective import next_token, response
from tinygpt.train.world import world


@dataclass(frozen=True, kw_only=True)
class Config(Epochs):
    """Settings of a supervised tuning run."""

    adapter: Annotated[Pick, "How few weights learn.", PEFT] = Pick("dora")
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

    show_mask: Annotated[int, "Print so many rows with what is learned of them, and train nothing."] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.show_mask < 0:
            raise ConfigError(f"--show-mask must be at least 0, got {self.show_mask}")
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


def masks(config: Config, events: Events) -> list[MaskedRow]:
    """The first `show_mask` rows as they would be learned; nothing is trained or written."""
    _some(config)
    opened = config.open(config.seed or 0)
    tokenizer, _ = _pieces.templated(opened.tokenizer, config.template, events)
    length = config.row_length(opened.model.config, whole=config.whole)
    found = chat.examples(config.rows(), tokenizer, length=length, events=events)
    return mask_view(found, tokenizer, config.show_mask, learn_all=config.learn == "all")


def _some(config: Config) -> None:
    if not config.data:
        raise ConfigError("there is nothing to learn from", hint="give --data a file of rows")


def run(config: Config, events: Events) -> Result:
    """Tune and leave `out/final`: an adapter directory in PEFT's format, or a model directory."""
    _some(config)
    if config.show_mask:
        raise ConfigError("show_mask shows rows and trains nothing", hint="call masks, or leave it out")
    directory = RunDirectory("sft", config, world())
    opened = config.open(directory.seed)
    tokenizer, template = _pieces.templated(opened.tokenizer, config.template, events)
    opened = opened._replace(tokenizer=tokenizer)
    model, _, base = opened
    source = chat.build(
        config.rows(),
        tokenizer,
        length=config.row_length(model.config, whole=config.whole),
        batch_size=config.amounts.batch,
        seed=directory.seed,
        events=events,
        packs=getattr(model, "packs", True),
    )
    directory.config = config.counted(source)
    write, resume = config.learned(opened, directory.seed)
    if config.learn != "all":
        knobs = response.Config(prompt_weight=config.prompt_weight, z_loss=config.z_loss)
        objective = response.build(model, knobs)
        measured = response.build(model)
    else:
        objective = measured = next_token.build(model, next_token.Config(z_loss=config.z_loss))
    facts = {"learned_parameters": _pieces.n_parameters(model), **source.describe()}
    facts["epochs"] = source.epochs(directory.config.amounts.steps)
    return _train.train(
        directory, source=source, held_out=source.held_out, objective=objective, measured=measured,
        inputs=_directory.inputs(source, tokenizer, base), write=write, resume=resume, events=events,
        facts=facts, tokenizer=tokenizer, template=template,
    )  # fmt: skip
