"""How well and how fast `tinygpt dedupe` works on documents with planted duplicates of known similarity.

    python scripts/bench_dedupe.py --documents 1000000 --out bench_dedupe.json

Most documents share nothing. One in ten is a variant of another: words replaced in the middle, words cut off
the end, as many as bring the Jaccard similarity of 5-word shingles near a target; the similarity that counts
is computed from sets of words by this script. One in fifty is a copy in capitals. Documents also hold runs of
13 words of an evaluation, and, as decoys, of 12. Recall: planted pairs at or above the threshold that end in
one cluster. Precision: clustered pairs whose similarity is at or above it. `--peer` runs datasketch's own
pipeline on the first documents, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SHINGLE, RUN = 5, 13
TARGETS = (0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.92, 0.95, 0.98)
MARGIN = 0.05
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


def vocabulary(rng: np.random.Generator, n: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < n:
        found["".join(rng.choice(SYLLABLES, rng.integers(1, 5)))] = None
    return list(found)


def shingles(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}


def jaccard(one: list[str], other: list[str]) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def variant(words: list[str], target: float, rng: np.random.Generator) -> list[str]:
    """A document about `target` similar: k words replaced, each in five shingles, and d cut off."""
    m = len(words) - SHINGLE + 1
    most = int(m * (1 - target) / (SHINGLE * (1 + target)))
    k = int(rng.integers(0, most + 1))
    d = max(0, round(m - SHINGLE * k - target * (m + SHINGLE * k)))
    made = words[: len(words) - d]
    for place in rng.permutation((len(made) - SHINGLE) // SHINGLE)[:k]:
        made[SHINGLE * int(place) + SHINGLE - 1] = f"new{rng.integers(1 << 40)}"
    return made


def plant(folder: Path, n: int, seed: int) -> dict[str, Any]:
    """Write documents and an evaluation; returns the truth by line."""
    rng = np.random.default_rng(seed)
    known = vocabulary(rng, 50_000)

    def drawn(length: int) -> list[str]:
        return [known[i] for i in (rng.random(length) ** 2 * len(known)).astype(int)]

    examples = [drawn(int(rng.integers(20, 60))) for _ in range(max(20, n // 1000))]
    with (folder / "eval.jsonl").open("w") as file:
        for i, words in enumerate(examples):
            asked = " ".join(words).capitalize() + "?"
            file.write(json.dumps({"task_id": f"E/{i}", "question": asked, "answer": str(i)}) + "\n")
    pairs, copies, planted = dict[int, tuple[int, float]](), dict[int, int](), dict[int, int]()
    recent: list[tuple[int, list[str]]] = []
    line, decoys, contaminated = 0, 0, 0
    with (folder / "documents.jsonl").open("w") as file:
        while line < n:
            line += 1
            draw = rng.random()
            if draw < 0.1 and recent:
                # The partner is one of the last thousands, each of which is used once.
                other, words = recent.pop(int(rng.integers(len(recent))))
                made = variant(words, float(rng.choice(TARGETS)), rng)
                pairs[line] = (other, jaccard(words, made))
                text = " ".join(made)
            elif draw < 0.12 and recent:
                other, words = recent.pop(int(rng.integers(len(recent))))
                copies[line] = other
                text = " ".join(words).upper().replace(" ", "  ", 3)
            elif draw < 0.122 and contaminated < len(examples):
                words, run = drawn(int(rng.integers(60, 160))), examples[contaminated]
                at, begin = int(rng.integers(len(words))), int(rng.integers(len(run) - RUN + 1))
                words[at:at] = run[begin : begin + RUN]
                planted[line] = contaminated
                contaminated += 1
                text = " ".join(words)
            elif draw < 0.123:
                words, run = drawn(100), examples[decoys % len(examples)]
                words[50:50] = ["foreign", *run[: RUN - 1], "foreign"]
                decoys += 1
                text = " ".join(words)
            else:
                words = drawn(int(rng.integers(60, 160)))
                if len(recent) < 5000:
                    recent.append((line, words))
                text = " ".join(words)
            file.write(json.dumps({"text": text}) + "\n")
    return {"pairs": pairs, "copies": copies, "planted": planted, "decoys": decoys}


def measured(command: list[str]) -> dict[str, Any]:
    """Run a command; wall and CPU seconds, and the most memory of all its processes together."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    most, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            most[0] = max(most[0], group_memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out = process.communicate()[0]
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_s": round(time.monotonic() - start, 1), "cpu_s": round(cpu, 1),
        "rss_gb": round(most[0] / 1e9, 3), "result": json.loads(out),
    }  # fmt: skip


