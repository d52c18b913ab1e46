"""A classifier's numbers: those of scikit-learn, the same from files, and a report by its formulas."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import classified, classifier
from tinygpt.data.classifier import Settings

pytestmark = pytest.mark.wide  # scikit-learn takes a second to import
SMALL = Settings(vocab=256, ngram=2, epochs=5)
WORDS = {
    "fruit": ["apple", "pear", "plum", "fig"],
    "tool": ["saw", "axe", "drill", "file"],
    "sky": ["sun", "moon", "star"],
}


def texts(n: int, classes: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Texts mostly of one class's words."""
    draw, names = random.Random(seed), list(WORDS)[:classes]
    every = [word for name in names for word in WORDS[name]]
    labels = [i % classes for i in range(n)]
    return [" ".join(draw.choices(WORDS[names[i]], k=2) + draw.choices(every, k=2)) for i in labels], labels


@pytest.mark.parametrize(("n", "classes"), [(60, 2), (90, 3), (1200, 3)])
def test_probabilities_are_those_of_scikit_learn(
    n: int, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn import calibration

    fitted: list[Any] = []
    whole = calibration.CalibratedClassifierCV.fit
    monkeypatch.setattr(
        calibration.CalibratedClassifierCV, "fit", lambda *a, **k: (fitted.append(a[0]), whole(*a, **k))[1]
    )
    said, labels = texts(n, classes)
    rows = classifier.features(said, SMALL)
    made = classifier.learned(rows, labels, list(WORDS)[:classes], SMALL)
    assert made.method == ("isotonic" if n >= 1000 else "sigmoid")
    other = texts(50, classes, seed=1)[0]
    found = made.probabilities(other)
    np.testing.assert_allclose(found, fitted[0].predict_proba(classifier.features(other, SMALL)), atol=2e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert made.score(other) == found[:, -1].tolist()


def test_what_files_hold_gives_the_same_and_what_does_not_fit_is_refused() -> None:
    said, labels = texts(60, 2)
    made = classifier.learned(classifier.features(said, SMALL), labels, ["fruit", "tool"], SMALL)
    told, arrays = made.told(), made.arrays()
    again = classifier.rebuilt(told, arrays)
    assert again.score(said) == made.score(said)
    wrong: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"classes": ["one"]}, {}, "classes"),
        ({"settings": {"vocab": 3}}, {}, "vocab"),
        ({"settings": {"buckets": 3}}, {}, "buckets"),
        ({"calibration": "none"}, {}, "none"),
        ({}, {"weights": np.zeros((1, 3))}, "weights"),
        ({}, {"offsets": np.array([1, 1])}, "offsets"),
    ]
    for config, tensors, why in wrong:
        with pytest.raises(DataError, match=why):
            classifier.rebuilt(told | config, arrays | tensors)
    with pytest.raises(DataError, match="'knots' is missing"):
        classifier.rebuilt(told, {k: v for k, v in arrays.items() if k != "knots"})


def test_a_rare_class_weighs_as_much_as_a_common_one() -> None:
    """One text in eleven is of it, yet before calibration most of its texts score above zero."""
    wide, (said, labels) = dataclasses.replace(SMALL, vocab=4096), texts(400, 2)
    keep = [i for i, label in enumerate(labels) if label == 0 or i % 20 == 1]
    rows, few = classifier.features([said[i] for i in keep], wide), [labels[i] for i in keep]
    made = classifier.learned(rows, few, ["fruit", "tool"], wide)
    other, known = texts(100, 2, seed=1)
    scores = np.asarray(classifier.features(other, wide) @ made.weights[0]) + made.biases[0]
    assert (scores[np.array(known) == 1] > 0).mean() > 0.7


def test_too_few_rows_and_wrong_settings() -> None:
    said, labels = texts(8, 2)
    with pytest.raises(DataError, match="'fruit' has 4 rows"):
        classifier.learned(classifier.features(said, SMALL), labels, ["fruit", "tool"], SMALL)
    for wrong in ({"vocab": 1}, {"ngram": 0}, {"ngram": 9}, {"lr": 0.0}, {"l2": -1.0}):
        with pytest.raises(ConfigError):
            dataclasses.replace(SMALL, **wrong)


def test_report_by_its_formulas() -> None:
    """Four rows of two classes; one of the second is taken for the first."""
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    found = classified.report(p, [0, 0, 1, 1], ["a", "b"])
    assert found["confusion"] == [[2, 0], [1, 1]] and found["accuracy"] == 0.75
    assert found["classes"]["a"] == pytest.approx({"precision": 2 / 3, "recall": 1, "f1": 0.8, "rows": 2})
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert found["ece"] == pytest.approx((0.1 + 0.2 + 0.6 + 0.3) / 4)
    assert found["brier"] == pytest.approx((0.02 + 0.08 + 0.72 + 0.18) / 4)
    assert [b["rows"] for b in found["bins"]] == [1, 1, 1, 1]
    sure = classified.bins(np.array([1.0, 0.95, 0.55]), np.array([True, False, True]))
    assert [(b["low"], b["rows"], b["accuracy"]) for b in sure] == [(0.5, 1, 1.0), (0.9, 2, 0.5)]


def test_words_of_scripts_without_spaces_are_letters() -> None:
    one, two = classifier.features(["東京は", "東京"], SMALL), classifier.features(["京東", ""], SMALL)
    assert one[0].nnz > one[1].nnz >= 2 and two[0].nnz >= 2 and two[1].nnz == 0
