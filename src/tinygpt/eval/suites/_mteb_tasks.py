"""Tasks of the package `mteb` by name: our embeddings are its encoder, its main scores are our rows."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tinygpt.core.errors import ConfigError, DataError, DependencyError, TinyGPTError, nearest
from tinygpt.core.rows import EvalRow
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.suites._result import Clock, row, version

Vectors = Callable[[Sequence[str]], tuple[Any, int]]
"""vectors(texts): rows of an array, of length 1, and how many texts were cut."""
OFFLINE = "it needs the Hugging Face hub, or the data in its cache from an earlier run (HF_HOME)"


def package() -> Any:
    """The module mteb; DependencyError where it is not installed."""
    try:
        import mteb
    except ImportError as error:
        raise DependencyError("mteb", "mteb", "eval-mteb --tasks") from error
    return mteb


def load(names: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """One item for each task, with its data; ConfigError for an unknown one, DataError where data cannot be
    fetched."""
    with quiet():
        return [_loaded(_task(name), limit) for name in names]


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """mteb and datasets print, warn and draw bars: what is printed goes to stderr, the rest is not shown."""
    from tqdm import tqdm

    loggers = [logging.getLogger(name) for name in ("mteb", "datasets", "huggingface_hub")]
    levels, bars = [one.level for one in loggers], tqdm
    drawn: Any = bars.__init__
    for one in loggers:
        one.setLevel(logging.ERROR)
    bars.__init__ = lambda self, *a, **k: drawn(self, *a, **{**k, "disable": True})  # type: ignore[method-assign]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        bars.__init__ = drawn  # type: ignore[method-assign]
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _task(name: str) -> Any:
    """A task by mteb's name, or as the original wrote it: BEIR/scifact."""
    mteb = package()
    try:
        found = mteb.get_task(name)
    except KeyError as error:
        known = [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)]
        bare = name.rpartition("/")[2].casefold()
        same = next((one for one in known if one.casefold() == bare), None)
        if same is None:
            raise ConfigError(
                f"mteb has no task '{name}'{nearest(name, known)}", hint="mteb available-tasks names them"
            ) from error
        found = mteb.get_task(same)
    about = found.metadata
    if list(about.modalities) != ["text"]:
        raise ConfigError(f"{about.name} is about {', '.join(about.modalities)}", hint="name a task of texts")
    if members := getattr(about, "tasks", None):
        names = ", ".join(task.metadata.name for task in members)
        raise ConfigError(f"{about.name} is a set of tasks", hint=f"name its tasks: {names[:200]}")
    return found


def _loaded(task: Any, limit: int) -> dict[str, Any]:
    about = task.metadata
    try:
        task.load_data()
        if hasattr(task, "convert_v1_dataset_format_to_v2"):
            task.convert_v1_dataset_format_to_v2(num_proc=None)
    except Exception as error:  # a network, a cache, a reader of files: each raises what it likes
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"the data of {about.name} cannot be fetched: {said}", hint=OFFLINE) from error
    parts = list(_parts(task))
    for holder, split in parts:
        _shorten(about, holder, split, limit)
    n = sum(len(_asked(holder[split])) for holder, split in parts)
    if not n:
        raise DataError(f"{about.name} has no example in {', '.join(about.eval_splits)}")
    source = {key: str(about.dataset.get(key)) for key in ("path", "revision")}
    told = {"type": str(about.type), "splits": list(about.eval_splits), "dataset": source, "n": n}
    return {"name": str(about.name), "task": task, **told}


def _parts(task: Any) -> Iterator[tuple[Any, str]]:
    """Where each split that counts lies: (holder, its name); a task without subsets holds its splits."""
    for split in task.metadata.eval_splits:
        for subset in task.hf_subsets or ["default"]:
            holder = task.dataset.get(subset, task.dataset)
            if split in holder:
                yield holder, split


def _asked(part: Any) -> Any:
    """The queries of a retrieval, else the rows."""
    return part["queries"] if isinstance(part, dict) else part


def _shorten(about: Any, holder: Any, split: str, limit: int) -> None:
    """Leave the queries that have an answer, and the first `limit` of them, or of the pairs; 0: all."""
    part = holder[split]
    if isinstance(part, dict):
        judged = part["relevant_docs"]
        queries = part["queries"].filter(lambda one: any(n > 0 for n in judged.get(one["id"], {}).values()))
        part["queries"] = queries.select(range(min(limit or len(queries), len(queries))))
        part["relevant_docs"] = {one: judged[one] for one in part["queries"]["id"]}
    elif limit and str(about.type) == "STS":
        holder[split] = part.select(range(min(limit, len(part))))
    elif limit:
        raise ConfigError(
            f"{about.name} is a task of {about.type}: a part of its data is another task",
            hint="leave --limit out; retrieval and STS know it",
        )


def encoder(vectors: Vectors, name: str) -> Any:
    """What mteb takes for a model; it counts the texts that were cut and hashes all of them."""
    package()
    from mteb.models.model_meta import ModelMeta
    from mteb.similarity_functions import cos_sim, pairwise_cos_sim

    class Encoder:
        def __init__(self) -> None:
            self.mteb_model_meta = ModelMeta.create_empty({"name": f"tinygpt/{name}", "revision": "local"})
            self.n_cut, self.seen = 0, hashlib.sha256()

        def encode(
            self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str,
            prompt_type: Any = None, **kwargs: Any,
        ) -> Any:  # fmt: skip
            texts = [text for batch in inputs for text in batch["text"]]
            for text in texts:
                self.seen.update(hashlib.sha256(text.encode("utf-8", "replace")).digest())
            found, cut = vectors(texts)
            self.n_cut += cut
            return found

        def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
            return cos_sim(embeddings1, embeddings2)

        def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
            return pairwise_cos_sim(embeddings1, embeddings2)

    return Encoder()


def score(endpoint: Endpoint, item: dict[str, Any], vectors: Vectors, settings: dict[str, Any]) -> EvalRow:
    """The row of a task: its main score, the mean over its splits and subsets. mteb tells no interval."""
    mteb, clock, task, name = package(), Clock(), item["task"], item["name"]
    model = encoder(vectors, endpoint.name.replace("/", "-"))
    with quiet():
        try:
            result = mteb.evaluate(
                model, task, cache=None, co2_tracker=False, show_progress_bar=False, raise_error=True
            )
        except TinyGPTError:
            raise
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            said = " ".join(str(error).split())[:200]
            raise DataError(f"mteb cannot score {name}: {said}", hint="look into its data") from error
    parts = {
        f"{split}/{one['hf_subset']}": float(one["main_score"])
        for found in result.task_results for split, scores in found.scores.items() for one in scores
    }  # fmt: skip
    value = math.fsum(parts.values()) / len(parts) if parts else math.nan
    if not math.isfinite(value):
        raise DataError(
            f"mteb has no number for {name}: {parts or 'no score'}", hint="are the embeddings all alike?"
        )
    told = {key: item[key] for key in ("type", "dataset")} | {"parts": parts, "texts_cut": model.n_cut}
    data = version([item["dataset"], item["n"], model.seen.hexdigest()])
    main = str(task.metadata.main_score)
    found = row(
        endpoint,
        "mteb",
        main,
        value,
        item["n"],
        clock.seconds(),
        data,
        subtask=name,
        settings=settings | told,
    )
    return replace(found, n_truncated=model.n_cut, harness_version=f"mteb {mteb.__version__}")
