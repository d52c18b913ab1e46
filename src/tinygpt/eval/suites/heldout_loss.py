"""Held-out loss: how well the model predicts text it has not seen, in nats a token and bits a byte.

`loss = - sum_t log p(x_t | x_<t) / n_tokens`, `perplexity = exp(loss)`, `bits_per_byte = nats / ln 2 /
n_bytes`. Bits per byte divides by the bytes of the original text, so models with different tokenizers can be
compared, and with gzip too. Every byte counts once. A long document is read in windows that overlap: a window
starts `stride` tokens after the one before it and scores only what that one did not, so that no token is
predicted without context but a document's first, which follows the start token.

Paper: Gao et al. 2020 (The Pile), arXiv:2101.00027, section 3.1 (bits per byte); Baevski and Auli, ICLR 2019,
arXiv:1809.10853, section 4.4 (overlapping windows).
Differs: the end of a document is not predicted, because it is no byte of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import to_dict
from tinygpt.core.errors import ConfigError, DataError, UnsupportedError
from tinygpt.data import corpus
from tinygpt.data.source import text as text_source
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, bootstrap, row

TASK = "heldout_loss"
AT_ONCE = 64  # windows in one request to the endpoint


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the held-out loss."""

    paths: Annotated[tuple[Path, ...], "Text files, .jsonl files with {text} rows, or folders."] = ()
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    field: Annotated[str, "Which field of .jsonl and .parquet rows holds the text."] = "text"
    name: Annotated[str, "Task name in the rows."] = TASK
    context: Annotated[int, "Longest window in tokens; 0: the model's context."] = 0
    stride: Annotated[int, "Tokens from one window to the next, at most the context; 0: half of it."] = 0
    limit_bytes: Annotated[int, "Stop after the document that reaches so many bytes; 0: read all."] = 0

    def __post_init__(self) -> None:
        for name in ("context", "stride", "limit_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"'{name}' must not be negative, got {getattr(self, name)}")


def load(config: Config) -> Examples:
    """The documents, each {"id", "text"}, read as training reads them."""
    if not config.paths:
        raise ConfigError(f"{TASK} has no text to read", hint="give --corpus a file or a folder")
    source = text_source.Config(paths=config.paths, glob=config.glob, field=config.field)
    corpus.refuse_mixture(config.paths, weights_only=False)
    files = corpus.find(source)
    corpus.refuse_field(config.field, files)
    documents: list[dict[str, Any]] = []
    facts = corpus.new_facts()
    total = 0
    for path in files:
        texts = corpus.documents(path, facts, config.field)
        rows = corpus.has_rows(path)
        for i, text in enumerate(texts):
            if not config.limit_bytes or total < config.limit_bytes:
                documents.append({"id": f"{path}#{i}" if rows else str(path), "text": text})
                total += len(text.encode())
        if config.limit_bytes and total >= config.limit_bytes:
            break
    text_source.refuse_bad(source, facts)
    sentence = text_source.left_out(len(files), facts)
    return Examples.of(documents, [sentence] if sentence else [])


def windows(n_targets: int, context: int, stride: int) -> list[tuple[int, int]]:
    """(start, first) of each window: it reads ids from `start` and scores targets from `first` to its end.

    Target t is ids[t + 1]; window `start` covers the targets start .. start + context - 1.
    """
    starts = range(0, max(1, n_targets - context + stride), stride)
    return [(start, 0 if start == 0 else start + context - stride) for start in starts]


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """Three rows: loss (nats a token), perplexity (of a token), bits_per_byte."""
    clock = Clock()
    tokenizer = endpoint.tokenizer
    if tokenizer is None:
        raise UnsupportedError(f"{endpoint.name} does not show its tokens, so its loss cannot be measured")
    context = config.context or endpoint.context
    if not context:
        raise ConfigError(f"the context of {endpoint.name} is not known", hint=f"give {TASK}'s 'context'")
    stride = config.stride or max(1, context // 2)
    if not 1 <= stride <= context <= (endpoint.context or context):
        raise ConfigError(
            f"held-out loss with context {context} and stride {stride} does not fit",
            hint=f"1 <= stride <= context <= {endpoint.context}, the model's context",
        )
    start_id = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    encoded = tokenizer.encode_batch([item["text"] for item in examples.items])
    documents: list[dict[str, Any]] = [
        {"id": item["id"], "n_bytes": len(item["text"].encode()), "n_tokens": len(ids), "nats": 0.0,
         "lossless": tokenizer.decode(ids) == item["text"], "ids": [start_id, *ids]}
        for item, ids in zip(examples.items, encoded)
    ]  # fmt: skip
    jobs = [
        (document, start, first)
        for document in documents
        if document["n_tokens"]
        for start, first in windows(document["n_tokens"], context, stride)
    ]
    for at in range(0, len(jobs), AT_ONCE):
        part = jobs[at : at + AT_ONCE]
        scores = endpoint.token_logprobs([d["ids"][start : start + context + 1] for d, start, _ in part])
        for (document, start, first), logprobs in zip(part, scores, strict=True):
            document["nats"] -= math.fsum(logprobs[first - start :])
    rows_ = _rows(endpoint, documents, examples, config, {"context": context, "stride": stride}, clock)
    records = [{**_record(document), "task": config.name, "subtasks": [None]} for document in documents]
    return SuiteResult(rows=rows_, examples=records)


def _rows(
    endpoint: Endpoint,
    documents: Sequence[dict[str, Any]],
    examples: Examples,
    config: Config,
    derived: dict[str, int],
    clock: Clock,
) -> list[Any]:
    n_bytes, n_tokens = (sum(d[key] for d in documents) for key in ("n_bytes", "n_tokens"))
    if not n_tokens:
        raise DataError("the held-out text is empty", hint="give a file with text in it")
    nats = math.fsum(d["nats"] for d in documents)
    counts = {"n_bytes": n_bytes, "n_tokens": n_tokens, "n_documents": len(documents)}
    lossy = sum(not d["lossless"] for d in documents)
    notes = [*examples.notes, *([f"{lossy} documents lose characters in the tokenizer"] if lossy else [])]
    settings = to_dict(config) | derived | counts | {"notes": notes}
    settings["paths"] = [str(path) for path in config.paths]
    scores = {
        "loss": nats / n_tokens,
        "perplexity": math.exp(min(nats / n_tokens, 700.0)),  # an overflow would say no more than 1e304
        "bits_per_byte": nats / math.log(2) / n_bytes,
    }
    seconds = clock.seconds()
    found = []
    for metric, value in scores.items():
        of = "loss" if metric == "perplexity" else metric
        pairs = [(d["scores"][of], d["weights"][of]) for d in map(_record, documents) if d["n_tokens"]]
        interval = bootstrap([v for v, _ in pairs], [w for _, w in pairs])
        if interval and metric == "perplexity":
            interval = math.exp(min(interval[0], 700.0)), math.exp(min(interval[1], 700.0))
        told = {"interval": interval, "settings": settings}
        found.append(
            row(endpoint, config.name, metric, value, len(documents), seconds, examples.version, **told)
        )
    return found


def _record(document: dict[str, Any]) -> dict[str, Any]:
    shown = {key: document[key] for key in ("id", "n_bytes", "n_tokens", "nats", "lossless")}
    n_tokens, n_bytes = max(1, document["n_tokens"]), max(1, document["n_bytes"])
    scores = {"loss": document["nats"] / n_tokens, "bits_per_byte": document["nats"] / math.log(2) / n_bytes}
    weights = {"loss": document["n_tokens"], "bits_per_byte": document["n_bytes"]}
    return shown | {"scores": scores, "weights": weights}
