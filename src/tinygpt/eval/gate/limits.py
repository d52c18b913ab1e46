"""A budget against what rows and records say was spent, and how their answers were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygpt.core.rows import EvalRow
from tinygpt.eval.gate.spec import Budget

SAMPLING = ("temperature", "top_p")
COUNTS = {"max_tokens": "n_tokens", "max_steps": "n_steps"}


def breaches(
    rows: Sequence[EvalRow], records: Sequence[dict[str, Any]], budget: Budget, *, first: int = 0
) -> list[str]:
    """One sentence for each way in which a suite did not keep to its budget, or does not say that it did.
    Rows come pass by pass; `first` is the number of the first pass."""
    found: dict[str, None] = {}
    for name in SAMPLING:
        wanted = getattr(budget, name)
        for got in (row.decoding.get(name) for row in rows if wanted is not None):
            if got is None:
                found[f"its rows do not say their {name}; the budget says {wanted:g}"] = None
            elif got != wanted:
                found[f"its rows have {name} {got}; the budget says {wanted:g}"] = None
    if budget.sampling_seed is not None:
        runs = list(dict.fromkeys(row.run_id for row in rows))
        for row in rows:
            wanted = budget.sampling_seed + first + runs.index(row.run_id)
            # A greedy answer draws nothing.
            if row.decoding.get("temperature") != 0 and row.seed != wanted:
                found[f"its rows have the seed {row.seed}; the budget says {wanted}"] = None
    for limit, count in COUNTS.items():
        most = getattr(budget, limit)
        if most is None:
            continue
        spent = [r[count] for r in records if isinstance(r.get(count), int)]
        allowed = [row.settings.get(limit) for row in rows]
        if spent and max(spent) > most:
            found[f"an example took {max(spent)} {count[2:]}; the budget's {limit} is {most}"] = None
        elif not spent and not all(isinstance(a, int) and a <= most for a in allowed):
            said = f"they say {limit} {allowed[0]}" if allowed and allowed[0] is not None else "nothing says"
            found[f"{said}; the budget's {limit} is {most}, and no record has {count}"] = None
    return list(found)
