"""What a router must beat: the commonest tool, and BM25 over tools or over requests that were learned.

`majority` takes the commonest class of the learned requests. `bm25-tools` takes the tool whose name and
description share most with a request, `bm25-requests` the tool of the learned request that does. Both take
"no tool" where the best score lies below a bound, the one with the most right answers on the learned requests
(each without itself among the passages, so that it is found fairly); no shared word is below every bound.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tinygpt.data.bm25 import BM25
from tinygpt.data.requests import NOTHING
from tinygpt.router.pairs import Pair

Guess = tuple[str, float]
"""A tool and how strongly it is meant."""


def predictions(
    learned: Sequence[Pair], queries: Sequence[str], descriptions: Mapping[str, str]
) -> dict[str, list[str]]:
    """By baseline the tool that each query gets. `descriptions` of tools may be missing; names count."""
    counts = Counter(tool for _, tool in learned)
    most = min(counts, key=lambda tool: (-counts[tool], tool))
    abstains = NOTHING in counts
    usual = NOTHING if abstains else most
    found = {"majority": [most] * len(queries)}

    tools = sorted(counts.keys() - {NOTHING})
    of_tools = BM25([f"{spoken(name)} {descriptions.get(name, '')}" for name in tools])

    def by_tools(query: str, but: int = -1) -> Guess:
        return _best(of_tools.best(query, 1), tools, usual)

    served = [pair for pair in learned if pair[1] != NOTHING] if not abstains else list(learned)
    of_requests = BM25([query for query, _ in served])
    owners = [tool for _, tool in served]

    def by_requests(query: str, but: int = -1) -> Guess:
        others = [(i, score) for i, score in of_requests.best(query, 2) if i != but]
        return _best(others, owners, usual)

    for name, guess in (("bm25-tools", by_tools), ("bm25-requests", by_requests)):
        bound = _bound(guess, learned) if abstains else 0.0
        made = [guess(query) for query in queries]
        found[name] = [tool if score >= bound else NOTHING for tool, score in made]
    return found


def spoken(name: str) -> str:
    """A tool's name as words: `math.factorial`, `getWeather` and `get_weather` in their parts."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return f"{name} {re.sub(r'[^A-Za-z0-9]+', ' ', parts)}"


def _best(found: Sequence[tuple[int, float]], names: Sequence[str], usual: str) -> Guess:
    return (names[found[0][0]], found[0][1]) if found else (usual, 0.0)


def _bound(guess: Callable[..., Guess], learned: Sequence[Pair]) -> float:
    """The score from which a guess is taken: most right answers on what was learned; of equals the least."""
    made = sorted(
        ((*guess(query, i), tool) for i, (query, tool) in enumerate(learned)), key=lambda one: one[1]
    )
    right = sum(got == tool for got, _, tool in made)
    best, bound = right, 0.0
    for i, (got, score, tool) in enumerate(made):
        right += (tool == NOTHING) - (got == tool)
        if right > best and (i + 1 == len(made) or made[i + 1][1] > score):
            best, bound = right, made[i + 1][1] if i + 1 < len(made) else score + 1.0
    return bound
