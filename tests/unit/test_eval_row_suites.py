"""Suites over rows: figures by hand, answers that rows bring, and queries that do harm nowhere."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import row_suites
from row_suites import figures, played
from scripted import ScriptedEndpoint
from tinygpt.core.errors import ConfigError, DataError, UnsupportedError
from tinygpt.core.family import Family
from tinygpt.eval.suites import _sqlite, escalate, milu, review, router, sql

pytestmark = pytest.mark.wide  # they start processes

SUITES = Family("tinygpt.eval.suites", verb="score")


# SQL

WHAT = "select name from person order by age desc"
QUERIES = {
    "SELECT name\nFROM person ORDER BY age DESC;": "right",
    "```sql\nselect name from person order by age desc\n```": "right",
    "select name from person order by age": "wrong",
    "select name, age from person order by age desc": "wrong",
    "selec name": "error",
    "select nothing from person": "error",
    "": "no_answer",
    "drop table person": "refused",
    "update person set age = 0": "refused",
    "delete from pet": "refused",
    "insert into pet values (3, 'ant')": "refused",
    "create temp table t (a)": "refused",
    "pragma query_only = off": "refused",
    "select 1; drop table person": "refused",
    "attach database '/tmp/other.sqlite' as other": "refused",
    "vacuum into '/tmp/copy.sqlite'": "refused",
    "select load_extension('/tmp/x.so')": "refused",
    "begin": "refused",
    "select * from pragma_database_list": "refused",
    "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n": "timeout",
    "with recursive n(i) as (select 1 union all select i + 1 from n limit 5000) select i from n": "too_large",
    "select hex(zeroblob(100000000))": "too_large",
}


def test_no_query_changes_a_database_and_each_end_has_its_verdict(tmp_path: Path) -> None:
    path = row_suites.database(tmp_path / "people.sqlite")
    before, there = hashlib.sha256(path.read_bytes()).hexdigest(), sorted(tmp_path.iterdir())
    rows = [{"predicted_sql": query, "gold_sql": WHAT, "db": path.name} for query in QUERIES]
    found = played("sql", tmp_path, rows, seconds_each=0.3, max_rows=1000)
    verdicts = {query: one["verdict"] for query, one in zip(QUERIES, found.examples, strict=True)}
    assert verdicts == QUERIES
    assert [one["why"] for one in found.examples if one["verdict"] == "timeout"] == ["interrupted"]
    assert figures(found) == {(None, "execution_accuracy"): 2 / 22, (None, "exact_match"): 2 / 22}
    assert found.rows[0].settings["verdicts"]["refused"] == 12 and found.rows[0].n_failed == 0
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert sorted(tmp_path.iterdir()) == sorted([*there, tmp_path / "sql.jsonl"])


def test_a_query_that_cannot_be_interrupted_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite, "GRACE", 1.0)
    path = row_suites.database(tmp_path / "people.sqlite")
    slow = "select instr(hex(zeroblob(499000)), hex(zeroblob(250000)) || '1') + "
    deep = slow + slow.removeprefix("select ") * 9 + "1"  # no step of the virtual machine ends in seconds
    with _sqlite.Reader(seconds=0.05, rows=10) as reader:
        start = time.monotonic()
        assert reader.run(path, deep) == {"verdict": "timeout", "why": "killed"}
        assert time.monotonic() - start < 5
        assert reader.run(path, "select 1")["n_rows"] == 1, "the next query has a new process"
        assert reader._child is not None
        reader._child.kill()
        reader._child.wait()
        assert reader.run(path, "select 1")["verdict"] == "crash"
        assert reader.run(path, "select 1")["n_rows"] == 1


def test_results_are_multisets_and_ordered_only_where_the_reference_orders(tmp_path: Path) -> None:
    row_suites.database(tmp_path / "p.sqlite")
    pairs = [
        ("select kind from pet", "select kind from pet order by kind desc", True),
        ("select kind from pet", "select distinct kind from pet", False),
        ("select 1", "select 1.0", True),
        ("select 1", "select '1'", False),
        ("select null", "select 'null'", False),
        ("select 0.1 + 0.2", "select 0.3", True),
        ("select name from person where 0", "select name, age from person where 0", False),
        ("select kind from pet -- don't order by", "select kind from pet order by 1 desc", True),
        ("select * from (select kind from pet order by kind)", "select kind from pet order by 1 desc", True),
        (
            "select name from person order by (select 1), id",
            "select name from person order by id desc",
            False,
        ),
    ]
    rows = [{"predicted_sql": b, "gold_sql": a, "db": "p.sqlite"} for a, b, _ in pairs]
    found = played("sql", tmp_path, rows)
    assert [one["correct"] for one in found.examples] == [same for _, _, same in pairs]


def test_rows_of_sql_that_say_nothing_are_counted(tmp_path: Path) -> None:
    row_suites.database(tmp_path / "p.sqlite")
    good = {"question": "?", "gold_sql": "select 1", "db": "p.sqlite"}
    bad = [{"gold_sql": "select nowhere", "db": "p.sqlite"}, {"gold_sql": "select 1", "db": "no.sqlite"}]
    (tmp_path / "text.sqlite").write_text("this is no database, but a text of some length\n" * 30)
    bad.append({"gold_sql": "select 1", "db": "text.sqlite"})
    config = sql.Config(data=row_suites.write("sql", tmp_path, [good, *bad]))
    examples = sql.load(config)
    assert len(examples.items) == 1 and "CREATE TABLE pet" in examples.items[0]["messages"][0]["content"]
    for part in ("1 of 4", "no such column", "there is no database", "not a database"):
        assert part in examples.notes[0]
    (tmp_path / "p.sqlite-wal").write_text("changes")
    with pytest.raises(DataError, match="has changes in p.sqlite-wal"):
        sql.load(config)
    with pytest.raises(ConfigError):
        sql.Config(data=tmp_path, seconds_each=0)


# Router


def test_the_router_is_scored_by_hand_and_the_lead_is_paired(tmp_path: Path) -> None:
    wanted = ["a", "a", "a", "b", "b", "c"] * 30
    said = {"rules": ["a", "a", "b", "b", "b", "none"] * 30, "model": ["a"] * 180}
    rows = [
        {"method": method, "predicted_tool": got, "gold_tool": gold, "query": str(i)}
        for method, answers in said.items()
        for i, (got, gold) in enumerate(zip(answers, wanted))
    ]
    found = played("router", tmp_path, rows)
    # rules: F1 of a 2*2/(2+3), of b 2*2/(3+2), of c 0; model: F1 of a 2*3/(6+3).
    assert figures(found) == pytest.approx(
        {("rules", "accuracy"): 4 / 6, ("rules", "macro_f1"): (0.8 + 0.8) / 3,
         ("model", "accuracy"): 3 / 6, ("model", "macro_f1"): (2 / 3) / 3,
         ("rules over model", "lead"): 1 / 6}
    )  # fmt: skip
    lead = found.rows[-1]
    assert lead.n_examples == 180 and lead.interval[0] > 0 and lead.settings["winner"] == "rules"
    few = played("router", tmp_path, [row for row in rows if int(row["query"]) < 6])
    assert few.rows[-1].score == pytest.approx(1 / 6) and few.rows[-1].settings["winner"] == ""
    config = router.Config(data=row_suites.write("router", tmp_path, rows))
    with pytest.raises(DataError, match="rows of 2 methods are answers"):
        router.score(ScriptedEndpoint(lambda _: "a"), router.load(config), config)


def test_an_answer_names_one_tool() -> None:
    tools = dict.fromkeys(("find", "find_all", "fs.read", "read"), "")
    said = {"`find`": "find", "I use find_all here.": "find_all", "find or read": "", "fs.read": "fs.read",
            "call fs.read now": "fs.read", "finder": "", "": ""}  # fmt: skip
    assert {answer: router._tool(answer, tools) for answer in said} == said


# MILU


class Likely(ScriptedEndpoint):
    """Every token is likely in texts that end so, and unlikely in others."""

    def __init__(self, *ends: str, context: int = 400) -> None:
        super().__init__(lambda _: "", context=context)
        self.ends = ends

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        return [
            [-0.1 if self.tokenizer.decode(list(ids)).endswith(self.ends) else -3.0] * (len(ids) - 1)
            for ids in rows
        ]


def test_milu_takes_the_likeliest_option_and_means_over_languages(tmp_path: Path) -> None:
    rows = [
        {"question": "1?", "option1": "x", "option2": "y", "target": "option2", "language": "Hindi"},
        {"question": "2?", "options": ["x", "y"], "answer": "B", "language": "Hindi"},
        {"question": "3?", "options": ["x", "y"], "answer": "x", "language": "Hindi"},
        {"question": "4?", "options": ["x", "y"], "answer": 1, "language": "Tamil"},
        {"question": "5?", "options": ["x", "y"], "answer": "z", "language": "Tamil"},
    ]
    config = milu.Config(data=row_suites.write("milu", tmp_path, rows))
    examples = milu.load(config)
    assert [item["gold"] for item in examples.items] == ["B", "B", "A", "B"] and "4 of 5" in examples.notes[0]
    found = milu.score(Likely(" B"), examples, config)
    assert figures(found) == pytest.approx(
        {(None, "accuracy"): 3 / 4, (None, "accuracy_macro"): (2 / 3 + 1) / 2, ("Hindi", "accuracy"): 2 / 3,
         ("Tamil", "accuracy"): 1.0}
    )  # fmt: skip
    by_text = milu.Config(data=config.data, by="text")
    assert figures(milu.score(Likely(" y"), milu.load(by_text), by_text))[(None, "accuracy")] == 0.75
    small = milu.score(Likely(" B", context=20), examples, config)
    assert small.rows[0].n_failed == 4 and small.rows[0].score == 0.0
    blind = Likely()
    blind.tokenizer = None  # type: ignore[assignment]
    with pytest.raises(UnsupportedError, match="does not show its tokens"):
        milu.score(blind, examples, config)


def test_milu_by_the_texts_counts_their_bytes(tmp_path: Path) -> None:
    """Per byte the long option is the likelier one, though its sum is the smaller."""
    rows = [{"question": "?", "options": ["no", "a long option"], "answer": "B"}]
    config = milu.Config(data=row_suites.write("milu", tmp_path, rows), by="text")

    class Fixed(Likely):
        def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
            return [[-1.0 if len(ids) > 15 else -2.0] * (len(ids) - 1) for ids in rows]

    found = milu.score(Fixed(), milu.load(config), config)
    assert found.examples[0]["got"] == "B"

    class Unlikely(Likely):
        """The question itself is unlikely, which says nothing about its options."""

        def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
            told = [(len("?\nAnswer:") - 1, -1.0 if len(ids) < 16 else -1.5, len(ids)) for ids in rows]
            return [[-50.0] * asked + [each] * (n - 1 - asked) for asked, each, n in told]

    found = milu.score(Unlikely(), milu.load(config), config)
    assert found.examples[0]["got"] == "A"


def test_milu_of_answers_in_the_rows(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"language": "Hindi", "correct": i > 0} for i in range(4)]
    rows += [{"language": "Tamil", "predicted": p, "gold": "B"} for p in ("B", "A")]
    found = figures(played("milu", tmp_path, rows))
    assert found[("Hindi", "accuracy")] == 0.75 and found[("Tamil", "accuracy")] == 0.5
    assert found[(None, "accuracy_macro")] == 0.625 and found[(None, "accuracy")] == pytest.approx(4 / 6)


# Review and escalation


def test_issues_match_by_place_and_category_once(tmp_path: Path) -> None:
    def at(line: int, category: str = "bug", file: str = "a.py") -> dict[str, Any]:
        return {"line": line, "category": category, "file": file}

    cases = [
        ([at(10)], [at(12, "Bug")], 1),
        ([at(10)], [at(14)], 0),
        ([at(10)], [at(10, "leak")], 0),
        ([at(10)], [at(10, file="b.py")], 0),
        ([at(10)], [at(10), at(11)], 1),
        ([at(10), at(13)], [at(11), at(7)], 2),  # the nearest first would leave one of them alone
        ([], [], 0),
        (["a name"], ["A name "], 1),
    ]
    rows = [{"planted_issues": planted, "found_issues": found} for planted, found, _ in cases]
    result = played("review", tmp_path, rows)
    assert [one["matched"] for one in result.examples] == [n for _, _, n in cases]
    planted, reported, matched = (sum(n) for n in zip(*((len(p), len(f), n) for p, f, n in cases)))
    assert figures(result) == pytest.approx(
        {(None, "accuracy"): 4 / 8, (None, "precision"): matched / reported,
         (None, "recall"): matched / planted, (None, "f1"): 2 * matched / (planted + reported)}
    )  # fmt: skip


def test_an_answer_that_is_no_list_is_counted_and_finds_nothing(tmp_path: Path) -> None:
    config = review.Config(data=row_suites.write("review", tmp_path))
    found = review.score(ScriptedEndpoint(lambda _: "all is well"), review.load(config), config)
    assert found.rows[0].settings["unreadable"] == len(found.examples) and not any(
        one["correct"] for one in found.examples
    )
    odd = review.score(ScriptedEndpoint(lambda _: 'so: [{"line": 1}, 7]'), review.load(config), config)
    assert odd.examples[0]["reported"] == 2 and odd.rows[1].score == 0.0


def test_escalation_by_hand(tmp_path: Path) -> None:
    pairs = [(True, True)] * 3 + [(True, False)] * 1 + [(False, True)] * 2 + [(False, False)] * 4
    rows: list[dict[str, Any]] = [{"defer_pred": d, "local_wrong": w} for d, w in pairs]
    assert figures(played("escalate", tmp_path, rows)) == pytest.approx(
        {(None, "accuracy"): 0.7, (None, "precision"): 3 / 4, (None, "recall"): 3 / 5, (None, "f1"): 6 / 9,
         (None, "over_escalation"): 1 / 5}
    )  # fmt: skip
    config = escalate.Config(data=row_suites.write("escalate", tmp_path))
    both = escalate.score(ScriptedEndpoint(lambda _: "ANSWER or DEFER"), escalate.load(config), config)
    assert both.rows[0].score == 0.0 and both.rows[0].settings["unreadable"] == 6
    low, high = both.rows[-1].interval or (0.0, 0.0)
    assert both.rows[-1].score == high == 1.0 and low < 0.5, "three answers that agree are no certainty"


def test_the_form_that_models_are_taught_is_read(tmp_path: Path) -> None:
    config = escalate.Config(data=row_suites.write("escalate", tmp_path))

    def answer(prompt: Any) -> str:
        wrong = int(prompt[0]["content"].partition("Question: ")[2].split()[0]) % 2 == 0
        return json.dumps(
            {"defer_to_cloud": True, "reason": "ANSWER me"} if wrong else {"defer_to_cloud": False}
        )

    found = escalate.score(ScriptedEndpoint(answer), escalate.load(config), config)
    assert found.rows[0].score == 1.0 and found.rows[0].settings["unreadable"] == 0


# Answers that rows bring


def test_a_row_without_its_answer_has_failed_and_versions_do_not_depend_on_answers(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"gold_tool": "a", "predicted_tool": "a"}, {"gold_tool": "b"}]
    found = played("router", tmp_path, rows)
    assert found.rows[0].n_failed == 1 and found.rows[0].score == 0.5
    other = played("router", tmp_path, [rows[0], {**rows[1], "predicted_tool": "b"}])
    assert other.rows[0].data_version == found.rows[0].data_version and other.rows[0].score == 1.0
    config = router.Config(data=row_suites.write("router", tmp_path, rows))
    with pytest.raises(DataError, match="row 0 has nothing to ask a model"):
        router.score(ScriptedEndpoint(lambda _: "a"), router.load(config), config)
    assert json.loads((tmp_path / "router.jsonl").read_text().splitlines()[0]) == rows[0]
