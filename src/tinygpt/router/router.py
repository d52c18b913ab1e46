"""A router: requests in, tools with probabilities out; the directory that it is saved in.

Three readers say what they think of a request: the encoder, which knows order; a linear reader of its runs of
bytes; and its neighbours among the learned requests. Their sum is calibrated (calibrate).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core import files
from tinygpt.core.backend import mx
from tinygpt.core.config import from_dict, to_dict
from tinygpt.core.errors import CheckpointError, ConfigError, DataError
from tinygpt.data import rows
from tinygpt.data.requests import NOTHING
from tinygpt.data.tally import Tally
from tinygpt.data.tokenizer import hf
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.weights import UNPAIRED
from tinygpt.router import linear, pairs, source
from tinygpt.router.calibrate import Calibration
from tinygpt.router.encoder import Encoder, Facts
from tinygpt.router.linear import Linear
from tinygpt.router.neighbours import Neighbours

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tinygpt.data.tokenizer._protocol import Tokenizer

KIND = "router"
CONFIG, LABELS, REQUESTS = "config.json", "labels.json", "requests.jsonl"
READERS = ("encoder", "linear", "neighbours")
LINEAR = "linear."  # what the names of its tensors begin with
GRAIN = 16  # rows are padded to multiples of it, so that few shapes are met
AT_ONCE = 64  # requests in one pass


class Router:
    """Which tool serves a request. `router(query)` gives (tool, probability) of every class, the likeliest
    first; the class of requests that no tool serves is called `router.abstain`, None where there is none."""

    def __init__(
        self,
        module: Encoder,
        linear: Linear,
        neighbours: Neighbours,
        tokenizer: Tokenizer,
        calibration: Calibration | None = None,
        name: str = "",
    ) -> None:
        self.module, self.linear, self.neighbours = module, linear, neighbours
        self.tokenizer, self.name = tokenizer, name
        self.calibration = calibration or Calibration()

    @classmethod
    def open(cls, path: Path) -> Router:
        """The router of a directory, or of a run's final/; its files are checked against the manifest.
        CheckpointError where it is none."""
        path = Path(path)
        if not (path / checkpoint.MANIFEST).exists() and (path / "final").is_dir():
            path = path / "final"
        manifest = checkpoint.validate(path)
        if manifest["kind"] != KIND:
            raise CheckpointError(
                f"{path} is of kind {manifest['kind']}, not a router",
                hint="tinygpt train-extractor makes them",
            )
        told = checkpoint.read_json(path / CONFIG)
        labels = checkpoint.read_json(path / LABELS).get("labels")
        try:
            facts = from_dict(Facts, {"labels": labels, **told.get("router", {})}, CONFIG)
            calibration = from_dict(Calibration, told.get("calibration", {}), "calibration")
            module = Encoder(from_dict(ModelConfig, facts.model, "model"), facts)
        except ConfigError as error:
            raise CheckpointError(f"{path / CONFIG}: {error.message}", hint=error.hint) from error
        tokenizer = hf.load(path)
        if tokenizer.vocab_size > module.config.vocab_size:
            raise CheckpointError(
                f"{path}: the tokenizer has {tokenizer.vocab_size} ids, its router fewer",
                hint=checkpoint.AGAIN,
            )
        whole, arrays = tensors(path)
        fill(module, whole, str(path))
        try:
            reader = linear.rebuilt(arrays, told.get("grams", 1), len(facts.labels))
            near = Neighbours(remembered(path / REQUESTS), facts.labels)
            calibration.check(len(READERS), len(facts.labels))
        except (ConfigError, DataError) as error:
            raise CheckpointError(f"{path}: {error.message}", hint=checkpoint.AGAIN) from error
        return cls(module, reader, near, tokenizer, calibration, path.name)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of their ids."""
        return self.module.facts.labels

    @property
    def abstain(self) -> str | None:
        """The class of requests that no tool serves."""
        return NOTHING if NOTHING in self.labels else None

    def __call__(self, query: str) -> list[tuple[str, float]]:
        """Every class with its probability, the likeliest first."""
        p_C = self.probabilities([query])[0]
        order = sorted(range(len(p_C)), key=lambda c: (-p_C[c], c))
        return [(self.labels[c], float(p_C[c])) for c in order]

    def probabilities(self, queries: Sequence[str]) -> NDArray[np.float64]:
        """(N, C) of N requests."""
        return self.calibration.probabilities(self.said(queries))

    def said(self, queries: Sequence[str]) -> list[NDArray[np.float64]]:
        """(N, C) of each of the READERS, before calibration. The encoder reads of a request what its context
        holds, the others all of it."""
        read = [query.lower() for query in queries] if self.module.facts.lower else list(queries)
        context = self.module.config.max_position_embeddings
        ids = source.encoded(self.tokenizer, read, context)
        of_encoder = logits(self.module, ids, self.tokenizer.pad_id)
        return [of_encoder, self.linear.logits(read), self.neighbours.shares(read)]


