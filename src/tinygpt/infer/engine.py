"""The engine: prompts in, text out, as a stream or many at once; and log-probabilities for scoring."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlx.utils import tree_flatten

from tinygpt.core.errors import ConfigError, TooLongError
from tinygpt.core.events import Events, Progress
from tinygpt.data.template._spans import encode
from tinygpt.infer import score
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.decode import fixed_step
from tinygpt.infer.lane import Lane
from tinygpt.infer.request import Answer, Constraint, Piece, Request
from tinygpt.model.cache import quantized, sinks

if TYPE_CHECKING:
    from tinygpt.data.template._choice import Template
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.speculate._protocol import Drafter
    from tinygpt.model.lm import LM

Message = dict[str, Any]
LARGE = 1 << 20  # entries of a matrix whose products with few rows are faster on several threads


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A whole answer. `ids` leave out `stop_id`, which ended it, or None; `finish_reason` is "stop" or
    "length"; `seed` gives it again."""

    text: str
    ids: list[int]
    finish_reason: str
    seed: int
    logprob_sum: float | None = None
    stop_id: int | None = None

    @classmethod
    def of(cls, answer: Answer, logprobs: bool) -> Completion:
        """What has become of an answer."""
        return cls(
            text=answer.text,
            ids=answer.ids,
            finish_reason=answer.finish_reason or "",
            seed=answer.request.seed,
            logprob_sum=answer.logprob_sum if logprobs else None,
            stop_id=answer.stop_id,
        )


def _is_large(model: LM) -> bool:
    """Whether most weights are in matrices whose products are faster on several threads of a CPU. Of small
    ones the threads wait for each other, and Python has no core: 3M parameters, 2 cores: 2 to 3 times."""
    sizes = [(x.size, x.shape) for _, x in tree_flatten(model.parameters()) if x.ndim > 1]
    large = sum(size for size, shape in sizes if shape[-1] * shape[-2] >= LARGE)
    return 2 * large >= sum(size for size, _ in sizes)


