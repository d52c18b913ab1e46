"""Distill: a student learns a teacher's distributions, on plain text or on answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinygpt.core.config import Pick, refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.core.family import Family
from tinygpt.data.source import text
from tinygpt.distill import distillation, on_policy
from tinygpt.infer.engine import Engine
from tinygpt.runs import _directory, _pieces, _sources, _teacher, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._hints import Hinted, without
from tinygpt.train.loop import Result
from tinygpt.train.world import world

if TYPE_CHECKING:
    pass

LOSSES = Family("tinygpt.distill.divergence", verb="losses")
# Settings of rows that say nothing about plain text.
OF_ROWS = (
    "map",
    "learn",
    "prompt_weight",
    "template",
    "truncate",
    "pack",
    "length_bucket",
    "val_data",
    "rationale_weight",
)


@dataclass(frozen=True, kw_only=True)
class Config(Hinted):
    """Settings of a distillation."""

    base: Annotated[
        Path | None, "Student to tune: a model, run or specialist directory; not given: a fresh model."
    ] = None
    teacher: Annotated[Path | None, "Model to learn from: a model, run or specialist directory."] = None
    teacher_adapter: Annotated[tuple[Path, ...], "Adapter that the teacher wears; may be repeated."] = ()
    loss: Annotated[Pick, "What makes the student's distributions like the teacher's.", LOSSES] = Pick(
        "forward_kl"
    )
    temperature: Annotated[float, "What both distributions are flattened by."] = 1.0
    alpha: Annotated[float, "Share of the teacher in the loss; the data's own tokens have the rest."] = 0.9
    on_policy: Annotated[
        float, "Share of the steps whose answers the student writes itself, for the teacher to judge (GKD)."
    ] = 0.0
    on_policy_temperature: Annotated[float, "How freely it writes them."] = 1.0
    data: Annotated[
        tuple[Path, ...],
        "Rows: .jsonl, .json, .parquet, .csv or .tsv, may be packed; may be repeated. path:weight mixes.",
    ] = ()
    corpus: Annotated[
        tuple[Path, ...],
        "In place of --data, plain text: files, folders or patterns; name=path:weight mixes several.",
    ] = ()
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    exclude: Annotated[
        tuple[str, ...], "File and folder names to leave out, for example site-packages,test_*."
    ] = ()
    field: Annotated[str, "Which field of .jsonl and .parquet rows holds the text."] = "text"
    workers: Annotated[int, "Processes that tokenise text; 0: as many as pay."] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mixed()
        self.writing()
        refuse_idle(self, dict.fromkeys(("glob", "exclude", "field", "workers"), "corpus"))
        refuse_idle(self, {"on_policy_temperature": "on_policy"})
        if self.on_policy and not self.alpha:
            raise ConfigError(
                "--on-policy asks the teacher, and --alpha 0 does not hear it", hint="leave one out"
            )
        if self.corpus and self.data:
            raise ConfigError("--data has rows, --corpus plain text", hint="leave one of them out")
        if self.corpus:
            refuse_idle(self, dict.fromkeys(OF_ROWS, "data"))

    def mixed(self) -> distillation.Config:
        """How labels and teacher are mixed."""
        return distillation.Config(
            temperature=self.temperature, alpha=self.alpha, prompt_weight=self.prompt_weight,
            z_loss=self.z_loss,
        )  # fmt: skip

    def writing(self) -> on_policy.Config:
        """How often the student writes, and how."""
        return on_policy.Config(share=self.on_policy, temperature=self.on_policy_temperature)

    def words(self) -> text.Config:
        """The settings of the source of plain text."""
        return text.Config(
            paths=self.corpus, glob=self.glob, exclude=self.exclude, held_out=self.held_out,
            strict=self.strict, field=self.field, workers=self.workers,
        )  # fmt: skip


def run(config: Config, events: Events) -> Result:
    """Distill and leave `out/final`: an adapter directory in PEFT's format, or a model directory."""
    if config.teacher is None and (config.alpha or config.hint):
        raise ConfigError(
            "there is no teacher", hint="give --teacher a model; labels alone are learned with --alpha 0"
        )
    if not config.data and not config.corpus:
        raise ConfigError("there is nothing to learn from", hint="give --data rows, or --corpus text")
    directory = RunDirectory("distill", config, world())
    opened = config.open(directory.seed)
    distillation.refuse_odd_heads(opened.model)
    template = None
    if config.data:
        tokenizer, template = _pieces.templated(opened.tokenizer, config.template, events)
        opened = opened._replace(tokenizer=tokenizer)
    model, tokenizer, base = opened
    source = _sources.opened(config, opened, directory.seed, events)
    directory.config = config.counted(source)
    write, resume = config.learned(opened, directory.seed)
    taught = _teacher.given(config, tokenizer, events, n_own=model.config.vocab_size)
    facts: dict[str, Any] = {"learned_parameters": _pieces.n_parameters(model), **source.describe()}
    facts |= {"epochs": source.epochs(directory.config.amounts.steps), **taught.told(source)}
    hint = config.hinted(model, taught.teacher, directory.seed)
    objective = distillation.build(
        model, taught.teacher, LOSSES.load(config.loss.name), config.mixed(), config.loss.options,
        hint=hint, hint_weight=config.hint_weight,
    )  # fmt: skip
    write, resume = without(model, write, resume)
    rewrite = None
    if config.on_policy:
        engine = Engine(model, tokenizer, template)
        written = on_policy.OnPolicy(engine, config.writing(), seed=directory.seed)
        rewrite = taught.rewriting(written)
    return _train.train(
        directory, source=taught.reading(source), held_out=taught.reading(source.held_out),
        objective=objective, beside=hint.projections if hint is not None else None,
        inputs=_directory.inputs(source, tokenizer, base) | taught.inputs, write=write, resume=resume,
        events=events, facts=facts, tokenizer=tokenizer, template=template, rewrite=rewrite,
    )  # fmt: skip