def logits(module: Encoder, ids: Sequence[list[int]], pad_id: int) -> NDArray[np.float64]:
    """(N, C) logits of encoded requests, those of one length together."""
    import numpy as np

    found = np.zeros((len(ids), len(module.facts.labels)))
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for at in range(0, len(order), AT_ONCE):
        mine = order[at : at + AT_ONCE]
        width = -(-max(len(ids[i]) for i in mine) // GRAIN) * GRAIN
        tokens = np.full((len(mine), width), pad_id, np.int32)
        segments = np.zeros((len(mine), width), np.int32)
        for b, i in enumerate(mine):
            tokens[b, : len(ids[i])], segments[b, : len(ids[i])] = ids[i], 1
        z_BC = module(mx.array(tokens), mx.array(segments)).astype(mx.float32)
        found[mine] = np.array(z_BC)
    return found


def save(
    path: Path,
    router: Router,
    *,
    draw: Callable[[Path], None] | None = None,
    **kept: Any,
) -> Path:
    """Write a router as a checkpoint directory in one step. `draw(folder)` adds what pictures there are,
    `kept` is what `checkpoint.written` takes."""
    told = to_dict(router.module.facts)
    labels = told.pop("labels")
    with checkpoint.written(path, kind=KIND, **kept) as folder:
        facts_of = {"router": told, "grams": router.linear.grams, "calibration": to_dict(router.calibration)}
        files.write_json(folder / CONFIG, facts_of)
        files.write_json(folder / LABELS, {"version": 1, "kind": "tool-router", "labels": list(labels)})
        held = {LINEAR + name: mx.array(array) for name, array in router.linear.arrays().items()}
        checkpoint.write_tensors(folder, "model", dict(tree_flatten(router.module.parameters())) | held)
        rows.write(folder / REQUESTS, ({"query": q, "tool": tool} for q, tool in router.neighbours.pairs))
        router.tokenizer.save(folder)
        if draw is not None:
            draw(folder)
    return Path(path)


def tensors(path: Path) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """The encoder's tensors of a directory, and the arrays of its linear reader."""
    import numpy as np

    whole = checkpoint.read_tensors(path, "model")
    arrays = {name: np.array(whole.pop(name)) for name in [*whole] if name.startswith(LINEAR)}
    return whole, {name.removeprefix(LINEAR): array for name, array in arrays.items()}


def remembered(path: Path) -> list[pairs.Pair]:
    """The learned requests of a directory; DataError where they cannot be read."""
    tally = Tally(path.name)
    found = [*pairs.read([path], tally)]
    if told := tally.sentence():
        raise DataError(f"{path.name}: {told}")
    return found


def fill(module: Any, tensors: Mapping[str, mx.array], where: str) -> None:
    """Put saved tensors into a module; CheckpointError where names or shapes differ."""
    held = dict(tree_flatten(module.parameters()))
    odd = sorted(held.keys() ^ tensors.keys())
    odd += [name for name in held.keys() & tensors.keys() if held[name].shape != tensors[name].shape]
    if odd:
        raise CheckpointError(f"{where} does not fit its config: {odd[0]} differs", hint=UNPAIRED)
    module.update(tree_unflatten([(name, tensors[name].astype(was.dtype)) for name, was in held.items()]))
    mx.eval(module.parameters())