class Engine:
    """A model, its tokenizer and its chat template (see data/template, or None)."""

    def __init__(self, model: LM, tokenizer: Tokenizer, template: Template | None = None) -> None:
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.fixed_step = fixed_step(model)
        self.stop_ids = frozenset(tokenizer.stop_ids)
        self.context = model.config.reach
        self.drafter: Drafter | None = None  # what guesses for its lanes (see infer/speculate)
        self.product_threads = 0 if _is_large(model) else 1
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {tokenizer.vocab_size} ids, the model only {model.config.vocab_size}",
                hint="use the tokenizer that the model was trained with",
            )

    @property
    def plain_length(self) -> int | None:
        """Tokens of a text that are read the same whatever follows, where positions depend on its length."""
        position = getattr(getattr(self.model, "model", None), "embed_positions", None)
        return position.trained if getattr(position, "late", False) else None

    # Prompts

    def start_id(self) -> int:
        """The id that opens a document: bos, or eos where there is none."""
        return self.tokenizer.eos_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id

    def encode(self, text: str) -> list[int]:
        """Ids of a text to continue. It begins with bos where the tokenizer has one; an empty text with
        `start_id`."""
        bos = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        return bos + self.tokenizer.encode(text) or [self.start_id()]

    def encode_chat(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None = None
    ) -> list[int]:
        """Ids of a conversation up to where the assistant begins to write."""
        if self.template is None:
            raise ConfigError("this model has no chat template", hint="use `tinygpt sample` for plain text")
        return encode(self.template.render(messages, tools, True), self.tokenizer)[0]

    def room(self, prompt: Sequence[int], max_tokens: int) -> int:
        """Tokens that an answer may have: max_tokens or what is left of the context. TooLongError when
        nothing is."""
        if not prompt:
            raise ConfigError(
                "the prompt holds no token", hint="Engine.encode gives even an empty text a start"
            )
        if len(prompt) >= self.context:
            raise TooLongError(len(prompt), self.context)
        return min(max_tokens, self.context - len(prompt))

    def limit(self, config: SampleConfig) -> float:
        """Tokens that prompt and answer may have together: the context, or no bound where a window of sinks
        moves on. ConfigError where the model cannot have one."""
        if not config.window:
            return self.context
        sinks.check(self.model, config.sinks, config.window)
        return math.inf

    def _room(self, prompt: Sequence[int], config: SampleConfig) -> int:
        """`room` under this config."""
        endless = prompt and self.limit(config) == math.inf
        return config.max_tokens if endless else self.room(prompt, config.max_tokens)

    # Answers

    def request(
        self,
        prompt: Sequence[int],
        config: SampleConfig | None = None,
        *,
        stop_ids: Sequence[int] | frozenset[int] | None = None,
        logprobs: int | None = None,
        echo: bool = False,
        constraint: Constraint | None = None,
        boundaries: Sequence[int] = (),
    ) -> Request:
        """A request that a lane of this engine takes; ConfigError where it cannot be served. See Request.

        stop_ids: by default the tokenizer's; () turns them off."""
        config = (config or SampleConfig()).seeded()
        if config.kv_bits:
            quantized.check(self.model, config.kv_bits)
        n_vocab = self.model.config.vocab_size
        if (wrong := next((i for i in prompt if not 0 <= i < n_vocab), None)) is not None:
            raise ConfigError(f"the prompt holds the id {wrong}, the model has 0 to {n_vocab - 1}")
        if (wrong := next((i for i, _ in config.biases if not 0 <= i < n_vocab), None)) is not None:
            raise ConfigError(f"'logit_bias' names the id {wrong}, the model has 0 to {n_vocab - 1}")
        return Request(
            prompt=list(prompt),
            config=config,
            room=self._room(prompt, config),
            stop_ids=self.stop_ids if stop_ids is None else frozenset(stop_ids),
            logprobs=logprobs,
            echo=echo,
            constraint=constraint,
            boundaries=tuple(boundaries),
        )

    def generate(
        self,
        prompt: Sequence[int],
        config: SampleConfig | None = None,
        *,
        stop_ids: Sequence[int] | frozenset[int] | None = None,
        logprobs: bool = False,
        constraint: Constraint | None = None,
    ) -> Iterator[Piece]:
        """Stream one answer; the last piece has a finish_reason. The seed is `config.seed`: call
        `config.seeded()` before to know a fresh one.

        logprobs: also give log p of each token under the model itself, before any rule. constraint: a fresh
        one; an answer that cannot go on under it raises its error.
        """
        request = self.request(
            prompt, config, stop_ids=stop_ids, logprobs=0 if logprobs else None, constraint=constraint
        )
        return self._stream(request)

    def _stream(self, request: Request) -> Iterator[Piece]:
        pieces: deque[Piece] = deque()
        lane = Lane(self)
        answer = lane.submit(request, pieces.append)
        try:
            while lane.busy:
                lane.step()
                while pieces:
                    yield pieces.popleft()
        finally:
            lane.end_all()
        if answer.error is not None:
            raise answer.error

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        config: SampleConfig | None = None,
        *,
        seeds: Sequence[int] | None = None,
        stop_ids: Sequence[int] | frozenset[int] | None = None,
        logprobs: bool = False,
        constraint: Callable[[], Constraint] | None = None,
        events: Events | None = None,
    ) -> list[Completion]:
        """Answers to many prompts, in their order. Prompt i has the seed `seeds[i]`, by default `config.seed
        + i`; `constraint` gives each answer a fresh one."""
        config = (config or SampleConfig()).seeded()
        assert config.seed is not None
        seeds = [config.seed + i for i in range(len(prompts))] if seeds is None else seeds
        requests = [
            self.request(
                ids, replace(config, seed=seed), stop_ids=stop_ids, logprobs=0 if logprobs else None,
                constraint=constraint and constraint(),
            )
            for ids, seed in zip(prompts, seeds, strict=True)
        ]  # fmt: skip
        lane = Lane(self)
        answers: list[Answer | None] = [None] * len(requests)
        for i in sorted(range(len(requests)), key=lambda i: len(requests[i].prompt)):
            answers[i] = lane.submit(requests[i])
        told = 0
        while lane.busy:
            lane.step()
            done = len(requests) - len(lane.waiting) - lane.n_running
            if events is not None and done > told:
                told = done
                events.emit(Progress(task="generate", done=done, total=len(requests), unit="prompts"))
        for answer in answers:
            if answer is not None and answer.error is not None:
                raise answer.error
        return [Completion.of(answer, logprobs) for answer in answers if answer is not None]

    # Scores

    def logprobs(self, rows: Sequence[Sequence[int]], *, events: Events | None = None) -> list[list[float]]:
        """log p(ids[j+1] | ids[..j]) in nats for every j of every row: one fewer than the row has ids."""
        return score.logprobs(self.model, rows, events)
