"""Whether trajectories can be had again: the model reads their tokens, and gives each what it gave then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from mlx.utils import tree_flatten

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data import atraj, replaying
from tinygpt.infer.engine import Engine
from tinygpt.runs import _agent_facts
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._engine import open_engine
from tinygpt.runs._packs import Packs

TOGETHER = 64  # files whose rows are read together
EXACT, ROUND = 1e-3, 0.1  # nats, of float32 weights and of others
KNOWN = (*_agent_facts.SAME, "packing")
WHY = {
    "foreign": "of another model", "v1": "version 1, which has no log-probabilities",
    "bare": "without tokens that were sampled", "redacted": "redacted before anything was sampled",
    "approximate": "sampled with caches that forget or round", "unreadable": "not readable",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(Adapters, Packs):
    """Settings of `replay`."""

    files: Annotated[tuple[str, ...], "Trajectories (.atraj), or folders of them."]
    model: Annotated[Path, "The model that wrote them: a model, run or specialist directory."]
    tolerance: Annotated[
        float | None, "Largest difference in nats; not given: 0.001 of float32 weights, else 0.1."
    ] = None

    def __post_init__(self) -> None:
        Adapters.__post_init__(self)
        Packs.__post_init__(self)
        if not self.files:
            raise ConfigError("no trajectory was given", hint="tinygpt replay FILE.atraj --model DIR")
        if self.tolerance is not None and not self.tolerance >= 0:
            raise ConfigError(f"--tolerance must not be negative, got {self.tolerance:g}")


@dataclass
class _File:
    """A trajectory that is being compared."""

    path: Path
    rows: list[replaying.Row] = field(default_factory=list[replaying.Row])
    hidden: int = 0
    why: str = ""
    wrong: str = ""
    differences: list[float] = field(default_factory=list[float])


def run(config: Config, events: Events) -> dict[str, Any]:
    """How many files are equal or differ, by how much, and what was not compared. DataError: nothing was."""
    paths = found(config.files)
    engine = open_engine(config.model, config, events, config.packing)
    model = _agent_facts.model_of(config, engine, config.model)
    weights: list[Any] = [w for _, w in tree_flatten(engine.model.parameters())]
    exact = all("float32" in str(w.dtype) for w in weights)
    tolerance = config.tolerance if config.tolerance is not None else EXACT if exact else ROUND
    files: list[_File] = []
    for begin in range(0, len(paths), TOGETHER):
        files += (group := [_read(path, model, engine) for path in paths[begin : begin + TOGETHER]])
        rows = [(file, row) for file in group for row in file.rows]
        for (file, row), again in zip(rows, engine.logprobs([row.ids for _, row in rows]), strict=True):
            file.differences += [abs(p - again[at - 1]) for at, p in row.told.items()]
        for file in group:
            file.rows.clear()
        events.emit(Progress(task="replay", done=len(files), total=len(paths), unit="files"))
    compared = [file for file in files if file.differences]
    if not compared:
        said = Counter(file.why for file in files).most_common()
        raise DataError(
            f"none of {len(files)} files was compared: {', '.join(f'{n} {what}' for what, n in said)}",
            hint="replay with the model, adapters and --quantize that wrote them",
        )
    return _told(files, compared, tolerance)


def found(given: Sequence[str]) -> list[Path]:
    """The files that are meant, each once, by name; DataError where one is not there."""
    named: dict[Path, None] = {}
    for path in map(Path, given):
        some = sorted(path.rglob(f"*{atraj.SUFFIX}")) if path.is_dir() else [path] if path.is_file() else []
        if not some:
            raise DataError(f"there is no trajectory at {path}", hint="a file .atraj, or a folder of them")
        named |= dict.fromkeys(some)
    return list(named)


def _read(path: Path, model: dict[str, str], engine: Engine) -> _File:
    """What of a file can be compared, or why nothing can."""
    file = _File(path)
    try:
        trajectory = atraj.read(path)
    except DataError as error:
        file.why = f"{WHY['unreadable']} ({error.message})"
        return file
    header, steps = trajectory.header, trajectory.steps
    odd = next((name for name in KNOWN if header.model.get(name) != model.get(name)), None)
    if header.source == "v1":
        file.why = WHY["v1"]
    elif odd is not None:
        file.why = f"{WHY['foreign']} ({odd})"
    elif any(header.sampling.get(name) for name in ("window", "kv_bits")):
        file.why = WHY["approximate"]
    elif any(not -1 <= id < engine.model.config.vocab_size for step in steps for id in step.ids or ()):
        file.why = f"{WHY['unreadable']} (ids that the model has not)"
    else:
        file.rows, file.hidden = replaying.rows(trajectory)
        if any(len(row.ids) > engine.model.config.reach + 1 for row in file.rows):
            file.rows, file.why = [], WHY["approximate"]
        elif not file.rows:
            file.why = WHY["redacted" if any(step.redacted for step in steps) else "bare"]
        wrong = "" if header.has_its_tools else "the tools are not those of their hash"
        file.wrong = next((odd for i, s in enumerate(steps) if (odd := _odd_text(i, s, engine))), wrong)
    return file


def _odd_text(number: int, step: atraj.Step, engine: Engine) -> str:
    """What is wrong with the text of a step, "" where nothing is."""
    if not step.text or step.ids is None or step.redacted or engine.tokenizer.decode(step.ids) == step.text:
        return ""
    return f"the text of step {number + 1} is not that of its tokens"


def _told(files: list[_File], compared: list[_File], tolerance: float) -> dict[str, Any]:
    every = [d for file in compared for d in file.differences]
    for file in compared:
        if not max(file.differences) <= tolerance:
            file.wrong = f"differs by up to {max(file.differences):.3g} nats"
    wrong = [file for file in compared if file.wrong]
    return {
        "files": len(files), "compared": len(compared), "equal": len(compared) - len(wrong),
        "different": len(wrong), "redacted_in_part": sum(file.hidden > 0 for file in compared),
        "tokens": len(every), "hidden_tokens": sum(file.hidden for file in files),
        "max_difference": max(every), "mean_difference": sum(every) / len(every), "tolerance": tolerance,
        "differ": [{"file": str(file.path), "why": file.wrong} for file in wrong],
        "not_compared": [{"file": str(f.path), "why": f.why} for f in files if not f.differences],
    }  # fmt: skip
