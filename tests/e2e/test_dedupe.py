"""`tinygpt dedupe`: what goes, what stays, what is said of it, and what is refused."""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.shell import good, process, refused, tinygpt

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_dedupe.py"
WORDS = [f"word{i}" for i in range(3000)]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def wrong(expected: str, *words: object) -> None:
    refused(tinygpt("dedupe", *words), re.escape(expected))


def document(seed: int, n: int = 60) -> list[str]:
    return random.Random(seed).sample(WORDS, n)


@pytest.fixture(scope="module")
def bench() -> Any:
    made = importlib.util.spec_from_file_location("bench_dedupe", SCRIPT)
    assert made is not None and made.loader is not None
    module = importlib.util.module_from_spec(made)
    sys.modules["bench_dedupe"] = module
    made.loader.exec_module(module)
    return module


def test_planted_pairs_copies_and_runs_are_found(bench: Any, tmp_path: Path) -> None:
    """The benchmark of scripts/bench_dedupe.py, small; 1,000,000 documents are in docs/log.md."""
    args = argparse.Namespace(documents=8000, threshold=0.85, perms=64, workers=1, seed=3, peer=0)
    found = bench.bench(tmp_path, args)["ours"]
    assert found["recall"] >= 0.97 and found["precision"] == 1
    by = found["by_similarity"]
    assert by[">= 0.90"]["joined"] >= 0.99 * by[">= 0.90"]["planted"] > 100
    assert by["0.85 to 0.90"]["planted"] > 50 and by["0.80 to 0.85"]["planted"] > 50
    assert by["0.80 to 0.85"]["joined"] == by["< 0.80"]["joined"] == 0
    assert found["copies_found"] == found["copies"] > 50
    assert found["runs_found"] == found["planted_runs"] > 10
    assert found["others_called_contaminated"] == 0 and found["decoys"] > 3


def test_the_first_the_longest_or_the_best_stays(tmp_path: Path) -> None:
    words = document(1)
    rows = [
        {"text": " ".join(words), "score": 1},
        {"text": " ".join([*words, "and", "more"]), "score": 2},
        {"text": " ".join(words).upper(), "score": 7.5},
        {"text": "quite another text", "score": "none"},
    ]
    data, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    kept = {}
    for keep in ("first", "longest", "best"):
        score = ["--score-field", "score"] if keep == "best" else []
        good("dedupe", data, "--out", out, "--near-dup", "--keep", keep, *score, "--force")
        kept[keep] = [row["score"] for row in read(out)]
    assert kept == {"first": [1, "none"], "longest": [2, "none"], "best": [7.5, "none"]}
    good("dedupe", data, "--out", out, "--force")  # only equal texts without --near-dup
    assert [row["score"] for row in read(out)] == [1, 2, "none"]
    good("dedupe", data, "--out", out, "--normalise", "none", "--force")
    assert read(out) == rows


def test_report_counts_and_card(tmp_path: Path) -> None:
    words = document(2)
    one = write(
        tmp_path / "one.jsonl", [{"text": " ".join(words)}, {"text": "Short"}, {"x": 1}, {"text": "s"}]
    )
    more = [{"text": " ".join(words[:-2])}, {"text": "short "}, {"text": " ".join(document(3))}]
    two, out, report = write(tmp_path / "two.jsonl", more), tmp_path / "out.jsonl", tmp_path / "report.jsonl"
    words_of = ("dedupe", one, two, "--out", out, "--near-dup", "--report", report, "--min-len", 2, "--json")
    done = good(*words_of)
    assert "one.jsonl 3: there is no text in the row" in done.err
    found = done.json
    dropped = {"unreadable": 1, "too short": 1, "contaminated": 0, "exact": 1, "near": 1}
    assert found["dropped"] == dropped and (found["read"], found["kept"]) == (7, 3)
    assert found["clusters"] == 2 and found["sizes"] == {"2": 2}
    near, exact = read(report)
    assert near["kept"] == {"file": str(one), "row": 1} and near["dropped"] == [
        {"file": str(two), "row": 1, "similarity": round(54 / 56, 4)}
    ]
    assert exact["dropped"] == [{"file": str(two), "row": 2, "similarity": 1.0}]
    card = json.loads((tmp_path / "out.card.json").read_text())
    assert [(source["name"], source["n_rows"]) for source in card["sources"]] == [
        ("one.jsonl", 3), ("two.jsonl", 3),
    ]  # fmt: skip
    assert card["stages"][0]["dropped"] == {why: n for why, n in dropped.items() if n}
    assert card["settings"]["near_threshold"] == 0.85 and str(tmp_path) not in json.dumps(card)
    wrong("one.jsonl 3: there is no text in the row", *words_of[1:], "--strict", "--force")


