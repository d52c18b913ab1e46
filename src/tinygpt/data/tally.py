"""Counting rows through a stage: how many came, how many went on, and why the others did not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tinygpt.data.card import Stage

MOST = 20  # reasons told apart; the others are counted together
OTHER = "other reasons"


class Tally:
    """The counts of one stage. Its size does not grow with the rows."""

    def __init__(self, name: str) -> None:
        self.name, self.n_in, self.n_out = name, 0, 0
        self.dropped: dict[str, int] = {}
        self.first: list[str] = []  # of the first three reasons, with their places

    def keep(self) -> None:
        """One more row that goes on."""
        self.n_in += 1
        self.n_out += 1

    def drop(self, reason: str, where: str = "") -> None:
        """One more that does not. Numbers in a reason are not told apart."""
        self.n_in += 1
        key = re.sub(r"\d+", "N", reason)
        if len(self.first) < 3 and key not in self.dropped:
            self.first.append(f"{where}: {reason}" if where else reason)
        key = key if key in self.dropped or len(self.dropped) < MOST else OTHER
        self.dropped[key] = self.dropped.get(key, 0) + 1

    def stage(self, **notes: Any) -> Stage:
        """As a card has it."""
        dropped: Mapping[str, int] = dict(sorted(self.dropped.items()))
        return Stage(name=self.name, n_in=self.n_in, n_out=self.n_out, dropped=dropped, notes=notes)

    def sentence(self) -> str:
        """For people, where rows were left out; "" where none was."""
        left = self.n_in - self.n_out
        return f"{self.name}: {left} of {self.n_in} rows left out: {'; '.join(self.first)}" if left else ""
