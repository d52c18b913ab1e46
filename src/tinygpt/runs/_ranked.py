"""Pairs from a reward: of several answers to each prompt the best and the worst."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core import files
from tinygpt.core.errors import DataError
from tinygpt.core.events import Events
from tinygpt.data import rows
from tinygpt.data.source._asked import SHAPES, Asked, asked
from tinygpt.data.source._pairing import prompt_hash
from tinygpt.data.source._preferred import Preferred, preferred
from tinygpt.eval.reward import _composite
from tinygpt.eval.reward._answer import Answer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine

if TYPE_CHECKING:
    from tinygpt.data.source.pairs import PairSource
    from tinygpt.train.loop import Hook

VERSION = 1
LOOKED = 32  # prompts that are answered at an evaluation


class Made:
    """Pairs that a model makes of its own answers. `rows` and `facts` are there after `rank`."""

    def __init__(
        self, engine: Engine, reward: _composite.Reward, paths: Sequence[Path], *, strict: bool
    ) -> None:
        self.engine, self.reward = engine, reward
        self.asked: list[Asked] = []
        self.n_bad, self.notes = 0, list[str]()
        for path in paths:
            used, report = rows.read(path, asked, strict=strict, known=SHAPES)
            self.asked += used
            self.n_bad += report.n_bad
            self.notes += [f"{path}: {report.sentence()}"] if report.n_bad else []
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}

    def rank(self, sampling: SampleConfig, n: int, *, margin: float, identity: str, events: Events) -> None:
        """n answers to every prompt, and a pair of each prompt whose best one is better by more than
        `margin`.

        They are kept in the cache by all that decides them (`identity`: the model, the template, the
        tokenizer), so that a run which goes on has the same pairs."""
        for note in self.notes:
            events.note(note, level="warning")
        settings = repr((VERSION, identity, sampling, n, margin, self.reward.hash))
        key = hashlib.sha256(settings.encode())
        for one in self.asked:
            key.update(repr((one.prompt, one.tools, one.row)).encode())
        path = files.cache_dir("ranked") / f"{key.hexdigest()[:32]}.json"
        kept = files.peek_json(path)
        if not isinstance(kept.get("rows"), list) or not isinstance(kept.get("facts"), dict):
            kept = self._made(sampling, n, margin, events)
            files.write_json(path, kept)
        self.rows, self.facts = kept["rows"], {"bad_rows": self.n_bad, **kept["facts"]}
        if not self.rows:
            raise DataError(
                f"the reward finds no answer better than another in {len(self.asked)} prompts",
                hint="draw more (--samples), more freely (--temperature), or judge by what tells them apart",
            )

    def _made(self, sampling: SampleConfig, n: int, margin: float, events: Events) -> dict[str, Any]:
        ids = [self.engine.encode_chat(a.prompt, a.tools) for a in self.asked]
        fitting = [i for i, one in enumerate(ids) if len(one) < self.engine.context]
        wanted = [ids[i] for i in fitting for _ in range(n)]
        written = self.engine.generate_batch(wanted, sampling, events=events)
        made: list[dict[str, Any]] = []
        everything: list[_composite.Scored] = []
        for at, i in enumerate(fitting):
            texts = [one.text for one in written[at * n : (at + 1) * n]]
            scored = [self._scored(self.asked[i], text) for text in texts]
            everything += scored
            made += _pair(self.asked[i], texts, scored, margin)
        ties, left = len(fitting) - len(made), len(ids) - len(fitting)
        if ties or left:
            events.note(f"{ties} prompts with equally good answers, and {left} too long ones, make no pair")
        means = {f"reward.{name}": round(value, 6) for name, value in _composite.means(everything).items()}
        means["cut_off"] = sum(one.finish_reason == "length" for one in written)
        facts = {"prompts": len(ids), "answers": len(everything), "ranked_pairs": len(made), **means}
        return {"rows": made, "facts": facts}

    def _scored(self, one: Asked, text: str) -> _composite.Scored:
        return self.reward(Answer(text=text, prompt=one.prompt, expected=one.expected, row=one.row))

    def preferred(self) -> list[Preferred]:
        """The rows as the source of pairs takes them."""
        return [preferred(row) for row in self.rows]

    def looks(self, held_out: PairSource | None, max_tokens: int) -> list[tuple[str, Hook]]:
        """What is measured at evaluations: the mean reward of greedy answers to held-out prompts, and that
        of each of its dimensions."""
        if held_out is None:
            return []
        kept = {e.prompt for e in held_out.packed.examples}
        found = [one for one in self.asked if prompt_hash(one.prompt, one.tools) in kept][:LOOKED]
        # Of the model as it is now: an adapter may have been put on it since it answered.
        engine = Engine(self.engine.model, self.engine.tokenizer, self.engine.template)
        ids = [engine.encode_chat(one.prompt, one.tools) for one in found]
        greedy = SampleConfig(temperature=0.0, max_tokens=max_tokens, seed=0)

        def hook(step: int) -> dict[str, float]:
            written = engine.generate_batch(ids, greedy)
            return _composite.means([self._scored(a, w.text) for a, w in zip(found, written, strict=True)])

        return [("reward", hook)]

    def write(self, path: Path) -> None:
        """The pairs as rows, beside the run that learned from them."""
        rows.write(path, self.rows)


def _pair(
    one: Asked, texts: Sequence[str], scored: Sequence[_composite.Scored], margin: float
) -> list[dict[str, Any]]:
    """The row of a prompt's best and worst answer; none where they are as good as each other, or one is
    empty."""
    order = sorted((i for i in range(len(texts)) if texts[i].strip()), key=lambda i: -scored[i].total)
    if len(order) < 2 or scored[order[0]].total - scored[order[-1]].total <= margin:
        return []
    best, worst = order[0], order[-1]
    row: dict[str, Any] = {"prompt": one.prompt}
    for name, i in (("chosen", best), ("rejected", worst)):
        row |= {name: texts[i], f"{name}_reward": scored[i].total, f"{name}_dimensions": scored[i].parts}
    return [row | ({"tools": one.tools} if one.tools else {})]