def test_what_an_evaluation_asks_is_taken_out(tmp_path: Path) -> None:
    asked, solved = " ".join(document(5, 30)), " ".join(document(6, 20))
    human = {"task_id": "HumanEval/3", "prompt": f'def f():\n    """{asked}"""', "canonical_solution": solved}
    math = {"question": " ".join(document(7, 40)), "answer": "It is so since\n#### 42"}
    exams = [tmp_path / "human.jsonl", write(tmp_path / "math.jsonl", [math])]
    exams[0].write_text("{torn\n" + json.dumps(human) + "\n", encoding="utf-8")
    rows = [
        {"prompt": "solve", "completion": f"Of course: {solved.upper()}"},
        {"messages": [{"role": "user", "content": math["question"]}, {"role": "assistant", "content": "42"}]},
        {"text": " ".join(asked.split()[:12])},
        {"text": "It is so, since: 42."},
        {"text": f"{asked} {math['question']}"},
    ]
    data, out, report = write(tmp_path / "d.jsonl", rows), tmp_path / "out.jsonl", tmp_path / "report.jsonl"
    exam = [word for path in exams for word in ("--decontaminate", path)]
    done = good("dedupe", data, "--out", out, *exam, "--report", report, "--json")
    assert "human.jsonl 1: not JSON" in done.err
    found = done.json
    assert read(out) == [rows[2]]
    assert found["dropped"]["contaminated"] == 4
    assert [part["met"] for part in found["evaluation"]["files"]] == [1, 1]
    told = {line["row"]: line["examples"] for line in read(report)}
    assert told[1] == [
        {"file": str(exams[0]), "number": 2, "id": "HumanEval/3", "words": " ".join(solved.split()[:13])}
    ]
    assert [one["file"] for one in told[5]] == [str(path) for path in exams]
    assert told[4][0]["words"] == "it is so since 42"


