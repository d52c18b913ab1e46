"""What comes at each node of a pass, given that the guesses before it were right.

Where guesses follow from the text alone (a lookup, the likeliest tokens of a head), the token at a node is
the one that decoding without guesses would draw there: `t ~ p` by the same keyed draw, and a guess is right
where it equals t. A guess that was not drawn is a draw from a distribution of one point, and for those the
accept-or-residual rule of speculative sampling accepts with p(d) and else draws from p without d: the same
law, over several guesses of one place as well (SpecInfer's scheme in many rounds). So texts stay what they
were, greedy or drawn, under the same seed.

Where a guess d was drawn from q (a draft model at a temperature), it is right with `min(1, p(d) / q(d))`, and
else the token comes from `max(p - q, 0)`, normalised. The text then has the law of p, and is another one than
without guesses; draws are keyed by (seed, place, purpose), so neighbours do not change it.

Source: Leviathan et al. 2023, arXiv:2211.17192, algorithm 1; Chen et al. 2023, arXiv:2302.01318; Miao et al.
2024, arXiv:2305.09781, algorithm 2 (several guesses of one place). Shapes as in _protocol.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygpt.core.backend import mx
from tinygpt.core.errors import TinyGPTError
from tinygpt.infer.batch import sampler_of
from tinygpt.infer.request import Answer, Constraint
from tinygpt.infer.sampler import Sampler, draw, uniform
from tinygpt.model import ops

Paths = list[list[int]]
Steps = Sequence[Sequence[int]]  # (B, N): which token of its answer follows a node


class Rules:
    """The sampling rules of a batch's rows, for as many nodes of each as wanted."""

    def __init__(self, rows: Sequence[Answer], vocab_size: int) -> None:
        self.rows, self.vocab_size = list(rows), vocab_size
        self._sampler = sampler_of(rows, vocab_size)
        self._spread: dict[int, Sampler] = {}

    @property
    def sampled(self) -> bool:
        """Whether any row draws its tokens."""
        return not all(row.request.config.greedy for row in self.rows)

    @property
    def remembers(self) -> bool:
        """Whether a rule counts the tokens of the text so far."""
        return hasattr(self._sampler.history, "counts_BV")

    def take(self, tokens: Sequence[Sequence[int]]) -> None:
        """These tokens were added to the rows."""
        history = self._sampler.history
        pairs = [(row, id) for row, ids in enumerate(tokens) for id in ids]
        if history is not None and self.remembers and pairs:
            at = tuple(map(mx.array, map(list, zip(*pairs))))
            history.counts_BV = history.counts_BV.at[at].add(1)

    def ruled(
        self,
        logits_BNV: mx.array,
        steps: Steps,
        more_BNV: mx.array | None = None,
        allowed_BNV: mx.array | None = None,
    ) -> mx.array:
        """Logits (B, N, V) after all rules, at these places of the answers. more: how often a token is among
        the guesses before."""
        B, n, V = logits_BNV.shape
        sampler, own = self._of(n), self._sampler.history
        if sampler.history is not None and own is not None:
            prompt_BV = counts_BV = None
            if self.remembers:
                counts_BNV = mx.broadcast_to(own.counts_BV[:, None], (B, n, V))
                counts_BNV = counts_BNV if more_BNV is None else counts_BNV + more_BNV
                prompt_BV, counts_BV = mx.repeat(own.prompt_BV, n, axis=0), counts_BNV.reshape(B * n, V)
            sampler.history.stand(_flat(steps), prompt_BV, counts_BV)
        allowed = None if allowed_BNV is None else allowed_BNV.reshape(B * n, V)
        return sampler.ruled(logits_BNV.reshape(B * n, V), allowed).reshape(B, n, V)

    def pick(self, ruled_BNV: mx.array, steps: Steps) -> mx.array:
        """(B, N): what decoding without guesses chooses at these places of the answers."""
        B, n, V = ruled_BNV.shape
        return self._of(n).pick(ruled_BNV.reshape(B * n, V), _flat(steps)).reshape(B, n)

    def draws(self, steps: Steps, purpose: str = "") -> mx.array:
        """(B, N) numbers in [0, 1) for these places of the answers."""
        return mx.array([
            [uniform(row.request.seed, step, purpose) for step in own]
            for row, own in zip(self.rows, steps, strict=True)
        ])  # fmt: skip

    @property
    def greedy_B1(self) -> mx.array:
        """(B, 1) whether a row takes the likeliest token."""
        return mx.array([[row.request.config.greedy] for row in self.rows])

    def _of(self, n: int) -> Sampler:
        """The sampler of n nodes a row."""
        if n not in self._spread:
            each = [row.request for row in self.rows for _ in range(n)]
            configs, seeds = [r.config for r in each], [r.seed for r in each]
            self._spread[n] = Sampler(configs, seeds, [[0]] * len(each), self.vocab_size)
        return self._spread[n]


