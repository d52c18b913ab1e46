"""Texts in classes: hashed runs of words under a logistic regression, calibrated, in numbers that files hold.

Each run of 1 to n words is hashed into one of so many buckets with a sign, the counts are scaled to length
1, and each class has a weight for each bucket. Scores become probabilities by what folds that the weights
had not seen say: by Platt's sigmoid, or by an isotonic line where there are rows enough. The package
scikit-learn (extra `classify`) hashes and learns; what is kept is plain arrays, never a pickle.

Paper: Platt, "Probabilistic outputs for support vector machines", 1999; Zadrozny and Elkan, "Transforming
classifier scores into accurate multiclass probability estimates", KDD 2002 (one class against the rest, then
scaled to sum to 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tinygpt.core.errors import ConfigError, DataError, DependencyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# A word, or one letter of a script that writes no spaces.
WORD = r"(?u)[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+"
FOLDS = 5
ISOTONIC = 1000  # rows from which a line of many steps is better than a sigmoid
PARTS = ("weights", "biases", "knots", "values", "offsets")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a classifier hashes and learns."""

    vocab: Annotated[int, "Buckets that runs of words are hashed into."] = 65536
    ngram: Annotated[int, "Longest run of words."] = 2
    epochs: Annotated[int, "Times the rows are gone through."] = 20
    lr: Annotated[float, "Learning rate."] = 0.5
    l2: Annotated[float, "Weight decay."] = 1e-5
    seed: Annotated[int, "Order of rows, held-out rows and folds."] = 42

    def __post_init__(self) -> None:
        for name, least in {"vocab": 16, "ngram": 1, "epochs": 1}.items():
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"'{name}' must be at least {least}, got {value}")
        if self.vocab > 2**24 or self.ngram > 5:
            raise ConfigError("at most 16777216 buckets and runs of 5 words", hint="lower --vocab or --ngram")
        if self.lr <= 0 or self.l2 < 0:
            raise ConfigError(f"'lr' must be above 0 and 'l2' at least 0, got {self.lr} and {self.l2}")


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Weights and calibration. A calibration line of class c is `knots` and `values` from offsets[c] to
    offsets[c + 1]; a sigmoid has one knot, and two numbers (slope, intercept) there."""

    classes: tuple[str, ...]
    settings: Settings
    method: str  # "sigmoid" or "isotonic"
    weights: Array  # [rows, buckets]; one row where there are two classes
    biases: Array
    knots: Array
    values: Array
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        rows = 1 if len(self.classes) == 2 else len(self.classes)
        shapes = {"weights": (rows, self.settings.vocab), "biases": (rows,), "offsets": (rows + 1,),
                  "values": self.knots.shape}  # fmt: skip
        for name, shape in shapes.items():
            if (found := getattr(self, name).shape) != shape:
                raise DataError(f"'{name}' has the shape {found}, {shape} was expected")
        if self.method not in ("sigmoid", "isotonic"):
            raise DataError(f"the calibration '{self.method}' is unknown")
        bounds = self.offsets.tolist()
        if bounds[0] != 0 or bounds[-1] != len(self.knots) or any(b <= a for a, b in zip(bounds, bounds[1:])):
            raise DataError("'offsets' do not fit the calibration")

    def probabilities(self, texts: Sequence[str]) -> Array:
        """[texts, classes], each row of sum 1."""
        return self.of_features(features(texts, self.settings))

    def of_features(self, rows: Any) -> Array:
        """The same of features [texts, buckets]."""
        import numpy as np

        scores = np.asarray(rows @ self.weights.T) + self.biases
        found = np.stack([self._calibrated(scores[:, c], c) for c in range(scores.shape[1])], axis=1)
        if len(self.classes) == 2:
            return np.concatenate([1 - found, found], axis=1)
        total = found.sum(axis=1, keepdims=True)
        return np.where(total > 0, found / np.where(total > 0, total, 1.0), 1 / len(self.classes))

    def score(self, texts: Sequence[str]) -> list[float]:
        """The probability of the last class, which is the positive one of two."""
        return self.probabilities(texts)[:, -1].tolist()

    def _calibrated(self, scores: Array, c: int) -> Array:
        import numpy as np

        a, b = int(self.offsets[c]), int(self.offsets[c + 1])
        if self.method == "isotonic":
            return np.interp(scores, self.knots[a:b], self.values[a:b])
        return 1 / (1 + np.exp(np.clip(self.knots[a] * scores + self.values[a], -500, 500)))

    def arrays(self) -> dict[str, Any]:
        """What a file of tensors holds."""
        return {name: getattr(self, name) for name in PARTS}

    def told(self) -> dict[str, Any]:
        """What its config file says."""
        return {"classes": list(self.classes), "calibration": self.method, "settings": asdict(self.settings)}


def rebuilt(told: Mapping[str, Any], arrays: Mapping[str, Any]) -> Classifier:
    """A classifier from what `told` and `arrays` gave; DataError where they do not fit each other."""
    import numpy as np

    from tinygpt.core.config import from_dict

    classes = told.get("classes")
    if not isinstance(classes, list) or len(classes) < 2 or len(set(map(str, classes))) < len(classes):
        raise DataError("'classes' must be two names or more")
    if missing := [name for name in PARTS if name not in arrays]:
        raise DataError(f"the tensor '{missing[0]}' is missing")
    try:
        settings = from_dict(Settings, told.get("settings") or {}, "settings")
    except ConfigError as error:
        raise DataError(error.message) from error
    floats = {name: np.asarray(arrays[name], np.float64) for name in PARTS[:-1]}
    return Classifier(
        classes=tuple(map(str, classes)), settings=settings, method=str(told.get("calibration")),
        offsets=np.asarray(arrays["offsets"], np.int64), **floats,
    )  # fmt: skip


def features(texts: Sequence[str], settings: Settings) -> Any:
    """[texts, buckets], sparse."""
    text = sklearn("feature_extraction.text")
    import numpy as np

    hashing = text.HashingVectorizer(
        n_features=settings.vocab, ngram_range=(1, settings.ngram), token_pattern=WORD, dtype=np.float32
    )
    return hashing.transform(texts)


def learned(rows: Any, labels: Sequence[int], classes: Sequence[str], settings: Settings) -> Classifier:
    """A classifier of features [rows, buckets] and the numbers of their classes. Rare classes weigh more, so
    that all weigh alike. DataError where a class has fewer rows than there are folds."""
    calibration = sklearn("calibration")
    linear = sklearn("linear_model")
    selection = sklearn("model_selection")
    import numpy as np

    y = np.asarray(labels)
    counts = np.bincount(y, minlength=len(classes))
    if len(classes) < 2 or counts.min() < FOLDS:
        few = classes[int(counts.argmin())]
        raise DataError(
            f"the class '{few}' has {int(counts.min())} rows to learn from, at least {FOLDS} are needed",
            hint="add rows of it",
        )
    model = linear.SGDClassifier(
        loss="log_loss", alpha=settings.l2, max_iter=settings.epochs, tol=None, learning_rate="constant",
        eta0=settings.lr, average=True, class_weight="balanced", random_state=settings.seed,
    )  # fmt: skip
    method = "isotonic" if len(y) >= ISOTONIC else "sigmoid"
    folds = selection.StratifiedKFold(FOLDS, shuffle=True, random_state=settings.seed)
    fitted = calibration.CalibratedClassifierCV(model, method=method, cv=folds, ensemble=False).fit(rows, y)
    inner = fitted.calibrated_classifiers_[0]
    knots, values, offsets = list[float](), list[float](), [0]
    for one in inner.calibrators:
        if method == "isotonic":
            knots += one.X_thresholds_.tolist()
            values += one.y_thresholds_.tolist()
        else:
            knots.append(float(one.a_))
            values.append(float(one.b_))
        offsets.append(len(knots))
    return Classifier(
        classes=tuple(classes), settings=settings, method=method, offsets=np.asarray(offsets, np.int64),
        weights=_single(inner.estimator.coef_), biases=_single(inner.estimator.intercept_),
        knots=_single(knots), values=_single(values),
    )  # fmt: skip


def _single(numbers: Any) -> Array:
    """Numbers as a file holds them, so that what is reported is what is loaded."""
    import numpy as np

    return np.asarray(numbers, np.float32).astype(np.float64)


def sklearn(name: str) -> Any:
    """A module of scikit-learn; DependencyError where it is not installed."""
    import importlib

    try:
        return importlib.import_module(f"sklearn.{name}")
    except ImportError as error:
        raise DependencyError("scikit-learn", "classify", "classifying texts") from error
