"""The settings of `train-extractor`, and what does not go together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core.config import Pick, fields, refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.router.objective import Hiding
from tinygpt.runs._settings import TrainSettings

# Settings of training runs that mean nothing for a router; they have no flags.
IDLE = (
    "z_loss", "qat", "neftune_alpha", "eval_tasks", "eval_limit", "sample_every", "sample_prompt",
    "sample_tokens",
)  # fmt: skip
BYTES = 256  # --vocab-size of a tokenizer without merges


@dataclass(frozen=True, kw_only=True)
class Config(TrainSettings):
    """Settings of a run that trains a router."""

    data: Annotated[tuple[Path, ...], "Rows of {query, tool}; no tool serves a request whose tool is null."]
    out_of_scope: Annotated[tuple[Path, ...], "Rows of {query} that no tool serves."] = ()
    test: Annotated[
        tuple[Path, ...], "Rows of {query, tool} that the report is made on, instead of --held-out."
    ] = ()
    tools: Annotated[Path | None, "Tools with descriptions, which the BM25 baseline reads beside names."] = (
        None
    )
    preset: Annotated[Literal["tiny", "small"], "Size: 4 layers of width 256, or 6 of width 384."] = "tiny"
    model: Annotated[dict[str, Any], "Single fields of the blocks, e.g. --set model.hidden_size=128."] = (
        field(default_factory=dict[str, Any])
    )
    tokenizer: Annotated[
        str | None, "Tokenizer: 'byte', or a directory or tokenizer.json; not given: trained on the requests."
    ] = None
    vocab_size: Annotated[int, "Most ids of the tokenizer that is trained; 256: bytes."] = 4000
    context: Annotated[int, "Tokens of a request that are read: the first so many."] = 128
    grams: Annotated[int, "Longest run of bytes that the linear reader knows."] = 5
    vectors: Annotated[int, "Most runs that it knows: the commonest of the requests to learn from."] = 65536
    lower: Annotated[bool, "Read requests in small letters."] = True
    balance: Annotated[
        float, "How much rare tools are made up for: 0: not, 1: every tool counts the same in all."
    ] = 0.5
    min_examples: Annotated[int, "Tools with fewer requests are left out."] = 2
    dropout: Annotated[float, "Share of values set to 0 in training."] = 0.1
    token_drop: Annotated[float, "Share of a request's tokens that are hidden in training."] = 0.2
    held_out: Annotated[float, "Share of each tool's requests that is kept back for the report."] = 0.2
    val_split: Annotated[float, "Share whose loss is watched, and by which probabilities are calibrated."] = (
        0.1
    )
    baselines: Annotated[bool, "Put the commonest tool and BM25 beside it in the report."] = True
    min_lr: Annotated[float | None, "Learning rate at the end; not given: a tenth of the peak."] = None
    steps: Annotated[int | None, "Optimizer steps; not given: 500."] = None
    batch: Annotated[int | None, "Requests of a step; not given: 32."] = None
    lr: Annotated[float | None, "Peak learning rate; not given: 3e-4."] = None
    eval_every: Annotated[int, "Steps between looks at the kept-back loss; 0: only at the end."] = 100
    eval_batches: Annotated[int, "Batches that such a look reads; 0: all."] = 0
    out: Annotated[Path, "Run directory to make: run.json, events.jsonl, steps/ and final/, the router."] = (
        Path("router")
    )
    seed: Annotated[int | None, "Of weights, order and split."] = 0
    dry_run: Annotated[bool, "Read, clean, split and count; train and write nothing."] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for f in fields(TrainSettings):
            if f.name in IDLE and getattr(self, f.name) != f.default:
                raise ConfigError(
                    f"--{f.name.replace('_', '-')} means nothing for a router", hint="leave it out"
                )
        for name in ("held_out", "val_split"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 0 and below 1")
        if self.held_out + self.val_split >= 1:
            raise ConfigError("--held-out and --val-split leave nothing to learn from", hint="lower one")
        if self.test and self.held_out != type(self).held_out:
            raise ConfigError("--test brings the requests of the report, --held-out cuts some off")
        if not self.test and not self.held_out:
            raise ConfigError(
                "there is nothing to report on", hint="give --held-out a share, or --test a file"
            )
        if not self.val_split:
            raise ConfigError("--val-split 0 leaves nothing to calibrate by", hint="0.05 does")
        if not 0 <= self.balance <= 1:
            raise ConfigError(f"--balance must be from 0 to 1, got {self.balance:g}")
        for name, least in (("context", 1), ("min_examples", 1), ("vectors", 1), ("vocab_size", BYTES)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} must be at least {least}, got {getattr(self, name)}")
        if not 1 <= self.grams <= 8:
            raise ConfigError(f"--grams must be from 1 to 8, got {self.grams}")
        if self.tokenizer is not None and self.vocab_size != type(self).vocab_size:
            raise ConfigError("--tokenizer brings its own ids, --vocab-size trains one", hint="leave one out")
        refuse_idle(self, {"tools": "baselines"})
        _ = self.course

    @property
    def noise(self) -> Hiding:
        """Training's noise."""
        return Hiding(dropout=self.dropout, layer_drop=self.layer_drop, token_drop=self.token_drop)

    @property
    def course(self) -> Pick:
        """The schedule, which ends at --min-lr where that is given."""
        if self.min_lr is None:
            return self.schedule
        if not hasattr(self.schedule.options, "final"):
            raise ConfigError(f"--min-lr: schedule '{self.schedule.name}' does not fall", hint="use cosine")
        lr = self.amounts.lr
        if not 0 <= self.min_lr <= lr:
            raise ConfigError(f"--min-lr must be from 0 to --lr {lr:g}, got {self.min_lr:g}")
        return Pick(self.schedule.name, dataclasses.replace(self.schedule.options, final=self.min_lr / lr))

    def derived(self) -> dict[str, Any]:
        return {"batch": 32, "lr": 3e-4}
