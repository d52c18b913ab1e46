"""The report of a router: figures on requests kept back, each with its interval, beside the baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.rows import wilson
from tinygpt.data import classified
from tinygpt.data.requests import NOTHING
from tinygpt.eval.paired import difference
from tinygpt.router import baseline
from tinygpt.router.pairs import Pair
from tinygpt.router.router import READERS, Router
from tinygpt.runs import _classifier
from tinygpt.runs._bench_plot import plotter

DRAWS = 1000  # bootstrap samples of macro-F1 and of the calibration error


def report(
    router: Router,
    test: Sequence[Pair],
    learned: Sequence[Pair],
    descriptions: Mapping[str, str],
    *,
    baselines: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """{rows, accuracy, macro_f1, ece, readers, abstain, classes, bins, baselines}; a figure is
    {value, low, high}.

    A request whose tool the router does not know counts as wrong. Macro-F1 is over the classes that the
    requests have; of a class there are precision and recall with their Wilson intervals."""
    import numpy as np

    names = (*router.labels, *sorted({tool for _, tool in test} - set(router.labels)))
    said = router.said([query for query, _ in test])
    p_NC = router.calibration.probabilities(said)
    p_NC = np.pad(p_NC, [(0, 0), (0, len(names) - len(router.labels))])
    y_N = np.array([names.index(tool) for _, tool in test])
    taken_N, sure_N = p_NC.argmax(axis=1), p_NC.max(axis=1)
    right_N = taken_N == y_N
    plain = classified.report(p_NC, y_N.tolist(), names)
    drawn = _draws(len(test), seed)
    figures = {
        "accuracy": _share(int(right_N.sum()), len(test)),
        "macro_f1": _spread(lambda at: _macro_f1(y_N[at], taken_N[at], len(names)), drawn),
        "ece": _spread(lambda at: _ece(sure_N[at], right_N[at]), drawn),
        "brier": plain["brier"],
    }
    alone = {
        name: {"accuracy": _share(int((z_NC.argmax(axis=1) == y_N).sum()), len(test)), "trust": trust}
        for name, z_NC, trust in zip(READERS, said, router.calibration.trust, strict=True)
    }
    told: dict[str, Any] = {"rows": len(test), **figures, "readers": alone, "abstain": None}
    if NOTHING in names:
        c = names.index(NOTHING)
        told["abstain"] = _of_class(y_N == c, taken_N == c)
    told["classes"] = {
        name: {**_of_class(y_N == c, taken_N == c), "f1": plain["classes"][name]["f1"]}
        for c, name in enumerate(names)
    }
    told |= {"confusion": plain["confusion"], "labels": list(names), "bins": plain["bins"]}
    if baselines:
        told["baselines"] = _beside(right_N, y_N, names, test, learned, descriptions, drawn)
    return told


def draw(folder: Path, bins: Sequence[Mapping[str, Any]]) -> None:
    """The picture of the calibration, as that of the text classifiers."""
    _classifier.draw(plotter(), folder / _classifier.PICTURE, bins)


def _beside(
    right_N: Any, y_N: Any, names: Sequence[str], test: Sequence[Pair], learned: Sequence[Pair],
    descriptions: Mapping[str, str], drawn: Any,
) -> dict[str, Any]:  # fmt: skip
    """By baseline its accuracy and macro-F1, and by how much the router is right more often, paired."""
    import numpy as np

    found: dict[str, Any] = {}
    for name, tools in baseline.predictions(learned, [q for q, _ in test], descriptions).items():
        taken_N = np.array([names.index(tool) for tool in tools])
        theirs = taken_N == y_N
        lead = difference(right_N.tolist(), theirs.tolist(), [1.0] * len(test))
        found[name] = {
            "accuracy": _share(int(theirs.sum()), len(test)),
            "macro_f1": _spread(lambda at, t=taken_N: _macro_f1(y_N[at], t[at], len(names)), drawn),
            "lead": {"value": lead.value, "low": lead.low, "high": lead.high, "clear": lead.clear},
        }
    return found


def _share(hits: int, n: int) -> dict[str, float]:
    low, high = wilson(hits, n)
    return {"value": hits / max(1, n), "low": low, "high": high}


def _of_class(is_N: Any, taken_N: Any) -> dict[str, Any]:
    """Precision and recall of a class, by which rows are of it and which were taken for it."""
    hits, n_taken, n = int((is_N & taken_N).sum()), int(taken_N.sum()), int(is_N.sum())
    return {"precision": _share(hits, n_taken), "recall": _share(hits, n), "rows": n}


def _draws(n: int, seed: int) -> Any:
    import numpy as np

    return np.random.default_rng(seed).integers(0, n, (DRAWS, n))


def _spread(figure: Callable[[Any], float], drawn: Any) -> dict[str, float]:
    """A figure of all rows, and the middle 95 % of it over bootstrap samples."""
    import numpy as np

    low, high = np.quantile([figure(at) for at in drawn], [0.025, 0.975])
    return {"value": figure(np.arange(drawn.shape[1])), "low": float(low), "high": float(high)}


def _macro_f1(y_N: Any, taken_N: Any, n: int) -> float:
    """The mean over classes that rows have of 2 TP / (2 TP + FP + FN)."""
    import numpy as np

    rows, taken = np.bincount(y_N, minlength=n), np.bincount(taken_N, minlength=n)
    hits = np.bincount(y_N[y_N == taken_N], minlength=n)
    there = rows > 0
    return float((2 * hits[there] / (rows + taken)[there]).mean())


def _ece(sure_N: Any, right_N: Any) -> float:
    """Mean distance of confidence and share that is right, over bins, weighted by their rows."""
    found = classified.bins(sure_N, right_N)
    return sum(b["rows"] * abs(b["accuracy"] - b["confidence"]) for b in found) / max(1, len(sure_N))