def group_memory(group: int) -> float:
    """Resident bytes of a process group (Linux; elsewhere 0)."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                total += int((entry / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):  # it has ended
            continue
    return float(total)


def judged(report: Path, truth: dict[str, Any], threshold: float) -> dict[str, Any]:
    """Recall and precision of the report, by what was planted."""
    together: dict[int, int] = {}
    met: dict[int, set[int]] = {}
    found_pairs: set[tuple[int, int]] = set()
    for i, line in enumerate(report.open()):
        row = json.loads(line)
        if row["kind"] == "contaminated":
            met[row["row"]] = {one["number"] - 1 for one in row["examples"]}
            continue
        members = sorted([row["kept"]["row"], *(one["row"] for one in row["dropped"])])
        together |= dict.fromkeys(members, i)
        found_pairs |= {(a, b) for n, b in enumerate(members) for a in members[:n]}
    pairs = {(other, line): s for line, (other, s) in truth["pairs"].items()}
    copies = {(other, line) for line, other in truth["copies"].items()}
    near = found_pairs - copies
    bands = {
        f">= {threshold + MARGIN:.2f}": (threshold + MARGIN, 2.0),
        f"{threshold:.2f} to {threshold + MARGIN:.2f}": (threshold, threshold + MARGIN),
        f"{threshold - MARGIN:.2f} to {threshold:.2f}": (threshold - MARGIN, threshold),
        f"< {threshold - MARGIN:.2f}": (-1.0, threshold - MARGIN),
    }
    by = {}
    for name, (low, high) in bands.items():
        mine = [pair for pair, s in pairs.items() if low <= s < high]
        by[name] = {"planted": len(mine), "joined": sum(pair in found_pairs for pair in mine)}
    alike = [pair for pair, s in pairs.items() if s >= threshold]
    right = sum(pairs.get(pair, 0.0) >= threshold for pair in near)
    return {
        "recall": sum(pair in found_pairs for pair in alike) / max(1, len(alike)),
        "precision": right / max(1, len(near)),
        "near_pairs_found": len(near), "by_similarity": by,
        "copies": len(copies), "copies_found": len(copies & found_pairs),
        "planted_runs": len(truth["planted"]),
        "runs_found": sum(example in met.get(line, ()) for line, example in truth["planted"].items()),
        "others_called_contaminated": len(met.keys() - truth["planted"].keys()), "decoys": truth["decoys"],
    }  # fmt: skip


def lines(path: Path, n: int) -> Iterator[str]:
    with path.open() as file:
        for _, line in zip(range(n), file):
            yield line


def peer(path: Path, threshold: float, slots: int) -> None:
    """datasketch's own pipeline: MinHash of shingles, asked and put into MinHashLSH one by one."""
    from datasketch import MinHash, MinHashLSH  # pyright: ignore[reportMissingImports]

    index = MinHashLSH(threshold=threshold, num_perm=slots)
    permutations = MinHash(slots).permutations
    pairs = []
    for i, line in enumerate(path.open(), 1):
        words = json.loads(line)["text"].lower().split()
        sketch = MinHash(slots, permutations=permutations, scheme="affine32")
        grams = (words[j : j + SHINGLE] for j in range(len(words) - SHINGLE + 1))
        sketch.update_batch({" ".join(gram).encode() for gram in grams})
        pairs += [(int(str(other)), i) for other in index.query(sketch)]
        index.insert(i, sketch, check_duplication=False)
    print(json.dumps({"pairs": pairs, "bands": index.b, "rows": index.r}))


def command(folder: Path, documents: str, args: argparse.Namespace, *, examples: bool = True) -> list[str]:
    asked = ["--decontaminate", str(folder / "eval.jsonl")] if examples else []
    return [
        sys.executable, "-m", "tinygpt", "dedupe", str(folder / documents),
        "--out", str(folder / "out.jsonl"), "--report", str(folder / "report.jsonl"),
        "--near-dup", "--near-threshold", str(args.threshold),
        "--minhash-perms", str(args.perms), "--workers", str(args.workers), "--force", "--json", "--quiet",
        *asked,
    ]  # fmt: skip


def bench(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    truth = plant(folder, args.documents, args.seed)
    told: dict[str, Any] = {"documents": args.documents, "threshold": args.threshold, "slots": args.perms}
    told["megabytes"] = round((folder / "documents.jsonl").stat().st_size / 1e6)
    told["ours"] = measured(command(folder, "documents.jsonl", args))
    told["ours"] |= judged(folder / "report.jsonl", truth, args.threshold)
    if args.peer:
        with (folder / "part.jsonl").open("w") as file:
            file.writelines(lines(folder / "documents.jsonl", args.peer))
        script = [sys.executable, str(Path(__file__).resolve()), "--run-peer", str(folder / "part.jsonl")]
        theirs = measured([*script, "--threshold", str(args.threshold), "--perms", str(args.perms)])
        found = {tuple(pair) for pair in theirs.pop("result")["pairs"]}
        pairs = {(a, b): s for b, (a, s) in truth["pairs"].items() if b <= args.peer}
        near = found - {(a, b) for b, a in truth["copies"].items()}
        alike = [pair for pair, s in pairs.items() if s >= args.threshold]
        theirs["recall"] = sum(pair in found for pair in alike) / max(1, len(alike))
        theirs["precision"] = sum(pairs.get(p, 0) >= args.threshold for p in near) / max(1, len(near))
        ours = measured(command(folder, "part.jsonl", args, examples=False))
        told["peer"] = {"documents": args.peer, "datasketch": theirs}
        told["peer"] |= {"ours": {key: ours[key] for key in ("wall_s", "cpu_s", "rss_gb")}}
        told["peer"]["cpu_ratio"] = round(theirs["cpu_s"] / ours["cpu_s"], 2)
        told["peer"]["wall_ratio"] = round(theirs["wall_s"] / ours["wall_s"], 2)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--threshold", type=float, default=0.85)
    parser.add_argument("--perms", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peer", type=int, default=0, help="documents for datasketch's own pipeline")
    parser.add_argument("--work", type=Path, help="folder for the documents; they stay there")
    parser.add_argument("--out", type=Path, help="write the figures here")
    parser.add_argument("--run-peer", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run_peer:
        peer(args.run_peer, args.threshold, args.perms)
        return
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
        told = bench(args.work, args)
    else:
        with tempfile.TemporaryDirectory() as folder:
            told = bench(Path(folder), args)
    text = json.dumps(told, indent=2)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
