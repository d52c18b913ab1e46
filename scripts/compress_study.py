"""Does an answer survive a shortened text more often by a trained head than by BM25, or by the beginning?

    python scripts/compress_study.py --out /tmp/compress --train 1200 --test 300

Texts are made here: two places each, with six facts about both, in an order drawn for each text, and
sentences that say nothing. A question asks for one fact of one place; names, people and numbers are drawn
anew each time. `same` asks and tells in phrasings that were learned from, `other` in ones that were not. A
head is trained by `rerank-train` on {question, context, answer} rows; `compress` shortens each text by each
kind to the same share of its letters; `eval-scaledown` counts the answers that still stand there. Every step
is a command that can be typed; how far kinds are apart is paired text by text.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

from tinygpt.core.rows import wilson
from tinygpt.eval.paired import change

# Of each fact: how it is asked, how it is told, what the answer is made of. The last two of both are `other`.
FACTS: dict[str, tuple[list[str], list[str], str]] = {
    "year": (
        [
            "When was {e} built?",
            "In which year was {e} finished?",
            "How old is {e}?",
            "What year is {e} from?",
            "Since when is {e} there?",
            "When did the work on {e} end?",
        ],
        [
            "It dates from {a}.",
            "{e} was put up in {a}.",
            "The doors first opened in {a}.",
            "Masons laid the last stone in {a}.",
            "It has stood there since {a}.",
            "Work came to an end in {a}.",
        ],
        "year",
    ),
    "person": (
        [
            "Who designed {e}?",
            "Who was the architect of {e}?",
            "Whose plan does {e} follow?",
            "By whom was {e} drawn?",
            "Who had the idea for {e}?",
            "Which architect made {e}?",
        ],
        [
            "The plans came from {a}.",
            "{a} drew every part of it.",
            "Its shape is the work of {a}.",
            "{e} follows a sketch by {a}.",
            "It was {a} who thought of it.",
            "{a} got the order to make it.",
        ],
        "person",
    ),
    "height": (
        [
            "How tall is {e}?",
            "What is the height of {e}?",
            "How high does {e} reach?",
            "How far up does {e} go?",
            "How many metres high is {e}?",
            "What does {e} measure from the ground?",
        ],
        [
            "It rises {a} metres above the road.",
            "From foot to roof there are {a} metres.",
            "{e} is {a} metres from the ground to the top.",
            "Its top lies at {a} metres.",
            "The upper edge is {a} metres up.",
            "One climbs {a} metres to the roof.",
        ],
        "metres",
    ),
    "price": (
        [
            "How much is a ticket to {e}?",
            "What does a visit to {e} cost?",
            "What is the fee for {e}?",
            "How much does one pay at {e}?",
            "What is charged for {e}?",
            "What do guests of {e} spend on entry?",
        ],
        [
            "Grown-ups pay {a} crowns.",
            "Entry is {a} crowns a head.",
            "A day pass for {e} is {a} crowns.",
            "At the gate {a} crowns are asked for.",
            "Guests leave {a} crowns at the desk.",
            "The till takes {a} crowns from each guest.",
        ],
        "crowns",
    ),
    "day": (
        [
            "On which day is {e} closed?",
            "When is {e} shut?",
            "Which day of the week does {e} rest?",
            "On what day can {e} not be seen?",
            "When does {e} keep its doors locked?",
            "Which day is {e} not open?",
        ],
        [
            "Nobody gets in on {a}.",
            "{a} is the day of rest.",
            "The staff of {e} is off on {a}.",
            "It keeps its gates locked every {a}.",
            "On {a} it stays dark.",
            "Visitors are sent home on {a}.",
        ],
        "day",
    ),
    "stuff": (
        [
            "What is {e} made of?",
            "Which material was used for {e}?",
            "Out of what was {e} made?",
            "What are the walls of {e}?",
            "What was taken to make {e}?",
            "Which stuff are the walls of {e}?",
        ],
        [
            "Its walls are of {a}.",
            "{a} was carried there for it.",
            "The makers of {e} chose {a}.",
            "One sees mostly {a} from the road.",
            "All sides are of plain {a}.",
            "They took {a} for it.",
        ],
        "stuff",
    ),
}
FILLERS = [
    "{e} is loved by many.",
    "People come to {e} from far away.",
    "There are stories about {e} in every house.",
    "A path leads from the river to the market.",
    "In spring the slopes are green.",
    "{e} is on all postcards.",
    "The bakery next door sells good bread.",
    "Children like to play near {e}.",
    "One should take strong shoes.",
]
KINDS = ["Tower", "Hall", "Mill", "Bridge", "Gate", "House", "Chapel", "Theatre"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
STUFFS = ["granite", "oak", "red brick", "limestone", "slate", "iron", "marble", "clay", "sandstone", "pine"]
PARTS = ["ka", "lo", "mir", "ten", "vas", "dor", "el", "bri", "sun", "har", "pel", "nor", "ost", "wen"]
NEW = 2  # phrasings of each kind that are not learned from


def name(rng: Random) -> str:
    return "".join(rng.choices(PARTS, k=rng.randint(2, 3))).capitalize()


def drawn(kind: str, rng: Random) -> str:
    if kind == "year":
        return str(rng.randint(1300, 1990))
    if kind == "person":
        return f"{name(rng)} {name(rng)}"
    if kind in ("metres", "crowns"):
        return str(rng.randint(11, 190) if kind == "metres" else rng.randint(3, 60))
    return rng.choice(DAYS if kind == "day" else STUFFS)


def row(rng: Random, other: bool) -> dict[str, str]:
    """A question, a text, and the answer, which stands in one sentence alone."""

    def some(phrasings: list[str]) -> str:
        return rng.choice(phrasings[-NEW:] if other else phrasings[:-NEW])

    while True:
        places = [f"{name(rng)} {rng.choice(KINDS)}" for _ in range(2)]
        asked, wanted = rng.choice(places), rng.choice(list(FACTS))
        parts, answer = list[str](), ""
        for e in places:
            told = [f"{e} is a sight of the town of {name(rng)}."]
            facts = list(FACTS.items())
            rng.shuffle(facts)
            for key, (_, tells, kind) in facts:
                a = drawn(kind, rng)
                said = some(tells).format(e=e, a=a)
                told.append(said[:1].upper() + said[1:])
                if (e, key) == (asked, wanted):
                    answer = a
            for _ in range(3):
                told.insert(rng.randint(1, len(told)), rng.choice(FILLERS).format(e=e))
            parts.append(" ".join(told))
        context = "\n\n".join(parts)
        if context.lower().count(answer.lower()) == 1 and places[0] != places[1]:
            return {
                "question": some(FACTS[wanted][0]).format(e=asked), "context": context, "answer": answer,
            }  # fmt: skip


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def tinygpt(*words: object) -> None:
    line = [sys.executable, "-m", "tinygpt", *map(str, words)]
    print("$ tinygpt", *map(str, words), flush=True)
    subprocess.run(line, check=True)


def retained(path: Path) -> list[float]:
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [float(one["retained"]) for one in found]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare ways to shorten texts.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=1200)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--ratio", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    rng = Random(f"texts {given.seed}")
    train = write(out / "train.jsonl", [row(rng, False) for _ in range(given.train)])
    sets = {
        "same": write(out / "same.jsonl", [row(rng, False) for _ in range(given.test)]),
        "other": write(out / "other.jsonl", [row(rng, True) for _ in range(given.test)]),
    }
    for head in ("lexical", "cross-encoder"):
        steps = ("--steps", given.steps) if head == "cross-encoder" else ()
        tinygpt("rerank-train", "--triples", train, "--kind", head, "--out", out / head, "--seed", given.seed,
                "--force", "--no-lock", *steps)  # fmt: skip
    for which, rows in sets.items():
        found: dict[str, list[float]] = {}
        for kind, more in {
            "lead": (), "bm25": (), "bm25 alone": ("--neighbours", 0),
            "head lexical": ("--model", out / "lexical"), "head": ("--model", out / "cross-encoder"),
            "head beside": ("--model", out / "cross-encoder", "--neighbours", 0.25),
        }.items():  # fmt: skip
            stem = f"{which}.{kind.replace(' ', '-')}"
            kept, scored = out / f"{stem}.kept.jsonl", out / f"{stem}.rows.jsonl"
            for old in (scored, out / f"{stem}.rows.examples.jsonl"):
                old.unlink(missing_ok=True)
            tinygpt("compress", "--data", rows, "--kind", kind.split()[0], "--ratio", given.ratio, *more,
                    "--out", kept, "--force", "-q")  # fmt: skip
            tinygpt("eval-scaledown", "--predictions", kept, "--model-name", stem, "--out", scored, "-q")
            found[kind] = retained(out / f"{stem}.rows.examples.jsonl")
        for kind, values in found.items():
            low, high = wilson(int(sum(values)), len(values))
            print(
                f"{which:6} {kind:13} retained {sum(values) / len(values):.3f} [{low:.3f}, {high:.3f}]",
                end="",
            )
            lead = change(found["head"], values)
            print(f"  head ahead by {lead.value:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}], p {lead.p:.2g}")


if __name__ == "__main__":
    main()
