"""Directories of classifiers: config, tensors, report, picture under a manifest; how one is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from tinygpt.core import files
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError, ConfigError, DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data import classified, classifier
from tinygpt.data.classifier import Classifier, Settings
from tinygpt.model import checkpoint
from tinygpt.runs._bench_plot import plotter, write

LEARNED = "held out, but learned from"
KIND = "classifier"
PICTURE = "calibration.png"
CHUNK = 512  # texts that are hashed at once
OURS = ("config.json", "report.json", PICTURE, "model.safetensors", checkpoint.MANIFEST)


def save(path: Path, made: Classifier, report: Mapping[str, Any], *, purpose: str, force: bool) -> Path:
    """Write a classifier with its report and the picture of its calibration, in one step."""
    pyplot = plotter()
    with files.atomic_directory(path, replace=force) as folder:
        files.write_json(folder / "config.json", {"purpose": purpose, **made.told()})
        arrays = made.arrays()
        tensors = {k: mx.array(v.astype("int32" if k == "offsets" else "float32")) for k, v in arrays.items()}
        checkpoint.write_tensors(folder, "model", tensors)
        files.write_json(folder / "report.json", report)
        draw(pyplot, folder / PICTURE, report["bins"])
        checkpoint.seal(folder, kind=KIND, purpose=purpose)
    return path


def refuse(path: Path, *, force: bool) -> None:
    """ConfigError where a classifier must not be written, DependencyError where its picture cannot be."""
    files.refuse_existing(path, force=force, what="classifier", mark=checkpoint.MANIFEST)
    plotter()


def load(path: Path, purpose: str = "") -> Classifier:
    """A classifier, its files checked against the manifest. CheckpointError where it is none, or one for
    another purpose."""
    import numpy as np

    manifest = checkpoint.validate(path)
    if manifest["kind"] != KIND:
        raise CheckpointError(f"{path} is of kind {manifest['kind']}, not a classifier")
    told = checkpoint.read_json(path / "config.json")
    if purpose and told.get("purpose") != purpose:
        raise CheckpointError(
            f"{path} is a classifier for {told.get('purpose')}, one for {purpose} was expected",
            hint="train one: tinygpt train-quality-classifier, or reasoning-classify --train",
        )
    tensors = checkpoint.read_tensors(path, "model")
    try:
        return classifier.rebuilt(told, {name: np.array(tensor) for name, tensor in tensors.items()})
    except DataError as error:
        raise CheckpointError(f"{path}: {error.message}", hint=checkpoint.AGAIN) from error


def toxic(path: Path) -> Classifier:
    """The classifier of `filter --toxicity-model`."""
    if str(path) == "heuristic":
        raise ConfigError(
            "--toxicity-model heuristic, a list of words, is no classifier and is gone",
            hint="train one: tinygpt train-quality-classifier --positive toxic.jsonl --negative fine.jsonl",
        )
    return load(path, "quality")


def hashed(texts: Iterable[str], settings: Settings, events: Events, task: str) -> Any:
    """Features of texts that are read one by one: about 8 bytes for each run of words that a text has, the
    texts themselves are let go."""
    from scipy import sparse

    parts, chunk, n = list[Any](), list[str](), 0
    for text in texts:
        chunk.append(text)
        if len(chunk) == CHUNK:
            parts.append(classifier.features(chunk, settings))
            n += len(chunk)
            chunk = []
            events.emit(Progress(task=task, done=n, total=0, unit="texts"))
    if chunk:
        parts.append(classifier.features(chunk, settings))
    return sparse.vstack(parts, format="csr")


def split(labels: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the rows to learn from and to judge by: of each class the same share, drawn by the seed."""
    judged = set[int]()
    for c in sorted(set(labels)):
        members = [i for i, label in enumerate(labels) if label == c]
        n = max(1, round(share * len(members)))
        judged |= set(Random(f"{seed} held out {c}").sample(members, min(n, len(members))))
    return [i for i in range(len(labels)) if i not in judged], sorted(judged)


def trained(
    pairs: Callable[[], Iterable[tuple[str, int]]],
    classes: Sequence[str],
    settings: Settings,
    events: Events,
    *,
    held_out: float,
    judged_by: Callable[[], Iterable[tuple[str, int]]] | None = None,
) -> tuple[Classifier, dict[str, Any]]:
    """A classifier of (text, class) pairs, and its report on rows that it has not seen: a share of them, or
    others. A text that comes again counts once; one that comes in two classes is in neither."""
    dropped = {"duplicates": 0, "in two classes": 0}
    known: set[bytes] = set()
    rows, labels = _unique(pairs, settings, events, dropped, known)
    if judged_by is None:
        learn, judge = split(labels, held_out, settings.seed)
        others, theirs = rows[judge], [labels[i] for i in judge]
        rows, labels = rows[learn], [labels[i] for i in learn]
    else:
        twice = {"duplicates": 0, "in two classes": 0, LEARNED: 0}
        others, theirs = _unique(judged_by, settings, events, twice, known)
        dropped[LEARNED] = twice[LEARNED]
    events.note(f"learning from {len(labels)} texts, judging by {len(theirs)}")
    made = classifier.learned(rows, labels, classes, settings)
    report = classified.report(made.of_features(others), theirs, classes)
    counts = {name: labels.count(i) for i, name in enumerate(classes)}
    return made, {"learned_from": counts, "dropped": dropped, "calibration": made.method, **report}


def _unique(
    pairs: Callable[[], Iterable[tuple[str, int]]],
    settings: Settings,
    events: Events,
    dropped: dict[str, int],
    known: set[bytes],
) -> tuple[Any, list[int]]:
    """Features and classes of texts, each once, without those of `known`; theirs are added to it."""
    first, again = dict[bytes, int](), set[bytes]()
    for text, label in pairs():
        key = _key(text)
        if first.setdefault(key, label) != label:
            again.add(key)
    labels, seen, before = list[int](), set[bytes](), frozenset(known)

    def used() -> Iterable[str]:
        for text, label in pairs():
            key = _key(text)
            if key in before:
                dropped[LEARNED] += 1
            elif key in again:
                dropped["in two classes"] += 1
            elif key in seen:
                dropped["duplicates"] += 1
            else:
                seen.add(key)
                labels.append(label)
                yield text

    if not first.keys() - again - before:
        raise DataError(
            "no text is left to judge by: all were learned from" if before else
            "every text is in two classes" if first else "there are no texts"
        )  # fmt: skip
    known.update(first)
    return hashed(used(), settings, events, "hash"), labels


def _key(text: str) -> bytes:
    """What a text is known by, whatever its spaces."""
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=12).digest()


def draw(pyplot: Any, path: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """The picture: how often the classifier is right, over how sure it was."""
    figure, (top, below) = pyplot.subplots(
        2, 1, figsize=(5, 6), layout="constrained", sharex=True, height_ratios=[3, 1]
    )
    top.plot([0, 1], [0, 1], linestyle="--", color="#999", label="calibrated")
    x, y = [b["confidence"] for b in found], [b["accuracy"] for b in found]
    top.plot(x, y, marker="o", label="held-out rows")
    top.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    top.legend()
    below.bar([b["low"] for b in found], [b["rows"] for b in found], width=1 / classified.BINS, align="edge")
    below.set(xlabel="confidence", ylabel="rows")
    write(pyplot, figure, path)
