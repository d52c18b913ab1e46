"""A router against BM25 on every request of a file, each judged by a router that has not seen it.

    tinygpt extractor-data --bfcl bfcl_eval/data --held-out 0 --out pairs.jsonl
    python scripts/router_folds.py pairs.jsonl --out runs/folds --folds 5 -- --steps 500

The requests are split into folds, by class and seed; `train-extractor` learns from all folds but one, with
what follows `--`, and is asked about that one. The baselines know the same learned requests as the router. A
lead is paired, request by request, over all folds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tinygpt.data import rows
from tinygpt.data.tally import Tally
from tinygpt.eval.paired import difference
from tinygpt.router import baseline, pairs, router
from tinygpt.router.pairs import Pair
from tinygpt.router.router import Router


def write(path: Path, given: list[Pair]) -> Path:
    rows.write(path, ({"query": query, "tool": tool} for query, tool in given))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given, flags = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    given.out.mkdir(parents=True, exist_ok=True)
    kept = pairs.cleaned(pairs.read([given.pairs], Tally("rows")), Tally("requests"))
    shares = [1 / given.folds] * (given.folds - 1)
    folds = pairs.split(kept, shares, given.seed)
    right: dict[str, list[bool]] = {}
    for number, test in enumerate(folds):
        rest = [pair for other, fold in enumerate(folds) if other != number for pair in fold]
        place = given.out / f"fold-{number}"
        line = [
            "train-extractor", write(given.out / f"learn-{number}.jsonl", rest), "--out", place, "--force",
            "--test", write(given.out / f"test-{number}.jsonl", test), "--seed", given.seed, "--quiet",
        ]  # fmt: skip
        subprocess.run(
            [sys.executable, "-m", "tinygpt", *map(str, line), *flags],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        queries, tools = [query for query, _ in test], [tool for _, tool in test]
        made = Router.open(place / "final")
        learned = router.remembered(place / "final" / router.REQUESTS)
        said = baseline.predictions(learned, queries, {})
        said["router"] = [made.labels[c] for c in made.probabilities(queries).argmax(axis=1)]
        for name, predicted in said.items():
            right.setdefault(name, []).extend(a == b for a, b in zip(predicted, tools, strict=True))
        told = {name: round(sum(hits) / len(hits), 4) for name, hits in right.items()}
        print(f"fold {number + 1} of {given.folds}: {json.dumps(told)}", flush=True)
    mine = right.pop("router")
    for name, theirs in right.items():
        lead = difference(mine, theirs, [1.0] * len(mine))
        print(f"{name}: {sum(theirs) / len(theirs):.4f}; the router's lead {lead.value:.4f} "
              f"[{lead.low:.4f}, {lead.high:.4f}] over {len(mine)} requests")  # fmt: skip


if __name__ == "__main__":
    main()
