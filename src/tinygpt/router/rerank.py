"""A reranker: a query and documents in, how well each answers the query out; the directory it is saved in.

A score is a logit: `platt` makes of what the module says the log-odds that a document answers, fitted on
documents kept back for it.

Paper: Platt 1999, Probabilistic Outputs for Support Vector Machines (also the targets that are not quite 0
and 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from mlx.utils import tree_flatten

from tinygpt.core import files
from tinygpt.core.backend import mx
from tinygpt.core.config import from_dict, to_dict
from tinygpt.core.errors import CheckpointError, ConfigError, DataError
from tinygpt.data.tokenizer import hf
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.router import router
from tinygpt.router.encoder import Facts
from tinygpt.router.rerank_cross import EXTRA, LABELS, Cross, Reading
from tinygpt.router.rerank_lexical import FEATURES, THEIRS, Lexical, Rarity, features

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

KIND, PURPOSE = "classifier", "rerank"
CONFIG = "config.json"
COUNTS = "rarity.counts"  # the tensor beside the module's own
RARITY = ("documents", "mean")
STEPS = 50  # of Newton's method
LEXICAL, CROSS = "lexical", "cross-encoder"


@dataclass(frozen=True, kw_only=True)
class Platt:
    """logit = slope s + intercept."""

    slope: Annotated[float, "What a score is multiplied by."] = 1.0
    intercept: Annotated[float, "What is added to it."] = 0.0
    documents: Annotated[int, "How many documents it was fitted on; 0: it was not."] = 0


class Scoring(Protocol):
    """What a kind of reranker brings."""

    @property
    def kind(self) -> str: ...
    @property
    def module(self) -> Any: ...
    @property
    def rarity(self) -> Rarity: ...
    def raw(self, query: str, documents: Sequence[str]) -> list[float]: ...
    def told(self) -> dict[str, Any]: ...
    def save(self, folder: Path) -> None: ...


class ByWords:
    """The lexical kind."""

    kind = LEXICAL

    def __init__(self, module: Lexical, rarity: Rarity) -> None:
        self.module, self.rarity = module, rarity

    def raw(self, query: str, documents: Sequence[str]) -> list[float]:
        """s of each document."""
        found = mx.array([features(query, document, self.rarity) for document in documents])
        return [float(s) for s in self.module(found.reshape(len(documents), len(FEATURES)))]

    def told(self) -> dict[str, Any]:
        return {"features": list(FEATURES)}

    def save(self, folder: Path) -> None:
        """It has no files of its own."""


class ByReading:
    """The cross-encoder."""

    kind = CROSS

    def __init__(self, module: Cross, rarity: Rarity, tokenizer: Tokenizer) -> None:
        self.module, self.rarity, self.tokenizer = module, rarity, tokenizer
        self.reading = Reading(tokenizer, rarity, module.config.max_position_embeddings)

    def raw(self, query: str, documents: Sequence[str]) -> list[float]:
        """s of each document: that of its best window."""
        windows = self.reading.windows(query, documents)
        z_NC = router.logits(self.module, [ids for each in windows for ids in each], self.tokenizer.pad_id)
        scores = iter((z_NC[:, 1] - z_NC[:, 0]).tolist())
        shared = mx.array([features(query, document, self.rarity) for document in documents])
        plain = shared @ self.module.lexical_weight
        return [float(s) + max(next(scores) for _ in each) for s, each in zip(plain, windows, strict=True)]

    def told(self) -> dict[str, Any]:
        return {"model": self.module.facts.model}

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder)


class Reranker:
    """How well documents answer a query."""

    def __init__(self, scoring: Scoring, platt: Platt | None = None, name: str = "") -> None:
        self.scoring, self.platt, self.name = scoring, platt or Platt(), name

    @classmethod
    def open(cls, path: Path) -> Reranker:
        """That of a directory, of a run's final/, or of the original's JSON file {weights: [4], bias}.
        CheckpointError where it is none."""
        path = Path(path)
        if path.is_file():
            return _theirs(path)
        if not (path / checkpoint.MANIFEST).exists() and (path / "final").is_dir():
            path = path / "final"
        manifest = checkpoint.validate(path)
        if manifest["kind"] != KIND or manifest.get("purpose") != PURPOSE:
            what = manifest.get("purpose") or manifest["kind"]
            raise CheckpointError(
                f"{path} is a {what}, a reranker was expected", hint="tinygpt rerank-train makes them"
            )
        told = checkpoint.read_json(path / CONFIG)
        tensors = checkpoint.read_tensors(path, "model")
        try:
            platt = from_dict(Platt, told.get("platt") or {}, "platt")
            rarity = _rarity(told.get("rarity"), tensors.pop(COUNTS, None))
            scoring = _scoring(path, told, rarity)
        except (ConfigError, DataError) as error:
            raise CheckpointError(f"{path / CONFIG}: {error.message}", hint=error.hint) from error
        router.fill(scoring.module, tensors, str(path))
        return cls(scoring, platt, path.name)

    @property
    def kind(self) -> str:
        return self.scoring.kind

    def scores(self, query: str, documents: Sequence[str]) -> list[float]:
        """The logit of each document, the higher the better."""
        if not documents:
            return []
        a, b = self.platt.slope, self.platt.intercept
        return [a * s + b for s in self.scoring.raw(query, documents)]

    def probabilities(self, query: str, documents: Sequence[str]) -> list[float]:
        """How probable each document is to answer."""
        return [_sigmoid(z) for z in self.scores(query, documents)]


def save(path: Path, reranker: Reranker, **kept: Any) -> Path:
    """Write a reranker as a checkpoint directory in one step; `kept` is what `checkpoint.written` takes."""
    scoring = reranker.scoring
    told = {"purpose": PURPOSE, "kind": scoring.kind, **scoring.told(), "platt": to_dict(reranker.platt)}
    told["rarity"] = {name: getattr(scoring.rarity, name) for name in RARITY}
    with checkpoint.written(path, kind=KIND, purpose=PURPOSE, **kept) as folder:
        files.write_json(folder / CONFIG, told)
        tensors = dict(tree_flatten(scoring.module.parameters()))
        checkpoint.write_tensors(folder, "model", tensors | {COUNTS: mx.array(scoring.rarity.counts)})
        scoring.save(folder)
    return Path(path)


def fitted(
    raw: Callable[[str, Sequence[str]], Sequence[float]], judged: Sequence[tuple[str, str, bool]]
) -> Platt:
    """Slope and intercept of the least negative log-likelihood of (query, document, answers), by Newton's
    method; the slope is at least 1e-3, so that no order is turned round."""
    import numpy as np

    by_query: dict[str, list[tuple[str, bool]]] = {}
    for query, document, yes in judged:
        by_query.setdefault(query, []).append((document, yes))
    s = np.array([z for query, docs in by_query.items() for z in raw(query, [d for d, _ in docs])], float)
    y = np.array([yes for docs in by_query.values() for _, yes in docs], float)
    n, n_yes = len(y), float(y.sum())
    if not n_yes or n_yes == n:
        return Platt()
    wanted = np.where(y > 0, (n_yes + 1) / (n_yes + 2), 1 / (n - n_yes + 2))
    spread = float(s.std()) or 1.0
    x = np.stack([s / spread, np.ones(n)], axis=1)
    ab = np.array([0.0, math.log(n_yes / (n - n_yes))])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ ab, -30, 30)))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2)
        move = np.linalg.solve(hessian, x.T @ (wanted - p))
        ab = ab + move * min(1.0, 2.0 / max(1e-12, float(np.abs(move).max())))
        if np.abs(move).max() < 1e-9:
            break
    return Platt(slope=max(1e-3, float(ab[0]) / spread), intercept=float(ab[1]), documents=n)


def _rarity(told: Any, counts: mx.array | None) -> Rarity:
    import numpy as np

    if not isinstance(told, Mapping) or any(not isinstance(told.get(k), int | float) for k in RARITY):
        raise DataError("'rarity' does not say 'documents' and 'mean'")
    if counts is None:
        raise DataError(f"the tensor '{COUNTS}' is missing")
    return Rarity(np.array(counts), int(told["documents"]), float(told["mean"]))


def _scoring(path: Path, told: Mapping[str, Any], rarity: Rarity) -> Scoring:
    kind = told.get("kind")
    if kind == LEXICAL:
        if told.get("features") != list(FEATURES):
            raise DataError(f"the features are {told.get('features')}, {list(FEATURES)} were expected")
        return ByWords(Lexical(), rarity)
    if kind != CROSS:
        raise DataError(f"the kind '{kind}' is unknown", hint=f"{LEXICAL} or {CROSS}")
    facts = Facts(labels=LABELS, model=told.get("model") or {})
    module = Cross(from_dict(ModelConfig, facts.model, "model"), facts)
    tokenizer = hf.load(path)
    if tokenizer.vocab_size + EXTRA > module.config.vocab_size:
        raise DataError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the encoder too few for them and marks"
        )
    return ByReading(module, rarity, tokenizer)


def _theirs(path: Path) -> Reranker:
    """The original's file: four weights and a bias, no counts of words."""
    import numpy as np

    told = checkpoint.read_json(path)
    weights, bias = told.get("weights"), told.get("bias")
    numbers = weights if isinstance(weights, list) else []
    if len(numbers) != len(THEIRS) or not all(_number(value) for value in (*numbers, bias)):
        raise CheckpointError(
            f"{path} is no reranker: {{weights: [{', '.join(THEIRS)}], bias}} was expected",
            hint="give such a file, or a directory of rerank-train",
        )
    module = Lexical()
    module.weight = mx.array([*numbers, 0.0])
    rarity = Rarity(np.zeros(1 << 16, np.int32), 0, 0.0)
    return Reranker(ByWords(module, rarity), Platt(intercept=float(told["bias"])), path.stem)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0
