"""Best of n on the command line: a choice, a curve with its plot, and what is refused."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

from e2e.shell import good, refused, tinygpt

FEW = ("--tokens", 4, "--temperature", 1.2)


def test_a_scan_writes_the_curve_and_a_plot(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "curve.json"
    usual = ("bon", trained / "run", "--prompt", "The ", *FEW, "--scan", "4,1,2", "--json")
    found = good(*usual, "--out", out).json
    assert [p["n"] for p in found["curve"]] == [1, 2, 4]
    scores = [p["score"] for p in found["curve"]]
    assert scores == sorted(scores) and scores[0] < scores[-1], "more answers are never worse for who chooses"
    answer = found["answers"][0]
    assert len(answer["scores"]) == 4 and answer["score"] == max(answer["scores"]) == scores[-1]
    assert json.loads(out.read_text(encoding="utf-8")) == found
    plot = ElementTree.parse(tmp_path / "curve.svg").getroot()
    assert plot.tag.endswith("svg") and len(plot.findall(".//{*}circle")) == 3
    assert good(*usual).json == found, "the same seed, the same answers"
    assert good(*usual, "--seed", 7).json["answers"] != found["answers"]


def test_rows_with_answers_tell_how_many_are_solved(trained: Path, tmp_path: Path) -> None:
    check = f"{shlex.quote(sys.executable)} -c 'import sys; print(len(sys.stdin.read()))'"
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "1", "completion": "x"}\n{"prompt": "2"}\n', encoding="utf-8"
    )
    usual = ("bon", trained / "run", "--data", tmp_path / "rows.jsonl", *FEW)
    found = good(*usual, "--n", 2, "--verifier", "command", "--command", check, "--json").json
    assert found["prompts"] == 2 and [("solved" in a) for a in found["answers"]] == [True, False]
    shown = good(*usual, "--n", 2, "--verifier", "corpus-ppl", "--corpus", trained / "corpus.txt").out
    assert len(shown.splitlines()) >= 2
    other = good(
        *usual, "--n", 2, "--verifier", "corpus-ppl", "--corpus-model", trained / "run", "--json"
    ).json
    assert all(a["score"] < 0 for a in other["answers"])


def test_what_says_nothing_is_refused(trained: Path, tmp_path: Path) -> None:
    usual = ("bon", trained / "run", *FEW)
    refused(tinygpt(*usual), "a prompt or the rows")
    refused(tinygpt(*usual, "--prompt", "a", "--scan", "1,x"), "'x' is no number")
    refused(tinygpt(*usual, "--prompt", "a", "--scan", "2,0"), "at least 1")
    refused(tinygpt(*usual, "--prompt", "a", "--corpus", "c.txt"), "says nothing to the verifier 'self'")
    refused(tinygpt(*usual, "--prompt", "a", "--verifier", "corpus-ppl"), "needs a corpus")
    refused(tinygpt(*usual, "--prompt", "a", "--verifier", "judge"), "needs someone to judge")
    refused(tinygpt(*usual[:2], "--prompt", "a", "--temperature", 0), "the same answer each time")
    refused(tinygpt(*usual, "--prompt", "a", "--verifier", "command", "--command", "no-such-x"), "cannot run")
    refused(tinygpt(*usual, "--data", tmp_path / "none.jsonl"), "none.jsonl")
    for out in (tmp_path, tmp_path / "curve.svg"):  # the chart goes there, and would be lost
        refused(tinygpt(*usual, "--prompt", "a", "--out", out), "cannot be the JSON file")


def test_a_curve_that_cannot_be_drawn_is_told(trained: Path, tmp_path: Path) -> None:
    asked = ("bon", trained / "run", "--prompt", "a", *FEW, "--scan", "1,2", "--out", tmp_path / "c.json")
    done = good(*asked, "--verifier", "command", "--command", "sleep 9", "--seconds", 0.05)
    assert "no curve was drawn" in done.err and not (tmp_path / "c.svg").exists()
