"""Compress: the sentences of a text that a question needs, chosen by BM25, by a trained head, or by place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinygpt.core import files
from tinygpt.core.errors import DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data import rows, table
from tinygpt.data.message import text_of
from tinygpt.data.tally import Tally
from tinygpt.router import compress
from tinygpt.runs._compress_settings import Config

STDIN = Path("-")
NOT_FOUND = "no sentence shares a word with the question"


def run(config: Config, given: Callable[[], str], events: Events) -> dict[str, Any]:
    """{kept, length, of, ratio, unit, sentences}, or with --data {rows, left_out, out, kept_ratio}; `given`
    reads standard input."""
    shorten = _shortener(config)
    if config.data is not None:
        return _of_rows(config, config.data, shorten, events)
    assert config.document is not None
    found = shorten(given() if config.document == STDIN else _text(config.document), config.query)
    if found["length"] > found["room"]:
        told = f"the best sentence alone has {found['length']} {found['unit']}, {found['room']} were wanted"
        events.note(told, "warning")
    if not found["found"]:
        events.note(f"{NOT_FOUND}: the text's beginning is kept", "warning")
    found = {name: value for name, value in found.items() if name not in ("room", "found")}
    if config.out is not None:
        files.write_text(config.out, found["kept"] + "\n")
    return found


def _of_rows(config: Config, path: Path, shorten: Any, events: Events) -> dict[str, Any]:
    tally, made, shares = Tally("rows"), list[Any](), list[float]()
    n_long = n_strange = 0
    assert config.out is not None
    for number, row in table.records(path):
        try:
            told: Any = row()
            if not isinstance(told, dict):
                raise DataError("the row is no object")
            query, context = told.get("question", told.get("query")), told.get("context")
            if not isinstance(query, str) or not isinstance(context, str):
                raise DataError("no 'question' and 'context'")
            found = shorten(text_of(context, "context"), text_of(query, "question"))
        except DataError as error:
            tally.drop(error.message, f"{table.unit(path)} {number}")
            continue
        tally.keep()
        n_long += found["length"] > found["room"]
        n_strange += not found["found"]
        shares.append(found["ratio"])
        made.append(told | {"kept": found["kept"]})
        if not number % 50:
            events.emit(Progress(task="compress", done=number, total=0, unit="rows"))
    if told := tally.sentence():
        events.note(told, "warning")
    if n_long:
        events.note(f"of {n_long} rows the best sentence alone is longer than was wanted", "warning")
    if n_strange:
        events.note(f"of {n_strange} rows the beginning is kept: {NOT_FOUND}", "warning")
    if not made:
        raise DataError(f"no row of {path} can be shortened", hint="rows are {question, context}")
    rows.write(config.out, made)
    return {"rows": len(made), "left_out": tally.n_in - tally.n_out, "out": str(config.out),
            "kept_ratio": sum(shares) / len(shares)}  # fmt: skip


def _shortener(config: Config) -> Callable[[str, str], dict[str, Any]]:
    """shorten(text, query), with what is needed for it opened once."""
    size, unit = _size(config.tokenizer), "tokens" if config.tokenizer else "letters"
    own = compress.by_bm25 if config.kind == "bm25" else compress.by_place
    if config.model is not None:
        from tinygpt.router.rerank import Reranker
        from tinygpt.runs._pieces import model_path

        own = Reranker.open(model_path(config.model)).probabilities
    neighbours = compress.NEIGHBOURS[config.kind] if config.neighbours is None else config.neighbours

    def shorten(text: str, query: str) -> dict[str, Any]:
        whole = size(text.strip())
        room = config.tokens or config.letters or int((config.ratio or 0.5) * whole)
        found = compress.compress(
            text, query, own, room=room, size=size, neighbours=neighbours, threshold=config.threshold,
            most=config.max_sentences, in_order=config.kind == "lead",
        )  # fmt: skip
        length = size(found.text)
        scored = zip(found.units, found.scores, strict=True)
        sentences = [
            {"text": one.text, "kind": one.kind, "score": round(score, 6), "kept": i in found.kept}
            for i, (one, score) in enumerate(scored)
        ]
        return {"kept": found.text, "length": length, "of": whole, "ratio": length / max(1, whole),
                "unit": unit, "sentences": sentences, "room": room,
                "found": any(found.scores)}  # fmt: skip

    return shorten


def _size(tokenizer: str) -> compress.Size:
    if not tokenizer:
        return len
    from tinygpt.runs._pieces import open_tokenizer

    encode = open_tokenizer(tokenizer).encode
    return lambda text: len(encode(text))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(
            f"cannot read {path}: {why}", hint="give a text file, or - for standard input"
        ) from error
