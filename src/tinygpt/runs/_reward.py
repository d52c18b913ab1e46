"""Rewards over what a model writes: evolution strategies learn from them, gradients could not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinygpt.core.errors import ConfigError
from tinygpt.eval.reward import _composite
from tinygpt.eval.reward._answer import Answer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine

if TYPE_CHECKING:
    from tinygpt.data.batch import Batch
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.model.lm import LM

ROOM = 8  # tokens that an answer may have beyond the longest expected one


def plain(text: str) -> str:
    """A text without regard to how much space is where."""
    return " ".join(text.split())


JUDGES: Mapping[str, Callable[[str, str], bool]] = {
    "exact": lambda written, expected: plain(written) == plain(expected),
    "contains": lambda written, expected: plain(expected) in plain(written),
}


@dataclass(frozen=True)
class Case:
    """A prompt and the answer expected to it, as ids; the answer's end token is left out."""

    prompt: list[int]
    answer: list[int]


def cases(batch: Batch, stop_ids: tuple[int, ...]) -> list[Case]:
    """What a batch asks: every answer in it, after all that its document says before."""
    found: list[Case] = []
    for tokens, targets, weights, segments in zip(
        batch.tokens.tolist(), batch.targets.tolist(), batch.weights.tolist(), batch.segments.tolist()
    ):
        begin = 0  # of the document that position t is in
        prompt, answer = list[int](), list[int]()
        for t, segment in enumerate(segments):
            if t and segment != segments[t - 1]:
                begin = t
            if weights[t] <= 0:
                continue
            if not answer:
                prompt = tokens[begin : t + 1]
            answer.append(targets[t])
            ends = t + 1 == len(segments) or weights[t + 1] <= 0 or segments[t + 1] != segment
            if ends:
                kept = answer[:-1] if answer[-1] in stop_ids else answer
                found += [Case(prompt, kept)] if kept else []
                answer = []
    return found


class Rewarded:
    """What a reward of named dimensions says of the answers that the model writes to a batch's prompts,
    always taking the likeliest token. The longest expected answer bounds theirs, with some room."""

    def __init__(self, model: LM, tokenizer: Tokenizer, reward: _composite.Reward, room: int) -> None:
        self.engine, self.reward, self.room = Engine(model, tokenizer), reward, room
        self._seen: list[_composite.Scored] = []

    def __call__(self, batch: Batch, step: int) -> float:
        """The mean reward, 0 where nothing was asked."""
        tokenizer = self.engine.tokenizer
        asked = [c for c in cases(batch, tokenizer.stop_ids) if len(c.prompt) < self.engine.context]
        greedy = SampleConfig(temperature=0.0, max_tokens=self.room, seed=0)
        written = self.engine.generate_batch([case.prompt for case in asked], greedy) if asked else []
        scored = [
            self.reward(
                Answer(text=one.text, prompt=tokenizer.decode(c.prompt), expected=tokenizer.decode(c.answer))
            )
            for one, c in zip(written, asked, strict=True)
        ]
        self._seen += scored
        return _composite.means(scored)["total"]

    def told(self) -> dict[str, float]:
        """The mean of every dimension over all answers since this was last asked."""
        found = {f"reward.{name}": value for name, value in _composite.means(self._seen).items()}
        self._seen = []
        return {name: value for name, value in found.items() if name != "reward.total"}


class Written:
    """The share of a batch's answers that the model writes as expected, always taking the likeliest token."""

    def __init__(self, model: LM, tokenizer: Tokenizer, judge: str) -> None:
        self.engine, self.judge = Engine(model, tokenizer), JUDGES[judge]

    def __call__(self, batch: Batch, step: int) -> float:
        """From 0 to 1. What fills the whole context leaves no room to answer and is left out."""
        tokenizer = self.engine.tokenizer
        asked = [c for c in cases(batch, tokenizer.stop_ids) if len(c.prompt) < self.engine.context]
        if not asked:
            return 0.0
        longest = max(len(case.answer) for case in asked) + ROOM
        greedy = SampleConfig(temperature=0.0, max_tokens=longest, seed=0)
        written = self.engine.generate_batch([case.prompt for case in asked], greedy)
        right = [
            self.judge(one.text, tokenizer.decode(case.answer))
            for one, case in zip(written, asked, strict=True)
        ]
        return sum(right) / len(right)


def check(reward: str, reward_fn: str | None, tokens: int, *, answers: bool) -> None:
    """ConfigError for settings of a reward that contradict each other; `answers`: the data has some."""
    if tokens < 1:
        raise ConfigError(f"--reward-tokens must be at least 1, got {tokens}")
    if reward_fn is not None and reward != "loss":
        raise ConfigError("--reward-fn and --reward both say what judges", hint="leave one of them out")
    named = "--reward-fn" if reward_fn is not None else f"the reward '{reward}'"
    if (reward_fn is not None or reward != "loss") and not answers:
        raise ConfigError(f"{named} needs answers", hint="give --data rows, not --corpus")


def judge(
    model: LM, tokenizer: Tokenizer, reward: str, own: _composite.Reward | None, tokens: int
) -> Callable[[Batch, int], float] | None:
    """What rewards a change; None: minus the loss."""
    if own is not None:
        return Rewarded(model, tokenizer, own, tokens)
    return None if reward == "loss" else Written(model, tokenizer, reward)
