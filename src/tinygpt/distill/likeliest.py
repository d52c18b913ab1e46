"""A local model read for a store: the k likeliest tokens of the places that count, and what the store loses.

Two errors are measured on some places, against the whole distribution p of the teacher: of what training
reads, in which all tokens but the k are one event (`kl_events`, the rounding alone), and of that event spread
over its tokens in proportion to the mean distribution of the other places read (`kl_spread`):

    q(v) = q_k(v) for v in K,   r m(v) / sum_{u not in K} m(u) otherwise        KL(p || q)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygpt.core import backend, files
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError
from tinygpt.distill.divergence._events import log_softmax
from tinygpt.distill.store import LEAST, MEASURED, Key, Places, packed
from tinygpt.model._blocked import exp_minus

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from tinygpt.train.protocols import Tensors

SAMPLE = 16  # places of a group of rows whose error is measured
FLOOR = 0.01  # share of the uniform distribution in a mean
FACTS = ("tail", "kl_events", "kl_spread")


class Likeliest:
    """Reads rows with a model. `measured` sums the errors over `n` places."""

    def __init__(self, model: Any, key: Key) -> None:
        import numpy as np

        model.freeze()
        self.model, self.key = model, key
        self.mean, self.n_mean = np.zeros(key.vocabulary), 0
        self.measured: dict[str, float] = {"n": 0, **dict.fromkeys(FACTS, 0.0)}

    def __call__(self, rows: Tensors, counts: NDArray[np.bool_]) -> list[Places]:
        """The places of each of B rows, of which `counts` (B, L) says which are wanted. CheckpointError where
        the model gives no numbers. On CPUs each core takes some rows."""
        import numpy as np

        lanes = backend.streams(len(counts))
        at = [[np.flatnonzero(row) for row in counts[i :: len(lanes)]] for i in range(len(lanes))]
        flat = [np.concatenate([counts.shape[1] * b + a for b, a in enumerate(each)]) for each in at]
        found: list[Any] = []
        with backend.shards(lanes):
            for i, lane in enumerate(lanes):
                with mx.stream(lane):
                    mine = {name: value[i :: len(lanes)] for name, value in rows.items()}
                    found.append(self._read(mine, mx.array(flat[i])))
            mx.eval(found)
        answer: list[Any] = [None] * len(counts)
        for i, (log_p, ids, top) in enumerate(found):
            all_ids, all_top = np.array(ids), np.array(top)
            if not np.isfinite(all_top).all():
                raise CheckpointError(
                    "the teacher gives no finite log-probability to some tokens",
                    hint="look at its weights: tinygpt debug-logits",
                )
            edges = np.cumsum([0, *map(len, at[i])])
            for b, (a, z) in enumerate(zip(edges, edges[1:])):
                answer[b * len(lanes) + i] = Places(all_ids[a:z], all_top[a:z], np.ones(z - a, np.bool_))
            self._measure(log_p, Places(all_ids, all_top, np.ones(len(all_ids), np.bool_)), flat[i])
        return answer

    def _read(self, rows: Tensors, flat: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Log-probabilities (P, N) of the places with these numbers, and the K largest with their ids."""
        logits = self.model(rows["tokens"], positions=rows["positions"], segments=rows["segments"])
        logits = logits[..., : self.key.vocabulary].reshape(-1, self.key.vocabulary)[flat]
        log_p, k = log_softmax(logits, self.key.temperature), self.key.k
        ids = mx.argpartition(-log_p, k - 1, axis=-1)[:, :k]
        top = mx.take_along_axis(log_p, ids, axis=-1)
        order = mx.argsort(-top, axis=-1)
        ids, top = (mx.take_along_axis(x, order, axis=-1) for x in (ids, top))
        return log_p, ids.astype(mx.int32), top

    def _measure(self, log_p: mx.array, places: Places, flat: NDArray[np.int64]) -> None:
        """Add the mean distribution of a group, and the errors of some of its places."""
        import numpy as np

        self.mean += np.array(exp_minus(log_p, mx.array(0.0)).sum(0), np.float64)
        self.n_mean += len(flat)
        chosen = np.unique(np.linspace(0, len(flat) - 1, SAMPLE).astype(int)) if len(flat) else []
        for p in chosen if self.n_mean > 1 else ():
            whole = np.array(log_p[int(p)], np.float64)
            # What the place itself brought is taken out of the mean that stands for it.
            mean = np.maximum(self.mean - np.exp(whole), 0.0) / (self.n_mean - 1)
            one = Places(places.ids[p : p + 1], places.log_p[p : p + 1], places.known[p : p + 1])
            for name, value in errors(whole, one, self.key.id_bytes, mean).items():
                self.measured[name] += value
            self.measured["n"] += 1

    def begin(self, path: Path) -> None:
        """Go on with the figures of a store that is built already in part."""
        import numpy as np

        told, mean = files.peek_json(path / MEASURED), path / "mean.npy"
        if told.keys() >= self.measured.keys() and mean.is_file():
            kept = np.load(mean)
            if kept.shape == self.mean.shape:
                self.mean, self.n_mean = kept, int(told["n_mean"])
                self.measured = {name: told[name] for name in self.measured}

    def keep(self, path: Path) -> None:
        """Write the figures beside the shards."""
        import numpy as np

        new = files.beside(path / "mean.npy").with_suffix(".npy")
        np.save(new, self.mean)
        new.replace(path / "mean.npy")
        files.write_json(path / MEASURED, {**self.measured, "n_mean": self.n_mean})


def errors(whole: NDArray[Any], one: Places, id_bytes: int, mean: NDArray[Any]) -> dict[str, float]:
    """What a store of this place (K ids and log-probabilities) loses of the distribution `whole` (N,): its
    `tail`, `kl_events` and `kl_spread`; `mean` (N,) is how the tail is spread."""
    import numpy as np

    kept = packed(one, id_bytes)
    ids, log_q = kept.ids[0], kept.log_p[0].astype(np.float64)
    others = np.ones(len(whole), bool)
    others[ids] = False
    p = np.exp(whole)
    head = float((p[ids] * (whole[ids] - log_q)).sum())
    tail, left = float(p[others].sum()), max(1 - float(np.exp(log_q).sum()), LEAST)
    if not tail:
        return {"tail": 0.0, "kl_events": head, "kl_spread": head}
    spread = (1 - FLOOR) * mean[others] + FLOOR / len(whole)
    log_m = np.log(spread / spread.sum())
    return {
        "tail": tail,
        "kl_events": head + tail * float(np.log(tail / left)),
        "kl_spread": head + float((p[others] * (whole[others] - np.log(left) - log_m)).sum()),
    }
