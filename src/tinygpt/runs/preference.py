"""Preference tuning: make better answers likelier than worse ones, as an adapter or in all weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import backend, files
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.core.family import Family
from tinygpt.data.source import chat, pairs
from tinygpt.peft import _adapter
from tinygpt.runs import _directory, _learned, _pieces, _reference, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._memory import refuse_too_large
from tinygpt.runs._tuned import Opened, Tuned
from tinygpt.train.loop import Result
from tinygpt.train.preference import _objective
from tinygpt.train.world import World, world

LOSSES = Family("tinygpt.train.preference", verb="losses")
# Settings of training runs that mean nothing here; they have no flags.
IDLE = ("z_loss", "tokenizer", "preset", "depth", "regime", "model")


@dataclass(frozen=True, kw_only=True)
class Config(Tuned):
    """Settings of a preference run."""

    base: Annotated[Path, "Model to tune: a model, run or specialist directory."]
    data: Annotated[
        tuple[Path, ...],
        "JSONL files of preferences: {prompt, chosen, rejected}, or {prompt, completion, label} for kto.",
    ]
    loss_type: Annotated[Pick, "What makes the better answer likelier.", LOSSES] = Pick("dpo")
    template: Annotated[Pick, "How a conversation is written as text.", chat.TEMPLATES] = Pick("chatml")
    held_out: Annotated[float, "Fraction of the prompts kept for evaluation."] = 0.05
    strict: Annotated[bool, "Refuse bad rows and answers that are too long, instead of counting them."] = (
        False
    )
    start_adapter: Annotated[
        Path | None,
        "Adapter of the base, as sft makes them, to go on with; the reference is where it starts.",
    ] = None
    reference: Annotated[
        Path | None, "Another reference model, with the same tokenizer; not given: the model as it starts."
    ] = None
    lr: Annotated[
        float | None, "Peak learning rate; not given: 5e-5 for an adapter, the loss's own for --full."
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.z_loss:
            raise ConfigError("z_loss means nothing to a preference loss", hint="leave it out")
        if self.reference is not None and not self.loss_type.options.reference:
            raise ConfigError(
                f"--reference: the loss '{self.loss_type.name}' has no reference model", hint="leave it out"
            )
        if self.start_adapter is not None:
            if self.full:
                raise ConfigError(
                    "--start-adapter goes on as an adapter, and with --full all weights learn",
                    hint="leave one of them out, or bake the adapter into the base first",
                )
            if self.adapter != Pick("lora").resolve(_adapter.PEFT, "adapter"):
                raise ConfigError(
                    "--start-adapter brings its own kind and settings",
                    hint="leave --adapter and its knobs out",
                )

    def derived(self) -> dict[str, Any]:
        return {"lr": self.loss_type.options.rate if self.full else 5e-5}

    def answer_length(self, opened: Opened) -> int:
        """Most tokens of an answer with its prompt."""
        most = opened.model.config.max_position_embeddings
        if self.context > most:
            raise ConfigError(
                f"--context {self.context} is longer than the model's own, {most}",
                hint="choose a shorter one",
            )
        return self.context or most


def run(config: Config, events: Events) -> Result:
    """Tune and leave `out/final`: an adapter directory in PEFT's format, or a model directory with --full."""
    if not config.data:
        raise ConfigError("there is nothing to learn from", hint="give --data a JSONL file")
    directory = RunDirectory("dpo", config, world())
    opened = config.open(directory.seed)
    model, tokenizer, base = opened
    assert base is not None
    options = config.loss_type.options
    source = pairs.build(
        pairs.Config(
            paths=config.data, template=config.template, paired=options.paired, held_out=config.held_out,
            strict=config.strict,
        ),
        tokenizer, length=config.answer_length(opened), batch_size=config.amounts.batch,
        seed=directory.seed, events=events,
    )  # fmt: skip
    rows = 2 * config.amounts.batch // config.accumulate
    refuse_too_large(
        model.config,
        rows,
        max(source.widths),
        config.dtype,
        whole=config.full,
        recompute=config.grad_checkpoint,
    )
    inputs = _directory.inputs(source, tokenizer, base)
    started = None
    if config.start_adapter is not None:
        started = _adapter.load_adapter(_pieces.model_path(config.start_adapter), model, base=base)
        inputs["the start adapter"] = _adapter_hash(started.path)
    facts: dict[str, Any] = {}
    if options.reference:
        facts["reference_cached"] = _refer(config, source, opened, inputs, events, directory.world)
    if started is None:
        write, resume = config.learned(opened, directory.seed)
    else:
        write, resume = _learned.learned(model, tokenizer, base=base, adapter=started.pick, carried=True)
    loss = LOSSES.load(config.loss_type.name)
    objective = _objective.over(model, loss.losses, options)
    facts |= {"learned_parameters": _pieces.n_parameters(model), **source.describe()}
    return _train.train(
        directory, source=source, held_out=source.held_out, objective=objective, inputs=inputs, write=write,
        resume=resume, events=events, facts=facts, tokenizer=tokenizer,
        template=chat.TEMPLATES.load(config.template.name),
    )  # fmt: skip


def _refer(
    config: Config,
    source: pairs.PairSource,
    opened: Opened,
    inputs: dict[str, str],
    events: Events,
    ranks: World,
) -> bool:
    """Fill in what the reference model says of all answers; whether that was known already. The base is in
    memory once: it is read before the adapter is put on it, or before its weights move."""
    dtype = backend.compute_dtype(config.dtype) if config.full else None
    if config.reference is None:
        who = f"{inputs['the base model']} {inputs.get('the start adapter', '')}"
        return _reference.fill(source, opened.model, who, dtype=dtype, events=events, world=ranks)
    path = _pieces.model_path(config.reference)
    below = _pieces.base_of(path)  # of an adapter
    loaded, tokenizer = _pieces.open_model(below or path, path if below else None)
    if tokenizer.hash != opened.tokenizer.hash:
        raise ConfigError(
            f"--reference {config.reference} has another tokenizer than the base {config.base}",
            hint="its log-probabilities of the same ids would mean nothing: choose one of the same family",
        )
    inputs["the reference model"] = _pieces.checkpoint.identity(loaded.path)
    if below:
        inputs["the reference model"] += _adapter_hash(path)
    who = inputs["the reference model"]
    return _reference.fill(source, loaded.model, who, dtype=None, events=events, world=ranks)


def _adapter_hash(path: Path) -> str:
    """One hash of an adapter's weights and settings."""
    found = [path / "adapter_config.json", *sorted(path.glob("adapter_model*.safetensors"))]
    return hashlib.sha256("".join(map(files.sha256, found)).encode()).hexdigest()
