"""Drafters that know what comes, for tests of what is made of their guesses."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Self

from tinygpt.infer.request import Answer, Request
from tinygpt.infer.speculate._protocol import Told
from tinygpt.infer.speculate._tree import Node, laid_out


class Knowing:
    """A drafter, and its session, that has no state. `ids`: the answer to a request."""

    points, note, most = frozenset[str](), "", 7

    def __init__(self, ids: Callable[[Request], list[int]], *, branched: bool) -> None:
        self.ids, self.branched, self.told = ids, branched, Told()

    def begin(self, pads: Sequence[int]) -> Self:
        return self

    def read(self, *_: Any) -> None: ...
    def extend(self, other: Knowing) -> None: ...
    def filter(self, rows: Sequence[int]) -> None: ...
    def settle(self, *_: Any) -> None: ...

    def propose(self, rows: Sequence[Answer], rules: Any, most: Sequence[int]) -> Any:
        trees = [
            self.tree(self.ids(row.request)[len(row.ids) :][:n], n) for row, n in zip(rows, most, strict=True)
        ]
        return laid_out(trees, self.most, branched=self.branched) if any(trees) else None

    def tree(self, ahead: list[int], n: int) -> list[Node]:
        """The guesses for a row whose next tokens these are, at most n in a line."""
        raise NotImplementedError


class Oracle(Knowing):
    """Guesses the next three, and hides them in a tree of nonsense."""

    def tree(self, ahead: list[int], n: int) -> list[Node]:
        tree: list[Node] = []
        here = 0
        for i, token in enumerate(ahead[:3]):
            if self.branched:
                tree.append(((token + 1 + i) % 250, here))  # a wrong one comes first
            tree.append((token, here))
            here = len(tree)
        return tree


class Ragged(Knowing):
    """Guesses a random part: of each row another number of right ones, followed by wrong ones; sometimes
    nothing."""

    def __init__(self, ids: Callable[[Request], list[int]], seed: int, *, branched: bool) -> None:
        super().__init__(ids, branched=branched)
        self.rng = random.Random(seed)

    def tree(self, ahead: list[int], n: int) -> list[Node]:
        tree: list[Node] = []
        here = 0
        right, wrong = self.rng.randint(0, len(ahead)), self.rng.randint(0, 3)
        for token in [*ahead[:right], *(self.rng.randrange(250) for _ in range(min(wrong, n - right)))]:
            if self.branched and len(tree) + 2 <= min(n, self.most) and self.rng.random() < 0.5:
                tree.append(((token + 1) % 250, here))
            if len(tree) < self.most:
                tree.append((token, here))
                here = len(tree)
        return tree