def test_lines_documents_and_files(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("One\ntwo\n\nthree\n\n\none\nTWO\n", encoding="utf-8")
    (folder / "b.txt").write_text("ONE two\n\nthree\n\none two", encoding="utf-8")
    (folder / "b.card.json").write_text("{}", encoding="utf-8")
    out = tmp_path / "out.txt"
    assert good("dedupe", folder / "a.txt", "--out", out, "--json").json["unit"] == "line"
    assert out.read_text() == "One\ntwo\nthree\n"
    good("dedupe", folder / "a.txt", "--out", out, "--unit", "doc", "--force")
    assert out.read_text() == "One\ntwo\n\nthree\n"
    rows = tmp_path / "out.jsonl"
    good("dedupe", folder, "--out", rows, "--unit", "file")
    assert read(rows) == [{"text": (folder / "a.txt").read_text(), "file": "a.txt"}]


def test_a_field_is_compared_and_tables_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text\n1,a b\n2,A  B\n3,c\n", encoding="utf-8")
    out = tmp_path / "out.jsonl"
    good("dedupe", tmp_path / "t.csv", "--out", out, "--field", "text")
    assert read(out) == [{"id": "1", "text": "a b"}, {"id": "3", "text": "c"}]
    wrong("no 'txet' in the row", tmp_path / "t.csv", "--out", out, "--field", "txet", "--force")
    assert len(read(out)) == 2


@pytest.mark.wide
def test_any_number_of_workers_writes_the_same(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [
        {"text": " ".join(document(draw.randrange(900), 40)[: draw.randrange(36, 41)])} for _ in range(3000)
    ]
    data, written = write(tmp_path / "rows.jsonl", rows), list[bytes]()
    for workers in (1, 2):
        out, report = tmp_path / "out.jsonl", tmp_path / "report.jsonl"
        done = process(
            "dedupe", data, "--out", out, "--near-dup", "--report", report, "--workers", workers, "--force"
        )
        assert done.code == 0, done.err
        written += [out.read_bytes() + report.read_bytes() + (tmp_path / "out.card.json").read_bytes()]
    assert written[0] == written[1] and 0 < len(read(tmp_path / "out.jsonl")) < 2000


MEASURED = (
    "import sys; from tinygpt.cli import _root; from tinygpt.core import resident; "
    "_root.dispatch(sys.argv[1:]); print(resident.peak())"
)


@pytest.mark.wide
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    peaks = list[float]()
    for megabytes in (8, 32):
        data, draw = tmp_path / f"{megabytes}.jsonl", random.Random(0)
        with data.open("w", encoding="utf-8") as file:
            while file.tell() < megabytes * 1_000_000:
                file.write(json.dumps({"text": " ".join(draw.choices(WORDS, k=2000))}) + "\n")
        words = [
            "dedupe",
            str(data),
            "--out",
            str(tmp_path / "out.jsonl"),
            "--near-dup",
            "--force",
            "--quiet",
        ]
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *words, "--workers", "1"],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout.splitlines()[-1]) / 1e6)
    assert peaks[1] < peaks[0] + 12, f"24 MB more of text took {peaks[1] - peaks[0]:.0f} MB more of memory"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--keep", "best"], "--keep best and --score-field need each other"),
        (["--shingle", "3"], "--shingle means nothing without --near-dup"),
        (["--run-words", "8"], "--run-words means nothing without --decontaminate"),
        (["--near-dup", "--near-threshold", "1.5"], "--near-threshold must be above 0"),
        (["--near-dup", "--minhash-perms", "1"], "1 slots of MinHash cannot find pairs"),
        (["--normalise", "none,case"], "--normalise none stands alone"),
        (["--normalise", "cases"], "--normalise cases is unknown"),
        (["--min-len", "-1"], "--min-len must be at least 0"),
        (["--unit", "line", "--field", "text"], "--field text means nothing"),
        (["--min-len", "999"], "nothing is left"),
        (["--keep", "best", "--score-field", "quality"], "no row has a number 'quality'"),
        (["--decontaminate", "/dev/null"], "--decontaminate /dev/null has no example"),
        (["--decontaminate", "missing.jsonl"], "there is no file missing.jsonl"),
    ],
)
def test_refused(words: list[str], expected: str, tmp_path: Path) -> None:
    data, out = write(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": "b"}]), tmp_path / "out.jsonl"
    wrong(expected, data, "--out", out, *words, "--report", tmp_path / "report.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    data, out = write(tmp_path / "rows.jsonl", [{"text": "a"}]), write(tmp_path / "out.jsonl", [{"b": 1}])
    for words, expected in {
        ("--out", out): "exists",
        ("--out", data, "--force"): "is one of the files that are read",
        ("--out", tmp_path): "is a folder",
        ("--out", tmp_path / "x.parquet"): "plain text are written",
        ("--out", tmp_path / "x", "--report", tmp_path / "x"): "is --out as well",
    }.items():
        wrong(expected, data, *words)
    assert read(out) == [{"b": 1}] and read(data) == [{"text": "a"}]
    text = tmp_path / "a.txt"
    text.write_text("a\n", encoding="utf-8")
    wrong("rows.jsonl has rows and", data, text, "--out", tmp_path / "x")
    wrong("a.txt has no rows", text, "--out", tmp_path / "x", "--unit", "row")
