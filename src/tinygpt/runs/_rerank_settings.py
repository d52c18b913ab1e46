"""The settings of `rerank-train`, and what does not go together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core.config import fields
from tinygpt.core.errors import ConfigError
from tinygpt.runs._router_settings import IDLE as OF_ROUTERS
from tinygpt.runs._settings import TrainSettings

IDLE = OF_ROUTERS  # of training runs in general; they have no flags
# Settings of the encoder, which mean nothing for five weights.
OF_CROSS = (
    "preset", "blocks", "tokenizer", "context", "dropout", "layer_drop", "lr_layer_decay", "grad_checkpoint",
    "dtype",
)  # fmt: skip
CONTEXT = 256


@dataclass(frozen=True, kw_only=True)
class Config(TrainSettings):
    """Settings of a run that trains a reranker."""

    data: Annotated[
        tuple[Path, ...],
        "Rows of {query, pos_doc, neg_doc}, {query, positive, negatives}, {query, sentence, relevant} or "
        "{question, context, answer}.",
    ]
    test: Annotated[tuple[Path, ...], "Such rows that the report is made on, instead of --held-out."] = ()
    kind: Annotated[
        Literal["lexical", "cross-encoder"], "Five weights of shared words, or an encoder that reads both."
    ] = "lexical"
    preset: Annotated[
        Literal["mini", "tiny", "small"], "Cross-encoder: 2 layers of width 128, 4 of 256, or 6 of 384."
    ] = "mini"
    blocks: Annotated[dict[str, Any], "Single fields of its blocks, e.g. --set blocks.hidden_size=64."] = (
        field(default_factory=dict[str, Any])
    )
    tokenizer: Annotated[str, "Tokenizer of a cross-encoder: 'byte', or a directory or tokenizer.json."] = (
        "byte"
    )
    context: Annotated[int, "Tokens of query and document together; 0: 256."] = 0
    pairs: Annotated[int, "Most documents that do not answer, beside each that does."] = 8
    others: Annotated[int, "Documents of other queries beside each that answers."] = 1
    candidates: Annotated[
        int, "For the report a query's documents are filled up to so many with those of others; 0: not."
    ] = 20
    held_out: Annotated[float, "Share of the queries that is kept back for the report."] = 0.2
    val_split: Annotated[float, "Share whose loss is watched, and by which scores become probabilities."] = (
        0.1
    )
    steps: Annotated[int | None, "Optimizer steps; not given: 1000 lexical, 600 cross-encoder."] = None
    batch: Annotated[int | None, "Pairs of a step; not given: 256 lexical, 32 cross-encoder."] = None
    lr: Annotated[float | None, "Peak learning rate; not given: 0.1 lexical, 1e-3 cross-encoder."] = None
    eval_every: Annotated[int, "Steps between looks at the kept-back loss; 0: only at the end."] = 100
    eval_batches: Annotated[int, "Batches that such a look reads; 0: all."] = 0
    out: Annotated[
        Path, "Run directory to make: run.json, events.jsonl, steps/ and final/, the reranker."
    ] = Path("reranker")
    seed: Annotated[int | None, "Of weights, order and split."] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {f.name: f.default for f in fields(type(self))} | {"blocks": {}}
        for name in IDLE:
            if getattr(self, name) != known[name]:
                raise ConfigError(f"{_flag(name)} means nothing for a reranker", hint="leave it out")
        if self.kind == "lexical":
            for name in OF_CROSS:
                if getattr(self, name) != known[name]:
                    raise ConfigError(
                        f"{_flag(name)} means nothing for a lexical reranker",
                        hint="leave it out, or add --kind cross-encoder",
                    )
        for name in ("held_out", "val_split"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{_flag(name)} must be at least 0 and below 1")
        if self.held_out + self.val_split >= 1:
            raise ConfigError("--held-out and --val-split leave nothing to learn from", hint="lower one")
        if self.test and self.held_out != type(self).held_out:
            raise ConfigError("--test brings the queries of the report, --held-out cuts some off")
        if not self.test and not self.held_out:
            raise ConfigError("there is nothing to report on", hint="give --held-out a share, or --test")
        if not self.val_split:
            raise ConfigError("--val-split 0 leaves nothing to watch", hint="0.05 does")
        for name, least in (("pairs", 0), ("others", 0), ("candidates", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{_flag(name)} must be at least {least}, got {getattr(self, name)}")
        if not self.pairs and not self.others:
            raise ConfigError("--pairs 0 and --others 0 leave no pair to learn from", hint="raise one")
        if 0 < self.context < 16:
            raise ConfigError(f"--context must be at least 16, got {self.context}")

    @property
    def length(self) -> int:
        """Tokens of query and document together."""
        return self.context or CONTEXT

    def derived(self) -> dict[str, Any]:
        if self.kind == "lexical":
            return {"steps": 1000, "batch": 256, "lr": 0.1}
        return {"steps": 600, "batch": 32, "lr": 1e-3}


def _flag(name: str) -> str:
    return "--set blocks.*" if name == "blocks" else f"--{name.replace('_', '-')}"
