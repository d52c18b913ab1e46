"""Rerank-train: from queries with documents that answer them and documents that do not, a reranker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinygpt.core.config import to_dict
from tinygpt.core.events import Events
from tinygpt.model import checkpoint
from tinygpt.router import rerank, router
from tinygpt.router.rerank import COUNTS, Reranker
from tinygpt.router.rerank_objective import PairLoss
from tinygpt.runs import _directory, _pieces, _rerank_data, _rerank_kinds, _rerank_report, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._rerank_settings import Config
from tinygpt.train.loop import Result
from tinygpt.train.world import world


def run(config: Config, events: Events) -> Result:
    """Train and leave `out/final`: a reranker with its report on queries kept back."""
    directory = RunDirectory("rerank-train", config, world())
    seed = directory.seed
    parts = _rerank_data.read(config, seed, events)
    scoring, learned, tokenizer = _rerank_kinds.build(config, parts, seed, events)
    judged = [
        (group.query, document, yes)
        for group in parts.watch
        for documents, yes in ((group.positives, True), (group.negatives, False))
        for document in documents
    ]

    def write(path: Path, **more: Any) -> Path:
        if "optimizer" in more:  # a checkpoint to go on from is not what is reported on
            return rerank.save(path, Reranker(scoring), **more)
        made = Reranker(scoring, rerank.fitted(scoring.raw, judged))
        found = _rerank_report.report(made.scores, parts.test, candidates=config.candidates, seed=seed)
        told = {"kind": scoring.kind, "learned_from": len(parts.learn), "platt": to_dict(made.platt), **found}
        return rerank.save(path, made, report=told, **more)

    def resume(path: Path) -> None:
        tensors = checkpoint.read_tensors(path, "model")
        tensors.pop(COUNTS, None)
        router.fill(scoring.module, tensors, str(path))

    facts = {"learned_parameters": _pieces.n_parameters(scoring.module), **learned.describe()}
    return _train.train(
        directory, source=learned, held_out=learned.held_out, objective=PairLoss(scoring.module),
        inputs=_directory.inputs(learned, tokenizer, None), write=write, resume=resume, events=events,
        facts=facts | {"epochs": learned.epochs(config.amounts.steps)}, tokenizer=tokenizer,
    )  # fmt: skip