def _flat(steps: Steps) -> list[int]:
    return [step for row in steps for step in row]


def paths_to(parents: Sequence[int]) -> Paths:
    """Of nodes 0, 1, ..: the nodes from 0 to it. parents: of nodes 1, 2, .., each after its parent."""
    paths: Paths = [[0]]
    for i, parent in enumerate(parents, start=1):
        paths.append([*paths[parent], i])
    return paths


def lineage(parents: Sequence[Sequence[int]]) -> mx.array:
    """(B, N, N): whether node j is i or comes before it."""
    n = len(parents[0]) + 1
    table = [[[j in path for j in range(n)] for path in map(set, paths_to(row))] for row in parents]
    return mx.array(table)


def counted(tokens_BN: mx.array, lineage_BNN: mx.array, vocab_size: int) -> mx.array:
    """(B, N, V): how often each token is among the guesses that lead to a node, its own included."""
    hot_BKV = (tokens_BN[:, 1:, None] == mx.arange(vocab_size)).astype(mx.float32)
    return lineage_BNN[:, :, 1:].astype(mx.float32) @ hot_BKV


def choose(
    rules: Rules,
    ruled_BNV: mx.array,
    steps: Steps,
    tokens_BN: mx.array,
    counts: Sequence[int],
    q_BKV: mx.array | None,
) -> mx.array:
    """(B, N): the token after each node. steps: which token of its answer that is. With q, a chain of guesses
    that were drawn from it."""
    if q_BKV is None or not rules.sampled:
        return rules.pick(ruled_BNV, steps)
    K = tokens_BN.shape[1] - 1
    p_BNV = ops.softmax(ruled_BNV.astype(mx.float32))
    meant_BK = mx.arange(K) < mx.array(list(counts))[:, None]
    d_BK = tokens_BN[:, 1:]
    pd_BK, qd_BK = (mx.take_along_axis(x, d_BK[..., None], axis=2)[..., 0] for x in (p_BNV[:, :K], q_BKV))
    right_BK = meant_BK & (rules.draws(steps, "accept")[:, :K] * qd_BK < pd_BK)
    rest_BKV = mx.maximum(p_BNV[:, :K] - q_BKV, 0.0)
    # Nothing is left where p equals q but for rounding: then p itself is as good.
    some_BK1 = meant_BK[..., None] & (rest_BKV.sum(axis=-1, keepdims=True) > 0)
    rest_BKV = mx.where(some_BK1, rest_BKV, p_BNV[:, :K])
    left_BNV = mx.log(mx.concatenate([rest_BKV, p_BNV[:, K:]], axis=1))
    B, n, V = left_BNV.shape
    drawn_BN = draw(left_BNV.reshape(B * n, V), rules.draws(steps).flatten()).reshape(B, n)
    kept_BK = mx.where(right_BK, d_BK, drawn_BN[:, :K])
    chosen_BN = mx.concatenate([kept_BK, drawn_BN[:, K:]], axis=1)
    return mx.where(rules.greedy_B1, ruled_BNV.argmax(axis=-1), chosen_BN)


def walk(tokens: Sequence[int], chosen: Sequence[int], parents: Sequence[int], count: int) -> list[int]:
    """The nodes that stay, from node 0 on: each guess that is what was chosen at its parent."""
    path, following = [0], True
    while following:
        here = path[-1]
        following = next(
            (j for j in range(1, count + 1) if parents[j - 1] == here and tokens[j] == chosen[here]), 0
        )
        path += [following] if following else []
    return path


def masks(
    constraint: Constraint,
    tokens: Sequence[int],
    parents: Sequence[int],
    count: int,
    stop_ids: frozenset[int],
) -> dict[int, object]:
    """What may follow each node that the constraint lets come and can go on from; it is left as it was.
    Nothing follows a stop id."""
    found: dict[int, object] = {0: constraint.mask()}
    failed = False
    taken: list[int] = []  # nodes that the constraint has taken on top of the text
    for node, path in enumerate(paths_to(parents[:count])):
        if node == 0 or tokens[node] in stop_ids or (above := found.get(path[-2])) is None:
            continue
        if not _has(above, tokens[node]):
            continue
        same = 0
        while same < min(len(taken), len(path) - 1) and taken[same] == path[same + 1]:
            same += 1
        if len(taken) > same:
            constraint.rollback(len(taken) - same)
            del taken[same:]
        try:
            for j in path[same + 1 :]:
                constraint.take(tokens[j])
                taken.append(j)
            found[node] = constraint.mask()
        except TinyGPTError:  # the answer fails if it comes here, and it need not
            failed = True
            break
    if taken or failed:
        constraint.rollback(len(taken))
    return found


def _has(mask: object, token: int) -> bool:
    import numpy as np

    words = np.asarray(mask)
    return token // 32 < len(words) and bool((int(words[token // 32]) >> (token % 32)) & 1)
