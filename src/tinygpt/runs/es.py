"""Es: improve a model by evolution strategies, on text or on rows, for any reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core import events as ev
from tinygpt.core.config import Pick, fields, refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.source import chat, text
from tinygpt.data.template import _choice
from tinygpt.eval.reward import _composite
from tinygpt.peft import _adapter
from tinygpt.runs import _directory, _learned, _pieces, _reward, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._settings import OPTIM, TrainSettings
from tinygpt.train import evolution
from tinygpt.train.evolution import Evolution
from tinygpt.train.loop import Result
from tinygpt.train.objective import next_token, response
from tinygpt.train.world import world

# Settings of training runs that mean nothing where no gradient is taken; they have no flags.
IDLE = (
    "lr_layer_decay", "no_decay", "z_loss", "dropout", "layer_drop", "neftune_alpha", "grad_checkpoint",
    "qat",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(TrainSettings):
    """Settings of an evolution-strategies run."""

    base: Annotated[Path, "Model to improve: a model, run or specialist directory."]
    corpus: Annotated[
        tuple[Path, ...], "Text to predict: files, .jsonl files with {text} rows, folders."
    ] = ()
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    data: Annotated[tuple[Path, ...], "Or JSONL files of conversations: learn the answers."] = ()
    template: Annotated[str, _choice.HELP, _choice.TEMPLATES] = _choice.AUTO
    held_out: Annotated[float, "Fraction of the text or the rows kept for evaluation."] = 0.05
    strict: Annotated[bool, "Refuse files and rows that cannot be read, instead of counting them."] = False
    adapter: Annotated[Pick | None, "Change an adapter only; not given: all weights.", _adapter.PEFT] = None
    reward: Annotated[
        Literal["loss", "exact", "contains"],
        "What judges a change: minus the loss, or how many expected answers it writes exactly, or somewhere.",
    ] = "loss"
    reward_fn: Annotated[
        str | None,
        "Or a reward over what it writes: a .toml or .json file of dimensions, or file.py:function.",
    ] = None
    reward_tokens: Annotated[int, "With --reward-fn: longest answer in tokens."] = 64
    population: Annotated[int, "Changed models that are tried in a step; even."] = 40
    sigma: Annotated[float, "Standard deviation of the changes."] = 0.02
    shaping: Annotated[Literal["ranks", "none"], "Weigh changes by their reward's rank, or by itself."] = (
        "ranks"
    )
    optimizer: Annotated[Pick, "Optimizer that steps along the estimate.", OPTIM] = Pick("sgd")
    batch: Annotated[int | None, "Rows of a step; not given: 16."] = None
    context: Annotated[int, "Tokens of a row; 0: the model's own context."] = 0
    lr: Annotated[float | None, "Peak learning rate; not given: 1e-3."] = None
    steps: Annotated[int | None, "Steps; not given: 100."] = None
    clip: Annotated[float, "Bound on the estimate's norm; 0: off. Costs a fourth more noise."] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_idle(self, {"glob": "corpus", "reward_tokens": "reward_fn"})
        self.evolution()
        _reward.check(self.reward, self.reward_fn, self.reward_tokens, answers=not self.corpus)
        for f in fields(TrainSettings):
            if f.name in IDLE and getattr(self, f.name) != f.default:
                flag = f.name.replace("_", "-")
                raise ConfigError(f"--{flag} means nothing to evolution strategies", hint="leave it out")
        if self.auto_rollback == "on":
            raise ConfigError(
                "--auto-rollback on: evolution strategies do not go back to an earlier state", hint="use warn"
            )

    def derived(self) -> dict[str, Any]:
        return {"steps": 100}

    def evolution(self) -> evolution.Config:
        """The knobs of the updater."""
        return evolution.Config(population=self.population, sigma=self.sigma, shaping=self.shaping)


def run(config: Config, events: Events) -> Result:
    """Improve the model and leave `out/final`: a model directory, or an adapter's with --adapter."""
    if bool(config.corpus) == bool(config.data):
        raise ConfigError("es learns from text or from rows", hint="give either --corpus or --data")
    if config.adapter is not None and hasattr(_adapter.PEFT.load(config.adapter.name), "optimizer"):
        raise ConfigError(
            f"--adapter {config.adapter.name} goes by gradients, and evolution strategies have none",
            hint="use another adapter, for example lora",
        )
    directory = RunDirectory("es", config, world())
    judged = _composite.load(config.reward_fn) if config.reward_fn else None
    loaded, tokenizer = _pieces.open_model(config.base)
    base, model, template = loaded.path, loaded.model, None
    if config.data:
        tokenizer, template = _pieces.templated(tokenizer, config.template, events)
    # Nothing is kept for a backward pass: the memory of one layer at a time is what is asked for.
    how: dict[str, Any] = {
        "length": config.row_length(model.config, whole=False), "batch_size": config.amounts.batch,
        "seed": directory.seed, "events": events, "packs": getattr(model, "packs", True),
    }  # fmt: skip
    part: dict[str, Any] = {"held_out": config.held_out, "strict": config.strict}
    if config.data:
        rows = chat.Config(paths=config.data, template=config.template, **part)
        source, objective = chat.build(rows, tokenizer, **how), response.build(model)
    else:
        words = text.Config(paths=config.corpus, glob=config.glob, **part)
        source, objective = text.build(words, tokenizer, **how), next_token.build(model)
    write, resume = _learned.learned(model, tokenizer, base=base, adapter=config.adapter, seed=directory.seed)

    def make(rate: Callable[[int], float], dtype: str) -> Evolution:
        return Evolution(
            objective, OPTIM.load(config.optimizer.name).build(config.optimizer.options), rate,
            config.evolution(), seed=directory.seed, accumulate=config.accumulate, clip=config.clip,
            reward=_reward.judge(model, tokenizer, config.reward, judged, config.reward_tokens),
            dtype=dtype, compiled=config.compile,
        )  # fmt: skip

    facts = {"learned_parameters": _pieces.n_parameters(model), **source.describe()}
    inputs = _directory.inputs(source, tokenizer, base) | ({"the reward": judged.hash} if judged else {})
    result = _train.train(
        directory, source=source, held_out=source.held_out, objective=objective, make=make,
        inputs=inputs, write=write, resume=resume, events=events, facts=facts, tokenizer=tokenizer,
        template=template,
    )  # fmt: skip
    _tell_idle(config, events)
    return result


def _tell_idle(config: Config, events: Events) -> None:
    """Say so when no step of the whole run, its earlier parts included, had a direction to go."""
    told = ev.read(config.out / "events.jsonl")
    steps = [e for e in told if e.get("kind") == ev.TrainStep.kind and "reward" in e["metrics"]]
    if steps and not any(e["grad_norm"] for e in steps):
        rewards = sorted({e["metrics"]["reward"] for e in steps})
        why = "use rows that the model answers now and then, raise --sigma, or tune with sft first"
        events.note(
            f"nothing was learned: in no step was a change rewarded differently from its opposite (mean "
            f"rewards from {rewards[0]:g} to {rewards[-1]:g}); {why}",
            "warning",
        )
