"""Trees of guesses: which of them a pass checks, and how they are laid out."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from tinygpt.core.backend import mx
from tinygpt.infer.speculate._protocol import Proposal

Node = tuple[int, int]  # a token, and the node that it follows: 0 is the text's last token


def laid_out(trees: Sequence[Sequence[Node]], width: int, *, branched: bool) -> Proposal:
    """The guesses of all rows, filled up to `width` nodes each; a node comes after the one it follows.
    branched: else each row's nodes are a line."""
    filled = [[*tree, *[(0, 0)] * (width - len(tree))] for tree in trees]
    return Proposal(
        tokens=mx.array([[token for token, _ in tree] for tree in filled]),
        counts=[len(tree) for tree in trees],
        parents=[[parent for _, parent in tree] for tree in filled] if branched else None,
    )


def likeliest_products(choices: Sequence[Sequence[tuple[int, float]]], most: int) -> list[Node]:
    """The nodes with the largest products of probabilities along their paths, at most so many.

    choices: for each place ahead tokens with their log-probabilities, the likeliest first, whatever came at
    the places before."""
    tree: list[Node] = []
    if not choices or not choices[0]:
        return tree
    # (minus the sum so far, order of entry, place, rank there, node before, minus the sum up to that)
    waiting = [(-choices[0][0][1], 0, 0, 0, 0, 0.0)]
    entered = 1
    while waiting and len(tree) < most:
        loss, _, place, rank, parent, before = heapq.heappop(waiting)
        tree.append((choices[place][rank][0], parent))
        if rank + 1 < len(choices[place]):
            other = before - choices[place][rank + 1][1]
            heapq.heappush(waiting, (other, entered, place, rank + 1, parent, before))
        if place + 1 < len(choices):
            further = loss - choices[place + 1][0][1]
            heapq.heappush(waiting, (further, entered + 1, place + 1, 0, len(tree), loss))
        entered += 2
    return tree


def in_line(proposal: Proposal, tokens: Sequence[Sequence[int]]) -> Proposal:
    """Of each row's tree the line that follows the first node at every place. tokens: (B, K), the same."""
    assert proposal.parents is not None
    lines: list[list[Node]] = []
    for own, parents, count in zip(tokens, proposal.parents, proposal.counts, strict=True):
        line: list[Node] = []
        here = 0
        while child := next((j for j in range(here + 1, count + 1) if parents[j - 1] == here), 0):
            line.append((own[child - 1], len(line)))
            here = child
        lines.append(line)
    return laid_out(lines, max(map(len, lines)), branched=False)
