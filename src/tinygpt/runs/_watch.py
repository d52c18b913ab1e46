"""What is looked at while a run trains: samples, suites, the best step, the machine's speed, its manners."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlx.utils import tree_flatten

from tinygpt.core import backend, power
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, Sampled
from tinygpt.core.rows import append_records, beside, rewind, write_rows
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.model import count
from tinygpt.model.config import ModelConfig
from tinygpt.runs import _pieces, _suites
from tinygpt.runs._local_endpoint import LocalEndpoint
from tinygpt.train.loop import Hook
from tinygpt.train.pace import Manners, Pace
from tinygpt.train.watch import Watch

if TYPE_CHECKING:
    from tinygpt.data.template._choice import Template
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.model.lm import LM
    from tinygpt.runs._settings import TrainSettings

PROMPT = "The "  # what plain text is sampled after where nothing is said


def sampler(
    model: LM, tokenizer: Tokenizer, template: Template | None, config: TrainSettings, events: Events
) -> Callable[[int], None] | None:
    """A hook that tells what the model writes, greedily; with a template the prompt is a request to
    answer."""
    if not config.sample_every:
        return None
    engine = Engine(model, tokenizer, template)
    prompt = PROMPT if config.sample_prompt is None else config.sample_prompt
    if template is None:
        ids, shown = engine.encode(prompt), prompt
    else:
        ids, shown = engine.encode_chat([{"role": "user", "content": prompt}]), f"{prompt} -> "
    engine.room(ids, 1)  # refuses a prompt that leaves no room, before anything is trained
    greedy = SampleConfig(temperature=0.0, max_tokens=config.sample_tokens, seed=0)

    def hook(step: int) -> None:
        text = "".join(piece.text for piece in engine.generate(ids, greedy))
        events.emit(Sampled(step=step, prompt=shown, text=text))

    return hook


def suites(
    model: LM, tokenizer: Tokenizer, template: Template | None, config: TrainSettings, events: Events
) -> list[tuple[str, Hook]]:
    """One hook a suite: every score, by the task and metric of its row; the rows and the records of their
    examples go into the run's directory. Settings and examples are looked at now."""
    if not config.eval_tasks:
        return []
    engine = Engine(model, tokenizer, template or _pieces.template_of(tokenizer))
    endpoint = LocalEndpoint(engine, name=config.out.name, path=str(config.out), events=events)
    path, again = config.out / _pieces.EVAL_ROWS, config.resume

    def hook(step: int, suite: str, chosen: Any) -> dict[str, float]:
        nonlocal again
        if again:
            rewind(path, step)
            again = False
        endpoint.step = step
        rows, records = _suites.measure(endpoint, suite, chosen, events)
        append_records(beside(path), records)
        write_rows(path, rows, append=True)
        return {f"{row.task}.{row.metric}": row.score for row in rows}

    found: list[tuple[str, Hook]] = []
    for name in config.eval_tasks:
        options = config.eval_options.get(name, {})
        chosen = _suites.settings(name, options, where="eval_options", limit=config.eval_limit)
        if not getattr(chosen, "paths", True):
            how = f"--set eval_options.{name}.paths=FILE, text that the run does not learn"
            raise ConfigError(f"the suite {name} has no text to read", hint=how)
        _suites.SUITES.load(name).load(chosen)
        found.append((name, functools.partial(hook, suite=name, chosen=chosen)))
    return found


def watch(config: TrainSettings, held_out: Any) -> Watch | None:
    """What follows the held-out loss, where a setting asks for it."""
    if not config.patience and not config.keep_best:
        return None
    if held_out is None:
        which = "--patience" if config.patience else "--keep-best"
        raise ConfigError(
            f"{which} needs a held-out loss, and nothing is held out",
            hint="raise --held-out, or give more data",
        )
    return Watch(patience=config.patience, min_delta=config.min_delta, keep=config.keep_best)


def tok_s_at_peak(model: LM, length: int, dtype: str) -> tuple[float, float]:
    """(GFLOP/s of a large product, tokens a second that a training at that speed would read); the product is
    timed once a process.

    Where only some weights learn, the others need no gradients of their own: 4 N instead of 6 N operations a
    token."""
    gflops = _gflops(dtype)
    config: Any = model.config
    if isinstance(config, ModelConfig):
        matrices, all_ = count.flops_per_token(config, 0), count.flops_per_token(config, length)
    else:  # of a foreign architecture the matrices alone are counted
        sizes = [int(value.size) for value in dict(tree_flatten(model.parameters())).values()]
        matrices = all_ = 6 * sum(sizes)
    learned = {name for name, _ in tree_flatten(model.trainable_parameters())}
    if len(learned) < len(tree_flatten(model.parameters())):
        all_ -= matrices // 3
    return gflops, gflops * 1e9 / all_


@functools.cache
def _gflops(dtype: str) -> float:
    return backend.measure_gflops(repeats=3, dtype=dtype)


def pace(config: TrainSettings, events: Events) -> Pace | None:
    """What makes a run wait, where a setting asks for it."""
    asked = [
        (name, ask, why)
        for name, ask, why in (
            ("pause_on_battery", power.on_battery, "the machine runs on its battery"),
            ("pause_when_hot", power.too_hot, "the machine is too hot"),
        )
        if getattr(config, name)
    ]
    for name, ask, _ in asked:
        if ask() is None:
            raise ConfigError(
                f"--{name.replace('_', '-')}: this machine does not tell", hint="leave it out on this machine"
            )
    if not asked and config.throttle == 1 and not config.max_step_rate and config.throttle_file is None:
        return None

    def reason() -> str:
        return "; ".join(why for _, ask, why in asked if ask())

    manners = Manners(
        throttle=config.throttle,
        max_step_rate=config.max_step_rate,
        file=config.throttle_file,
        reason=reason if asked else None,
    )
    return Pace(manners, events)
