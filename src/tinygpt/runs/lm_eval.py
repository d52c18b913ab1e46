"""Run lm-eval's tasks on a model of this process, on a server, or on a model of transformers."""

from __future__ import annotations

import time
import uuid
from typing import Any, cast

from tinygpt.core.errors import ConfigError, RemoteError, TinyGPTError
from tinygpt.core.events import Events
from tinygpt.core.rows import EvalRow
from tinygpt.runs import _lm_eval_knobs, _lm_eval_model, _lm_eval_rows, _lm_eval_tasks
from tinygpt.runs._lm_eval_asked import Config, opened

__all__ = ["Config", "run"]


def run(config: Config, events: Events) -> list[EvalRow]:
    """Measure and return the rows; rows and records of examples are appended to their files, where all of it
    came to its end."""
    config.check_files()
    _lm_eval_model.template_lm()  # or a clear error
    with _lm_eval_tasks.quiet():
        from lm_eval import __version__
        from lm_eval.evaluator import evaluate

        _lm_eval_tasks.seeded(config.seed)  # tasks may shuffle what they load
        knobs = _lm_eval_knobs.parse(config.gen_kwargs, config.backend)
        loaded = _lm_eval_tasks.load(config.tasks, config.include_path)
        tasks = _lm_eval_tasks.prepare(loaded, config.shots, knobs, config.seed, events)
        endpoint, model = opened(config, _lm_eval_tasks.kinds(loaded), events)
        start, ask = time.perf_counter(), cast(Any, evaluate)
        try:
            found: Any = ask(
                lm=model, task_dict=tasks, limit=config.limit or None, bootstrap_iters=0,
                apply_chat_template=config.chat, fewshot_as_multiturn=config.chat,
                system_instruction=config.system or None,
            )  # fmt: skip
        except TinyGPTError:
            raise
        except (ValueError, NotImplementedError, AssertionError) as error:  # how lm-eval refuses a setting
            raise ConfigError(
                f"lm-eval: {str(error).splitlines()[0][:300] if str(error) else error!r}"
            ) from error
    noted = getattr(model, "noted", None) or _lm_eval_model.Noted()
    asked = {name: getattr(config, name) for name in ("limit", "shots", "system", "gen_kwargs")}
    asked |= {"chat": config.chat, "backend": config.backend}
    about = {
        "run_id": str(uuid.uuid4()), "model_path": endpoint.path, "model_name": endpoint.name,
        "model_step": endpoint.step, "model_hash": endpoint.model_hash, "baseline": endpoint.baseline,
        "wall_seconds": round(time.perf_counter() - start, 3), "seed": config.seed,
        "harness_version": f"lm-eval {__version__}", "settings": asked,
        **endpoint.facts, "batch_size": config.batch,
    }  # fmt: skip
    rows, records = _lm_eval_rows.report(loaded, found, noted, about)
    if noted.failed and not rows:
        raise RemoteError(f"{len(noted.failed)} answers failed to come", hint="look at the server")
    suite = {"run_id": about["run_id"], "suite": "lm_eval", "model": endpoint.name}
    config.write(rows, [{**suite, **one} for one in records])
    return rows
