"""How good a classifier is on rows that it has not seen: by class, and whether its probabilities are true.

The expected calibration error is the mean, over bins of confidence and weighted by their rows, of how far the
share that is right lies from the mean confidence.

Paper: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599 (eq. 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 10


def report(
    probabilities: NDArray[np.float64], labels: Sequence[int], classes: Sequence[str]
) -> dict[str, Any]:
    """{rows, accuracy, macro_f1, ece, brier, classes, confusion, bins}. Of a class there are precision,
    recall, f1 and rows; confusion[i][j] are the rows of class i that were taken for class j."""
    import numpy as np

    y, p = np.asarray(labels), np.asarray(probabilities)
    taken, n = p.argmax(axis=1), len(classes)
    confusion = np.zeros((n, n), int)
    np.add.at(confusion, (y, taken), 1)
    hits = np.diag(confusion)
    precision = hits / np.maximum(1, confusion.sum(axis=0))
    recall = hits / np.maximum(1, confusion.sum(axis=1))
    f1 = 2 * precision * recall / np.maximum(1e-12, precision + recall)
    found = bins(p.max(axis=1), taken == y)
    ece = sum(b["rows"] * abs(b["accuracy"] - b["confidence"]) for b in found) / max(1, len(y))
    return {
        "rows": len(y), "accuracy": float((taken == y).mean()), "macro_f1": float(f1.mean()),
        "ece": float(ece), "brier": float(((p - np.eye(n)[y]) ** 2).sum(axis=1).mean()),
        "classes": {
            name: {"precision": float(precision[i]), "recall": float(recall[i]), "f1": float(f1[i]),
                   "rows": int(confusion[i].sum())}
            for i, name in enumerate(classes)
        },
        "confusion": confusion.tolist(), "bins": found,
    }  # fmt: skip


def bins(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """{low, high, rows, confidence, accuracy} of equal ranges of confidence that have rows."""
    import numpy as np

    where = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {"low": i / BINS, "high": (i + 1) / BINS, "rows": int(inside.sum()),
         "confidence": float(confidence[inside].mean()), "accuracy": float(right[inside].mean())}
        for i in range(BINS) if (inside := where == i).any()
    ]  # fmt: skip
