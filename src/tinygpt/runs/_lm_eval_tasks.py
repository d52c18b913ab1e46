"""lm-eval's tasks by name, its own and those of folders, and quiet around what it prints."""

from __future__ import annotations

import contextlib
import logging
import random
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError, DataError, TinyGPTError, nearest
from tinygpt.core.events import Events

SEED = 1234  # lm-eval's


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """lm-eval and datasets print, and draw bars of their own: what is printed goes to stderr, and no bars."""
    from tqdm import tqdm

    bars: Any = tqdm
    drawn: Any = bars.__init__
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    bars.__init__ = lambda self, *a, **k: drawn(self, *a, **{**k, "disable": True})
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        bars.__init__ = drawn
        logger.setLevel(level)


def load(names: Sequence[str], folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """For each name its tasks and groups, as lm-eval's TaskManager loads them; a pattern such as `mmlu_*` is
    all the names that it fits. lm-eval's own tasks are listed only where a folder lacks a name: that takes
    seconds."""
    from lm_eval.tasks import TaskManager

    if bad := next((folder for folder in folders if not folder.is_dir()), None):
        raise ConfigError(f"--include-path {bad} is no folder", hint="name a folder with tasks' yaml files")
    path: Any = [str(folder) for folder in folders] or None
    manager = TaskManager(include_path=path, include_defaults=not folders)
    if folders and not all(manager.match_tasks([name]) for name in names):
        manager = TaskManager(include_path=path)
    chosen: list[str] = []
    for name in names:
        matches: list[str] = manager.match_tasks([name])
        if not matches:
            raise ConfigError(
                f"lm-eval has no task '{name}'{nearest(name, manager.all_tasks)}",
                hint="lm-eval ls tasks names them; --include-path FOLDER brings others",
            )
        chosen += matches
    loaded: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(chosen):
        try:
            found: Any = manager.load([name])
        except TinyGPTError:
            raise
        except Exception as error:  # data sets fail in many ways: no network, no file, a script
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise DataError(
                f"lm-eval cannot load the task {name}: {said[0][:300]}",
                hint="its data come from the hub; for data of this machine see docs/lm-eval.md",
            ) from error
        loaded[name] = {"tasks": found["tasks"], "groups": found["groups"]}
    return loaded


def seeded(seed: int | None) -> None:
    """Give the global generators that tasks draw from a seed; lm-eval's own where None is given."""
    import numpy as np

    random.seed(0 if seed is None else seed)
    np.random.seed(SEED if seed is None else seed)


def prepare(
    loaded: dict[str, dict[str, Any]],
    shots: int | None,
    knobs: dict[str, Any],
    seed: int | None,
    events: Events,
) -> dict[str, Any]:
    """The tasks with these settings, as lm-eval's `evaluate` takes them. What `simple_evaluate` would do
    besides, a report on torch and the machine, takes seconds and is nowhere looked at."""
    tasks: dict[str, Any] = {name: one for found in loaded.values() for name, one in found["tasks"].items()}
    if knobs and "generate_until" not in kinds(loaded):
        raise ConfigError(
            f"none of these tasks has an answer written, so {', '.join(knobs)} would change nothing",
            hint="leave --gen-kwargs out",
        )
    for name, task in tasks.items():
        if knobs and task.OUTPUT_TYPE == "generate_until":
            task.set_config(key="generation_kwargs", value=knobs, update=True)
        own = task.get_config("num_fewshot")
        if shots and own == 0:
            events.note(f"{name} is a task without solved examples, and stays so", "warning")
        elif shots is not None or own is None:
            task.set_config(key="num_fewshot", value=shots or 0)
        task.set_fewshot_seed(seed=SEED if seed is None else seed)
    groups = {name: one for found in loaded.values() for name, one in found["groups"].items()}
    return {"tasks": tasks, "groups": groups}


def kinds(loaded: dict[str, dict[str, Any]]) -> set[str]:
    """The kinds of output that these tasks ask for."""
    return {str(task.OUTPUT_TYPE) for found in loaded.values() for task in found["tasks"].values()}
