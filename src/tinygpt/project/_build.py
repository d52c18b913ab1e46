"""From rows to a trained specialist in a given number of minutes: the stages that every quickstart shares."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt.core import backend, files
from tinygpt.core.config import Pick, from_dict
from tinygpt.core.errors import Interrupted
from tinygpt.core.events import Events, RunStarted, TrainStep
from tinygpt.data import bpe
from tinygpt.data.tokenizer._protocol import Tokenizer
from tinygpt.infer.engine import Engine
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize
from tinygpt.runs import _pieces, bench_train, sft
from tinygpt.runs.evaluate import LocalEndpoint
from tinygpt.train.loop import Result


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a specialist is trained from scratch. Sizes are the model's, `share` is the mean length of a row of
    text."""

    vocab_size: int
    pattern: str
    layers: int
    width: int
    heads: int
    groups: int
    context: int
    batch: int
    lr: float
    optimizer: Pick
    prompt_weight: float = 0.3
    warmup: float = 0.05
    init: float = 0.07

    def fields(self) -> dict[str, Any]:
        """What sets the model apart from the preset it is based on."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.groups,
            "initializer_range": self.init,
            # What lets a model copy names within minutes; see docs/explain/model.md.
            "attention": {"name": "gqa", "key_shift": True},
            "residual": "canon",
            "head": "pointer",
        }

    def model(self, vocab_size: int) -> ModelConfig:
        """The model's config."""
        sizes = {"vocab_size": vocab_size, "max_position_embeddings": self.context}
        return from_dict(ModelConfig, {**sizes, **self.fields()}, "recipe")

    def facts(self) -> dict[str, Any]:
        """What a model card says of it."""
        return {
            "model": f"{self.layers} layers x {self.width}, {self.heads} heads, shifted keys, Canon "
            f"residuals, pointer head, init {self.init}, context {self.context}",
            "tokenizer": f"byte-level BPE, pattern {self.pattern}, {self.vocab_size} ids",
            "training": f"{self.optimizer.name}, peak lr {self.lr}, "
            f"{self.batch} rows of {self.context} tokens a step, prompts weigh {self.prompt_weight}",
        }


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model with its tokenizer, and what training was like."""

    endpoint: LocalEndpoint
    untrained: LocalEndpoint
    path: Path
    result: Result
    steps: int
    facts: dict[str, Any]


def duration(seconds: float) -> str:
    """A time for people: seconds under two minutes, else minutes."""
    if seconds >= 120:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds:.0f} seconds" if seconds >= 10 else f"{seconds:.1f} seconds"


def train_tokenizer(texts: Iterable[str], recipe: Recipe, out: Path, events: Events) -> Tokenizer:
    """Train and save a tokenizer."""
    config = bpe.Config(vocab_size=recipe.vocab_size, pattern=recipe.pattern)  # type: ignore[arg-type]
    tokenizer = bpe.train_bpe(texts, config, events=events)
    with files.atomic_directory(out, replace=True) as folder:
        tokenizer.save(folder)
    return tokenizer


def steps_in(minutes: float, recipe: Recipe, vocab_size: int) -> int:
    """How many steps fit into the minutes here: a few are timed first, so slow machines take fewer, fast ones
    more."""
    times = bench_train.time_steps(
        recipe.model(vocab_size),
        batch=recipe.batch,
        context=recipe.context,
        steps=16,
        warmup=4,  # the first steps are slower: memory is taken
        optimizer=recipe.optimizer,
        dtype=backend.setup().default_dtype,
    )
    return max(20, int(60 * minutes / statistics.median(times)))


def train(
    data: Path, tokenizer: Tokenizer, tokenizer_path: Path, recipe: Recipe, out: Path, events: Events,
    *, minutes: float, steps: int = 0, seed: int,
) -> Trained:  # fmt: skip
    """Train a fresh model on rows, answers only, for so many minutes (or exactly `steps`). The caller holds
    the lock."""
    exact = steps > 0
    steps = steps or steps_in(minutes, recipe, tokenizer.vocab_size)
    wanted = recipe.model(tokenizer.vocab_size)
    settings = sft.Config(
        out=out,
        data=(data,),
        tokenizer=str(tokenizer_path),
        steps=steps,
        batch=recipe.batch,
        lr=recipe.lr,
        optimizer=recipe.optimizer,
        schedule=Pick("cosine", {"warmup": recipe.warmup, "final": 0.02}),
        seed=seed,
        held_out=0.01,
        prompt_weight=recipe.prompt_weight,
        save_every=max(1, steps // 8),
        keep=1,
        eval_every=max(1, steps // 4),
        force=True,
        lock=False,
        context=recipe.context,
        # A cosine's last steps change little, so a machine that turns slower still ends in time.
        max_minutes=0 if exact else 1.05 * minutes,
        model=recipe.fields(),
    )
    seen = _Seen()
    result = sft.run(settings, Events(*events.sinks, seen))
    if result.status == "interrupted":
        raise Interrupted(
            f"interrupted at step {result.step} of {steps}; nothing was packaged",
            hint="begin anew with --force",
        )
    untrained = Engine(initialize(LM(wanted), seed), tokenizer, _pieces.template_of(tokenizer))
    blank = LocalEndpoint(untrained, name="untrained", events=events)
    blank.baseline = True
    # What is measured is what is shipped: half precision, half the size.
    packed = checkpoint.save(
        out / "packed",
        _pieces.open_model(out / "final")[0].model,
        write_tokenizer=tokenizer.save,
        ids=_pieces.ids(tokenizer),
        stop_ids=tokenizer.stop_ids,
        dtype="float16",
        replace=True,
    )
    endpoint = LocalEndpoint.open(packed, events=events)
    endpoint.name = "trained"
    return Trained(
        endpoint=endpoint,
        untrained=blank,
        path=packed,
        result=result,
        steps=steps,
        facts={
            "parameters": seen.facts.get("learned_parameters"),
            "training_rows": seen.facts.get("documents"),
            "steps": result.step,
            "training_seconds": round(result.seconds, 1),
            "rows_read": int(recipe.batch * result.step * seen.rows_per_row),
            "tokens_per_second": round(seen.tokens / max(1e-9, result.seconds)),
            "device": backend.setup().device,
        },
    )


class _Seen:
    """Listens for what the card should say."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.tokens = 0

    @property
    def rows_per_row(self) -> float:
        """Examples that share a packed row."""
        return self.facts.get("documents", 0) / max(1, self.facts.get("rows", 1))

    def write(self, event: Any) -> None:
        if isinstance(event, RunStarted):
            self.facts = event.facts
        elif isinstance(event, TrainStep):
            self.tokens += event.tokens

    def close(self) -> None:
        """Nothing to release."""
