"""EAGLE: one layer beside the model writes its features ahead; the likeliest tree of guesses is checked.

The layer reads the model's feature f_i and the token t_(i+1) and gives the next feature, from which the
model's own output matrix makes the token after; fed with what it made, it goes on. From the text's last token
the `width` likeliest tokens branch off; at each level the `width` nodes whose product of probabilities is
largest are carried on, and of all nodes the `tokens` best are checked in one pass. `tinygpt train-heads MODEL
--type eagle` trains the layer on any frozen model.

Paper: Li et al., ICML 2024, arXiv:2401.15077; Li et al., EMNLP 2024, arXiv:2406.16858, section 4 (EAGLE-2:
the tree grows and is ranked by the draft's confidence).
Differs: a line of guesses where a model's caches or positions take no tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.infer.batch import likeliest
from tinygpt.infer.decode import Decoder
from tinygpt.infer.request import Answer
from tinygpt.infer.speculate._back import Branching
from tinygpt.infer.speculate._batch import NO_TREES, check, takes_trees
from tinygpt.infer.speculate._protocol import Proposal, Seen, Told
from tinygpt.infer.speculate._tree import Node, laid_out
from tinygpt.model.drafting import heads as stored
from tinygpt.model.drafting.features import Features

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine
    from tinygpt.infer.speculate._verify import Rules


@dataclass(frozen=True, kw_only=True)
class Config:
    """The size of the tree."""

    tokens: Annotated[int, "Guesses checked at once."] = 12
    depth: Annotated[int, "Guesses in a line at most."] = 5
    width: Annotated[int, "Nodes of a level that are carried on, and tokens that follow each."] = 4

    def __post_init__(self) -> None:
        if min(self.tokens, self.depth, self.width) < 1:
            raise ConfigError(
                f"tokens, depth and width must be at least 1, got {self.tokens}, {self.depth}, {self.width}"
            )


@dataclass
class _Tree:
    """A row's candidates. Each is (sum of log p, token, the candidate that it follows or -1, its depth)."""

    found: list[tuple[float, int, int, int]]
    front: list[int]  # the candidates of the last level that are carried on

    def best(self, most: int, depth: int) -> list[Node]:
        """The candidates with the largest products, each after the one it follows."""
        order = sorted(
            (i for i, c in enumerate(self.found) if c[3] <= depth), key=lambda i: -self.found[i][0]
        )
        kept = sorted(order[:most])  # a candidate is never likelier than the one it follows, and comes later
        place = {-1: 0} | {i: n for n, i in enumerate(kept, start=1)}
        return [(self.found[i][1], place[self.found[i][2]]) for i in kept]


