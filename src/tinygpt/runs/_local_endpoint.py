"""A model in this process as suites see it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.events import Events
from tinygpt.eval.endpoint import GREEDY, Message, Prompt, Reply, Sampling
from tinygpt.infer.admission import Limits
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.constrained import constraint
from tinygpt.infer.engine import Completion, Engine
from tinygpt.model.quantized import Packing
from tinygpt.runs import _pieces, _prompt_cache

if TYPE_CHECKING:
    from tinygpt.infer.request import Constraint


class LocalEndpoint:
    """An engine in this process as suites see it: answers in the order of the prompts."""

    baseline = False

    def __init__(self, engine: Engine, *, name: str, path: str = "", events: Events | None = None) -> None:
        self.engine, self.name, self.path, self.events = engine, name, path, events
        self.tokenizer, self.context = engine.tokenizer, engine.context
        self.step: int | None = None
        self.model_hash: str | None = None
        self.facts: dict[str, Any] = {"batch_size": Limits().rows}
        if engine.template is not None:
            self.facts["template_hash"] = hashlib.sha256(engine.template.source.encode()).hexdigest()

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
        found.step = _pieces.step_of(loaded.path)
        found.model_hash = _pieces.checkpoint.identity(loaded.path)
        if adapters:
            found.facts["adapter_hash"] = _prompt_cache.worn(adapters, weights)
        return found

    def complete(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        tools: Sequence[dict[str, Any]] | None = None,
        sampling: Sampling = GREEDY,
    ) -> list[Reply]:
        """One reply a prompt. A prompt that does not fit the context fails alone, and is counted by the
        suite."""
        replies: list[Reply | None] = [None] * len(prompts)
        fitting: list[tuple[int, list[int]]] = []
        for i, prompt in enumerate(prompts):
            ids = self._ids(prompt, tools)
            if len(ids) < self.engine.context:
                fitting.append((i, ids))
            else:
                replies[i] = Reply.failed(
                    f"the prompt has {len(ids)} tokens, the context {self.engine.context}"
                )
        config = SampleConfig(
            temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=max_tokens, stop=tuple(stop)
        )
        answers = self.engine.generate_batch(
            [ids for _, ids in fitting], config, seeds=[sampling.seed + i for i, _ in fitting],
            constraint=self._one_of(sampling.choices), events=self.events,
        )  # fmt: skip
        for (i, _), answer in zip(fitting, answers, strict=True):
            replies[i] = self._reply(answer, not isinstance(prompts[i], list))
        return [reply for reply in replies if reply is not None]

    def _ids(self, prompt: Prompt, tools: Sequence[dict[str, Any]] | None) -> list[int]:
        if isinstance(prompt, tuple):
            return list(prompt)
        return (
            self.engine.encode(prompt) if isinstance(prompt, str) else self.engine.encode_chat(prompt, tools)
        )

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        return self.engine.logprobs(rows, events=self.events)

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """A vector of length 1 for each text, as a server of ours gives it, and how many texts were cut to
        the context."""
        from tinygpt.serve import embed

        rows = [self.engine.encode(text) for text in texts]
        n_cut = sum(len(ids) > self.context for ids in rows)
        rows = [ids[: self.context] for ids in rows]
        found: list[list[float]] = [[] for _ in rows]
        for group in embed.groups(rows):
            for i, vector in zip(group, embed.embed(self.engine, [rows[i] for i in group]), strict=True):
                found[i] = vector
        return found, n_cut

    def _one_of(self, choices: tuple[str, ...]) -> Callable[[], Constraint] | None:
        if not choices:
            return None
        stop_ids = self.engine.stop_ids
        return lambda: constraint("choice", list(choices), self.engine.tokenizer, stop_ids=stop_ids)

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
