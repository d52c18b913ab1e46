"""A model in this process as suites see it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.events import Events
from tinygpt.eval.endpoint import Message, Prompt, Reply
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Completion, Engine
from tinygpt.model.quantized import Packing
from tinygpt.runs import _pieces


class LocalEndpoint:
    """An engine in this process as suites see it: greedy answers in the order of the prompts."""

    baseline = False

    def __init__(self, engine: Engine, *, name: str, path: str = "", events: Events | None = None) -> None:
        self.engine, self.name, self.path, self.events = engine, name, path, events
        self.tokenizer, self.context = engine.tokenizer, engine.context
        self.step: int | None = None
        self.model_hash: str | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        adapters: Path | Sequence[Path] = (),
        *,
        weights: Sequence[float] = (),
        force: bool = False,
        packing: Packing | None = None,
        events: Events | None = None,
    ) -> LocalEndpoint:
        """The endpoint of a model, run or specialist directory, with adapters on it; `packing` as in
        `_pieces.open_model`."""
        adapters = (adapters,) if isinstance(adapters, Path) else adapters
        loaded, tokenizer = _pieces.open_model(
            path, adapters, weights=weights, force=force, packing=packing, events=events
        )
        shares = [f"{w:g}*" for w in weights] or [""] * len(adapters)
        worn = [f"{share}{adapter.name}" for share, adapter in zip(shares, adapters, strict=True)]
        name = "+".join([path.resolve().name, *worn])
        found = cls(
            Engine(loaded.model, tokenizer, _pieces.template_of(tokenizer)),
            name=name,
            path=str(path),
            events=events,
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
            replies[i] = self._reply(answer, isinstance(prompts[i], str))
        return [reply for reply in replies if reply is not None]

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        return self.engine.logprobs(rows, events=self.events)

    def _reply(self, answer: Completion, plain: bool) -> Reply:
        template = None if plain else self.engine.template
        message: Message = (
            template.parse(answer.text) if template else {"role": "assistant", "content": answer.text}
        )
        return Reply(
            message=message,
            text=answer.text,
            finish_reason=answer.finish_reason,
            n_tokens=len(answer.ids),
        )
