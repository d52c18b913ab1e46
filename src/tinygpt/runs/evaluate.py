"""Evaluate: run suites on a model in this process and return comparable rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.core.family import Family
from tinygpt.core.rows import EvalRow
from tinygpt.eval.endpoint import Message, Prompt, Reply
from tinygpt.eval.suites import heldout_loss
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Completion, Engine
from tinygpt.runs import _pieces

SUITES = Family("tinygpt.eval.suites", verb="score")


class LocalEndpoint:
    """An engine in this process as suites see it: greedy answers in the order of the prompts."""

    baseline = False

    def __init__(self, engine: Engine, *, name: str, path: str = "", events: Events | None = None) -> None:
        self.engine, self.name, self.path, self.events = engine, name, path, events
        self.tokenizer, self.context = engine.tokenizer, engine.context
        self.step: int | None = None
        self.model_hash: str | None = None

    @classmethod
    def open(cls, path: Path, adapter: Path | None = None, events: Events | None = None) -> LocalEndpoint:
        """The endpoint of a model, run or specialist directory."""
        loaded, tokenizer = _pieces.open_model(path, adapter)
        name = f"{path.resolve().name}+{adapter.name}" if adapter else path.resolve().name
        found = cls(
            Engine(loaded.model, tokenizer, _pieces.TEMPLATE), name=name, path=str(path), events=events
        )
        found.step = loaded.manifest.get("step")
        found.model_hash = _pieces.checkpoint.identity(loaded.path)
        return found

    def complete(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> list[Reply]:
        """One reply a prompt. A prompt that does not fit the context fails alone, and is counted by the
        suite."""
        replies: list[Reply | None] = [None] * len(prompts)
        fitting: list[tuple[int, list[int]]] = []
        for i, prompt in enumerate(prompts):
            ids = (
                self.engine.encode(prompt)
                if isinstance(prompt, str)
                else self.engine.encode_chat(prompt, tools)
            )
            if len(ids) < self.engine.context:
                fitting.append((i, ids))
            else:
                replies[i] = Reply.failed(
                    f"the prompt has {len(ids)} tokens, the context {self.engine.context}"
                )
        config = SampleConfig(temperature=0.0, max_tokens=max_tokens, stop=tuple(stop), seed=0)
        answers = self.engine.generate_batch([ids for _, ids in fitting], config, events=self.events)
        for (i, _), answer in zip(fitting, answers, strict=True):
            replies[i] = _reply(answer, isinstance(prompts[i], str))
        return [reply for reply in replies if reply is not None]

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        return self.engine.logprobs(rows, events=self.events)


def _reply(answer: Completion, plain: bool) -> Reply:
    message: Message = (
        {"role": "assistant", "content": answer.text} if plain else _pieces.TEMPLATE.parse(answer.text)
    )
    return Reply(
        message=message, text=answer.text, finish_reason=answer.finish_reason, n_tokens=len(answer.ids)
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `eval`."""

    model: Annotated[Path, "A model, run or specialist directory."]
    adapter: Annotated[Path | None, "Adapter directory to put on the model."] = None
    corpus: Annotated[tuple[Path, ...], "Text files or folders: measure the held-out loss on them."] = ()
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    suite: Annotated[
        tuple[str, ...], "Suites to run, e.g. executed_state, exact_match, sort_6; may be repeated."
    ] = ()
    options: Annotated[dict[str, Any], "Settings of a suite, e.g. --set options.executed_state.n=400."] = (
        field(default_factory=dict[str, Any])
    )
    name: Annotated[str, "Model name in the rows; empty: the directory's."] = ""
    out: Annotated[Path | None, "JSONL file to append the rows to."] = None
    examples: Annotated[Path | None, "JSONL file to write what happened to each example."] = None

    def __post_init__(self) -> None:
        if not self.corpus and not self.suite:
            raise ConfigError("nothing to measure", hint="give --corpus FILE, or --suite NAME")


def run(config: Config, events: Events) -> list[EvalRow]:
    """Measure and return the rows; each suite's examples are appended to `examples` when given."""
    from tinygpt.core.rows import write_rows

    endpoint = LocalEndpoint.open(config.model, config.adapter, events)
    endpoint.name = config.name or endpoint.name
    wanted: list[tuple[str, dict[str, Any]]] = [
        (name, dict(config.options.get(name, {}))) for name in config.suite
    ]
    if config.corpus:
        paths = {"paths": [str(p) for p in config.corpus], "glob": config.glob}
        wanted.insert(0, (heldout_loss.TASK, paths | config.options.get(heldout_loss.TASK, {})))
    rows: list[EvalRow] = []
    records: list[dict[str, Any]] = []
    for name, options in wanted:
        found, happened = measure(endpoint, name.replace("-", "_"), options, events)
        rows += found
        records += happened
    if config.out is not None:
        write_rows(config.out, rows, append=True)
    if config.examples is not None:
        _pieces.write_jsonl(config.examples, records)
    return rows


def measure(
    endpoint: Any, suite: str, options: dict[str, Any], events: Events
) -> tuple[list[EvalRow], list[dict[str, Any]]]:
    """One suite on one endpoint: its rows, and a record of each example."""
    module = SUITES.load(suite)
    settings = from_dict(module.Config, options, suite)
    examples = module.load(settings)
    for note in examples.notes:
        events.note(note, level="warning")
    result = module.score(endpoint, examples, settings)
    return result.rows, [{"suite": suite, "model": endpoint.name, **e} for e in result.examples]