class EagleRows:
    """The session: the layer's cache of pairs, and features that wait for the token after them."""

    def __init__(self, drafter: EagleHead, pads: Sequence[int]) -> None:
        self._drafter = drafter
        self._pairs = Decoder(drafter.heads, pads, _never)  # holds the cache alone
        self._waiting: mx.array | None = None  # (B, m, D), each row's from the left
        self._counts = [1] * len(pads)

    def read(self, tokens_BL: mx.array, seen: Seen) -> None:
        """Enter all pairs of the prompts; the last feature waits for the answer's first token."""
        features_BLD, late = seen[self._drafter.point], self._waiting
        pairs_BLD = (
            features_BLD[:, :-1] if late is None else mx.concatenate([late, features_BLD[:, :-1]], axis=1)
        )
        n = pairs_BLD.shape[1]
        if n:
            mx.eval(self._run(pairs_BLD, tokens_BL[:, -n:], self._pairs.cache[0]))
        self._waiting = features_BLD[:, -1:]

    def extend(self, other: EagleRows) -> None:
        """Take in the rows of another session."""
        mine, theirs = self._late, other._late
        width = max(mine.shape[1], theirs.shape[1])
        parts = [mx.pad(x, [(0, 0), (0, width - x.shape[1]), (0, 0)]) for x in (mine, theirs)]
        self._pairs.extend(other._pairs)
        self._waiting, self._counts = mx.concatenate(parts), self._counts + other._counts

    def filter(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        self._pairs.filter(rows)
        self._waiting = self._late[mx.array(list(rows))]
        self._counts = [self._counts[row] for row in rows]

    @property
    def _late(self) -> mx.array:
        assert self._waiting is not None, "nothing was read yet"
        return self._waiting

    def _run(self, features_BLD: mx.array, tokens_BL: mx.array, cache: Any, **how: Any) -> mx.array:
        """The features that follow pairs of features and the tokens after them."""
        embedded_BLD = self._drafter.features.embed(tokens_BL)
        as_learned = features_BLD.astype(mx.float32), embedded_BLD.astype(mx.float32)
        return self._drafter.heads(*as_learned, cache=cache, **how)

    def propose(self, rows: Sequence[Answer], rules: Rules, most: Sequence[int]) -> Proposal | None:
        """The likeliest tree of what the layer writes."""
        drafter, cache = self._drafter, self._pairs.cache[0]
        start_BD = self._enter(rows)
        offset = cache.offset
        start = mx.full((len(rows), 1), offset) if isinstance(offset, int) else offset[:, None]
        trees = [_Tree([], []) for _ in rows]
        made_BWD, entered = start_BD[:, None], []  # entered: of each level the rows' nodes in the cache
        for depth in range(1, min(drafter.depth, max(most)) + 1):
            tops = self._tops(made_BWD)
            parents_BW = _grow(trees, tops, depth, drafter.width)
            if depth == min(drafter.depth, max(most)):
                break
            given_BWD = mx.take_along_axis(made_BWD, mx.array(parents_BW)[..., None], axis=1)
            entered.append([list(tree.front) for tree in trees])
            tokens_BW = mx.array([[tree.found[i][1] for i in tree.front] for tree in trees])
            places_BW = mx.broadcast_to(start + (depth - 1), tokens_BW.shape)
            branching = Branching(cache, _lineage(trees, entered))
            made_BWD = self._run(given_BWD, tokens_BW, branching, places=places_BW)
        cache.trim(sum(len(level[0]) for level in entered))
        nodes = [tree.best(drafter.most, depth) for tree, depth in zip(trees, most, strict=True)]
        return laid_out(nodes, drafter.most, branched=drafter.trees)

    def _enter(self, rows: Sequence[Answer]) -> mx.array:
        """Enter the pairs that waited for their tokens; the feature (B, D) after the last of each row."""
        late, width = self._late, self._late.shape[1]
        tokens = [(row.request.prompt + row.ids)[-n:] for row, n in zip(rows, self._counts, strict=True)]
        filled = mx.array([own + [0] * (width - len(own)) for own in tokens])
        made_BLD = self._run(late, filled, self._pairs.cache[0])
        mx.eval(made_BLD)
        if any(n < width for n in self._counts):
            self._pairs.rewind([width - n for n in self._counts])
        ends = mx.array([n - 1 for n in self._counts])
        return mx.take_along_axis(made_BLD, ends[:, None, None], axis=1)[:, 0]

    def _tops(self, made_BWD: mx.array) -> list[list[list[tuple[int, float]]]]:
        """Of each node the likeliest tokens after it, with log p."""
        logits_BWV = self._drafter.features.logits(made_BWD).astype(mx.float32)
        logs_BWV = logits_BWV - mx.logsumexp(logits_BWV, axis=-1, keepdims=True)
        ids, values = (x.tolist() for x in likeliest(logs_BWV, self._drafter.width))
        return [[list(zip(*node)) for node in zip(*row)] for row in zip(ids, values)]

    def settle(self, seen: Seen, paths: Sequence[Sequence[int]]) -> None:
        """The features of the tokens that stay wait for the tokens after them."""
        width = max(map(len, paths))
        at = mx.array([[*path, *[0] * (width - len(path))] for path in paths])
        self._waiting = mx.take_along_axis(seen[self._drafter.point], at[..., None], axis=1)
        self._counts = [len(path) for path in paths]


def _grow(trees: list[_Tree], tops: Any, depth: int, width: int) -> list[list[int]]:
    """Add a level of candidates to each tree and choose whom to carry on; whom of the last level each of
    these follows, as its place there."""
    chosen: list[list[int]] = []
    for tree, own in zip(trees, tops, strict=True):
        fresh: list[tuple[int, int]] = []  # a candidate, and the place of the one before in the last level
        for place, node in enumerate(own):
            before = tree.front[place] if tree.front else -1
            so_far = tree.found[before][0] if tree.front else 0.0
            for token, log in node:
                fresh.append((len(tree.found), place))
                tree.found.append((so_far + log, token, before, depth))
        fresh.sort(key=lambda one: -tree.found[one[0]][0])
        tree.front = [i for i, _ in fresh[:width]]
        chosen.append([place for _, place in fresh[:width]])
    return chosen


def _lineage(trees: list[_Tree], entered: list[list[list[int]]]) -> mx.array:
    """(B, W, M): which of all entered nodes lead to those of the last level."""
    table: list[list[list[bool]]] = []
    for i, tree in enumerate(trees):
        columns = [node for level in entered for node in level[i]]
        own: list[list[bool]] = []
        for node in entered[-1][i]:
            above = {node}
            while (node := tree.found[node][2]) >= 0:
                above.add(node)
            own.append([column in above for column in columns])
        table.append(own)
    return mx.array(table)


def _never(*_: Any) -> Any:
    raise AssertionError("the layer is not stepped by a decoder")


class EagleHead:
    """The drafter."""

    def __init__(self, heads: Any, features: Features, config: Config, *, trees: bool) -> None:
        self.told = Told()
        self.heads, self.features, self.trees, self.point = heads, features, trees, features.point
        self.width, self.depth = (config.width if trees else 1), config.depth
        self.most = config.tokens if trees else min(config.tokens, config.depth)
        self.points = frozenset((features.point,))
        self.note = "" if trees else NO_TREES

    def begin(self, pads: Sequence[int]) -> EagleRows:
        """A session."""
        return EagleRows(self, pads)


def build(engine: Engine, config: Config | None = None, *, heads: Any) -> EagleHead:
    """A drafter for an engine out of a trained layer; ConfigError where it does not fit its model."""
    check(engine.model)
    features = Features(engine.model)
    stored.refuse_other(heads.facts, width=features.width, vocab_size=features.vocab_size)
    return EagleHead(heads, features, config or Config(), trees=takes_trees(engine.model))
