"""Recall and precision of every recogniser of private data and secrets, on planted texts.

    python scripts/planted_pii.py                       the held-out texts, a table, and what was missed
    python scripts/planted_pii.py --development -n 500

A planted value is found when all its letters are in what its recogniser found: nothing of it is left. A find
is right when half of its letters at least are of a planted value of its class. Classes of secrets are judged
together for precision: any kind of secret that is found in one is right.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from random import Random
from types import ModuleType

import planted_development
import planted_held_out

from tinygpt.data import scrub

LEAST_RECALL, LEAST_PRECISION = 0.95, 0.90


@dataclass
class Score:
    """How one class went."""

    planted: int = 0
    found: int = 0
    finds: int = 0
    right: int = 0

    @property
    def recall(self) -> float:
        return self.found / self.planted if self.planted else 1.0

    @property
    def precision(self) -> float:
        return self.right / self.finds if self.finds else 1.0


def documents(of: ModuleType, n: int, seed: int) -> list[tuple[str, list[tuple[int, int, str]]]]:
    """Texts with what is planted in each: n values of every class, among as many that only look so."""
    r, made = Random(seed), list[tuple[str, list[tuple[int, int, str]]]]()
    for kind, (values, frames) in of.VALUES.items():
        for i in range(n):
            value, frame = values[i % len(values)](r), r.choice(frames)
            if kind == "name" and (" " not in value or r.random() < 0.1):
                frame = frame.format(r.choice(of.TITLES))
            shown = frame.format(value)
            parts = [r.choice(of.FILL), r.choice(of.HARD)(r), shown, r.choice(of.HARD)(r), r.choice(of.FILL)]
            order = r.sample(parts, r.randint(3, 5))
            order = order if shown in order else [*order[1:], shown]
            text = r.choice(["\n", "\n\n", " \n"]).join(order)
            at = text.index(shown) + shown.index(value)
            made.append((text, [(at, at + len(value), kind)]))
    r.shuffle(made)
    return made


def measure(of: ModuleType, n: int, seed: int = 0) -> tuple[dict[str, Score], list[tuple[str, str, str]]]:
    """Scores by class, and (what, class, text around it) of what was wrong."""
    scores, wrong = defaultdict[str, Score](Score), list[tuple[str, str, str]]()
    scrubber = scrub.Scrubber(scrub.named(["all"]))
    for text, planted in documents(of, n, seed):
        found = scrubber.find(text)
        for start, end, kind in planted:
            mine = [(a, b) for a, b, name in found if _class(name, kind) == kind]
            hit = all(any(a <= i < b for a, b in mine) for i in range(start, end))
            scores[kind].planted += 1
            scores[kind].found += hit
            if not hit:
                wrong.append(("missed", kind, text[max(0, start - 25) : end + 10]))
        for a, b, name in found:
            inside = [kind for start, end, kind in planted if 2 * (min(b, end) - max(a, start)) >= b - a]
            right = any(_class(name, kind) == kind for kind in inside)
            kind = inside[0] if right else name.rpartition(":")[2]
            scores[kind].finds += 1
            scores[kind].right += right
            if not right:
                wrong.append(("false", kind, text[max(0, a - 25) : b + 10]))
    return dict(scores), wrong


def _class(name: str, kind: str) -> str:
    """The class that a find is of, for a planted value of `kind`: any secret will do for one."""
    return kind if name.startswith(scrub.SECRET) and kind not in scrub.ORDER else name


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--development", action="store_true", help="the texts recognisers were made with")
    parser.add_argument("-n", type=int, default=400, help="values of each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wrong", type=int, default=0, help="show this many errors of each class")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    of = planted_development if given.development else planted_held_out
    scores, wrong = measure(of, given.n, given.seed)
    if given.json:
        print(json.dumps({k: {"recall": s.recall, "precision": s.precision} for k, s in scores.items()}))
        return
    print(f"{'class':<14}{'planted':>8}{'recall':>9}{'finds':>8}{'precision':>11}")
    for kind in sorted(scores, key=lambda k: (k not in scrub.ORDER, k)):
        s = scores[kind]
        low = " below" if s.recall < LEAST_RECALL or s.precision < LEAST_PRECISION else ""
        print(f"{kind:<14}{s.planted:>8}{s.recall:>9.3f}{s.finds:>8}{s.precision:>11.3f}{low}")
    shown = defaultdict[tuple[str, str], int](int)
    for what, kind, text in wrong:
        shown[what, kind] += 1
        if shown[what, kind] <= given.wrong:
            print(f"{what:<7} {kind:<12} {text!r}")


if __name__ == "__main__":
    main()
