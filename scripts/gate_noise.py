"""How often the gate's default settings cry wolf, and how often they catch a true fall, by simulation.

python scripts/gate_noise.py [comparisons]

A baseline answers n examples; each is right with its own chance (mean 80 %). The same examples are answered
again. `redrawn` is the share of answers that are drawn anew, the others stay as they were: greedy decoding of
nearly the same model redraws few, another model or sampled answers all of them. With a fall of d points, each
right answer becomes wrong with the chance d / 80, so that the share of right ones falls by d. Examples that a
model finds hard stay hard: chances are drawn from a beta distribution, and `alike` examples all have 80 %.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygpt.core.rows import EvalRow
from tinygpt.eval.gate.evidence import Side
from tinygpt.eval.gate.spec import Spec
from tinygpt.eval.gate.verdict import FAIL, judge

RIGHT = 0.8
ROW: dict[str, Any] = {
    "model_path": "",
    "model_name": "m",
    "task": "t",
    "metric": "accuracy",
    "wall_seconds": 1.0,
}


@dataclass(frozen=True, kw_only=True)
class World:
    """What is compared: n examples, in points how far the share of right ones falls, and how."""

    n: int = 200
    fall: float = 0.0
    redrawn: float = 0.1
    alike: bool = True
    passes: int = 1
    records: bool = True


def sides(world: World, generator: np.random.Generator) -> tuple[Side, Side]:
    """A candidate and a baseline."""
    size = (world.passes, world.n)
    spread = np.full(world.n, RIGHT) if world.alike else generator.beta(0.8, 0.2, world.n)
    old = generator.random(size) < spread
    again = generator.random(size) < world.redrawn
    new = np.where(again, generator.random(size) < spread, old)
    new &= generator.random(size) >= world.fall / 100 / RIGHT
    return _side(new, world.records), _side(old, world.records)


def _side(right: np.ndarray, records: bool) -> Side:
    rows, told = [], list[dict[str, Any]]()
    for number, one in enumerate(right):
        run_id = str(number)
        rows.append(EvalRow(**ROW, score=float(one.mean()), n_examples=len(one), run_id=run_id))
        same = {"run_id": run_id, "task": "t", "subtasks": [None]}
        if records:
            told += [{**same, "id": i, "scores": {"accuracy": float(v)}} for i, v in enumerate(one)]
    return Side(rows=rows, records=told)


def failed(world: World, comparisons: int, seed: int = 0) -> float:
    """The share of comparisons that the gate fails, at its default settings."""
    generator = np.random.default_rng(seed)
    spec, n_failed = Spec(), 0
    for _ in range(comparisons):
        new, old = sides(world, generator)
        judged, _ = judge(spec, new, old)
        n_failed += judged[0].verdict == FAIL
    return n_failed / comparisons


def main(comparisons: int) -> None:
    print(
        f"{comparisons} comparisons each, threshold {Spec().default_threshold:g} pp, alpha {Spec().alpha:g}\n"
    )
    print("| examples | passes | redrawn | chances | records | false alarms | 5 points | 10 points |")
    print("|---|---|---|---|---|---|---|---|")
    for n, passes, redrawn, alike, records in (
        (200, 1, 0.02, True, True), (200, 1, 0.1, True, True), (200, 1, 0.3, True, True),
        (200, 1, 1.0, True, True), (200, 1, 1.0, True, False), (200, 1, 1.0, False, True),
        (300, 1, 1.0, True, True), (400, 1, 1.0, True, True), (500, 1, 1.0, True, True),
        (1000, 1, 1.0, True, True), (200, 3, 1.0, True, True), (200, 3, 1.0, False, True),
        (50, 1, 0.1, True, True), (100, 1, 0.1, True, True),
    ):  # fmt: skip
        told = {"n": n, "passes": passes, "redrawn": redrawn, "alike": alike, "records": records}
        shares = [failed(World(**told, fall=fall), comparisons) for fall in (0.0, 5.0, 10.0)]
        chances = "alike" if alike else "beta(0.8, 0.2)"
        cells = [
            n,
            passes,
            f"{redrawn:.0%}",
            chances,
            "yes" if records else "no",
            *(f"{s:.1%}" for s in shares),
        ]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
