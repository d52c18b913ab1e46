"""From a recorded run to the next model: traces become rows that sft and dpo read as they lie."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from desks import Scripted
from e2e.shell import NANO, good, refused, tinygpt
from fake_openai import FakeOpenAI, chat
from tinygpt.agent.loop import Agent, Limits
from tinygpt.agent.policy import Decision
from tinygpt.agent.recorder import Recorder
from tinygpt.agent.tool import Cancel, Outcome
from tinygpt.agent.turn import REPAIR
from tinygpt.data import atraj
from tinygpt.data.source import chat as chats
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane
from tinygpt.runs._agent_writer import LocalWriter
from tinygpt.runs._local_endpoint import LocalEndpoint

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "w", "parameters": CITY}}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "%s"}}\n</tool_call>'
BROKEN = '<tool_call>\n{"name": "weather", "argum'
CITIES = ("Rome", "Oslo", "Lima", "Cairo")
TUNED = ("--steps", 2, "--batch", 2, "--no-compile", "--no-lock", "--seed", 1)


class Hands:
    """One tool, which may not look at Cairo."""

    entries = TOOLS

    def harmless(self, name: str) -> bool:
        return True

    def run(self, name: str, arguments: Any, cancel: Cancel) -> tuple[Decision, Outcome]:
        allowed = arguments["city"] != "Cairo"
        decision = Decision(tool=name, arguments=arguments, rule="" if allowed else "deny", allowed=allowed)
        return decision, Outcome(stdout="sunny in " + arguments["city"]) if allowed else Outcome(stderr="no")


class Silent:
    def text(self, piece: str) -> None: ...

    def tell(self, event: str, **facts: Any) -> None: ...


def record(
    folder: Path, id: str, engine: Engine, request: str, *, seed: int = 0, **end: Any
) -> atraj.Trajectory:
    """A request to an agent, as an .atraj file."""
    sampling = SampleConfig(temperature=1.0 if seed else 0.0, seed=seed)
    writer = LocalWriter(engine, Lane(engine), sampling, TOOLS, constrained=False)
    header = atraj.Header(
        id=id, task="weather", tools=TOOLS, model={"name": "base", "tokenizer_hash": engine.tokenizer.hash}
    )
    file = atraj.Writer.begin(folder, header, engine.tokenizer.id_to_bytes)
    agent = Agent(
        writer, Hands(), Limits(max_steps=4, max_tokens=100), Silent(), threading.Event(),
        messages=[{"role": "system", "content": "Help."}], recorder=Recorder(file, writer, TOOLS),
    )  # fmt: skip
    answer = agent.ask(request)
    file.end(atraj.End(outcome=answer.outcome, **end))
    return atraj.read(file.path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in base/, and what it was recorded at in traces/."""
    folder = tmp_path_factory.mktemp("traces")
    said = [
        {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "Yes."}]}
        for i in range(8)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYGPT_CACHE", str(folder / "cache"))
        good(
            "sft", "--data", folder / "rows.jsonl", "--out", folder / "base", "--steps", 1, *NANO,
            "--context", 768, "--no-lock",
        )  # fmt: skip
        base = LocalEndpoint.open(folder / "base").engine
    for city in CITIES:
        model: Any = Scripted([CALL % city, f"In {city} it is sunny today."], context=base.context)
        engine = Engine(model, base.tokenizer, base.template)
        right = city != "Lima"
        record(
            folder / "traces",
            city,
            engine,
            f"Weather in {city}?",
            success=right,
            reward={"state": float(right)},
        )
    script: Any = Scripted([BROKEN], context=base.context)
    record(
        folder / "traces", "broken", Engine(script, base.tokenizer, base.template), "Weather?", success=False
    )
    for seed in (1, 2):  # what the model itself writes
        record(folder / "own", f"own{seed}", base, "Hello?", seed=seed, success=seed == 1)
        record(folder / "own", f"other{seed}", base, "Bye?", seed=seed + 2, success=seed == 1)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_conversations_with_tools_are_learned_as_they_lie(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    found = good("traces-to-data", root / "traces", "--out", out, "--json").json
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert (
        found["traces"] == 5 and found["rows"] == 4 and stages["kept"]["dropped"] == {"ended: unparsable": 1}
    )
    assert found["left_out"] == {"refused calls": 1}
    rows = {row["_meta"]["trace"]: row for row in lines(out)}
    roles = [m["role"] for m in rows["Rome"]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant"] and rows["Rome"]["tools"] == TOOLS
    assert [m["role"] for m in rows["Cairo"]["messages"]] == ["system", "user", "assistant"]
    assert rows["Rome"]["task"] == "weather" and REPAIR[:20] not in out.read_text()
    card = json.loads((tmp_path / "rows.card.json").read_text())
    assert [s["name"] for s in card["sources"]] == ["traces", "base"] and card["sources"][0]["n_rows"] == 5
    shown = good(
        "sft", root / "base", "--data", out, "--out", tmp_path / "x", "--show-mask", 4, "--json"
    ).json
    learned = {"".join(t for t, l in zip(r["tokens"], r["learned"], strict=True) if l) for r in shown}
    assert f"{CALL % 'Rome'}<|im_end|>In Rome it is sunny today.<|im_end|>" in learned
    before = out.read_bytes()
    good("sft", root / "base", "--data", out, "--out", tmp_path / "tuned", *TUNED)
    assert out.read_bytes() == before and (tmp_path / "tuned/final").is_dir()


def test_what_is_learned_of_tokens_is_what_was_sampled(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens.jsonl"
    good("traces-to-data", root / "own", root / "traces", "--out", out, "--token-exact", "--no-near-dup")
    tokenizer = LocalEndpoint.open(root / "base").engine.tokenizer
    learned: dict[str, list[int]] = {}
    for row in lines(out):
        told = [i for i, l in zip(row["ids"], row["learn"], strict=True) if l]
        learned[row["_meta"]["trace"]] = learned.get(row["_meta"]["trace"], []) + told
    for path in sorted(root.glob("*/*.atraj")):
        trace = atraj.read(path)
        if trace.end is None or trace.end.outcome != "answered":
            assert trace.header.id not in learned
            continue
        spoken = [s for s in trace.steps if s.logprobs is not None and s.ids is not None]
        spoken = spoken[1:] if trace.header.id == "Cairo" else spoken  # the refused call is only context
        sampled = [
            i for s in spoken for i, p in zip(s.ids or (), s.logprobs or (), strict=True) if p is not None
        ]
        assert learned[trace.header.id] == sampled and sampled
    config = chats.Config(paths=(out,), held_out=0.0)
    examples = chats.examples(config, tokenizer, length=767)
    read = sorted((e.ids, [int(l) for l in e.learn]) for e in examples)
    assert read == sorted((row["ids"], row["learn"]) for row in lines(out))
    good("sft", root / "base", "--data", out, "--out", tmp_path / "tuned", *TUNED)
    other = [row | {"tokenizer_hash": "0" * 64} for row in lines(out)]
    out.write_text("".join(json.dumps(row) + "\n" for row in other))
    done = tinygpt("sft", root / "base", "--data", out, "--out", tmp_path / "no", *TUNED)
    refused(done, "ids of another tokenizer", hint="--token-exact")
    assert not (tmp_path / "no" / "final").exists()


@pytest.mark.parametrize("mode", ["dpo", "kto"])
def test_better_and_worse_runs_are_learned_as_preferences(mode: str, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    found = good("traces-to-data", root / "own", "--out", out, "--mode", mode, "--json").json
    assert found["rows"] == (2 if mode == "dpo" else 4)
    for row in lines(out):
        if mode == "dpo":
            ids = row["_meta"]["chosen"]["trace"], row["_meta"]["rejected"]["trace"]
            assert ids in (("own1", "own2"), ("other1", "other2")) and row["_meta"]["scores"] == [1.0, 0.0]
            made = next(stage for stage in found["stages"] if stage["name"] == "pairs")
            assert made["n_in"] == made["notes"]["traces of a pair"] * made["n_out"] == 4
        else:
            assert row["label"] == row["_meta"]["trace"].endswith("1")
    more = ("--loss-type", "kto") if mode == "kto" else ()
    good("dpo", root / "base", "--data", out, "--out", tmp_path / "tuned", *TUNED, "--held-out", 0, *more)
    assert (tmp_path / "tuned/final").is_dir()


def test_only_what_is_good_enough(root: Path, tmp_path: Path) -> None:
    def kept(*more: object) -> set[str]:
        out = tmp_path / "rows.jsonl"
        good("traces-to-data", root / "traces", "--out", out, "--force", *more)
        return {row["_meta"]["trace"] for row in lines(out)}

    assert kept("--success-only") == kept("--min-reward", "state=1") == {"Rome", "Oslo", "Cairo"}
    assert kept("--success-at", "state=0", "--success-only") == set(CITIES)
    assert kept("--outcome", "answered,unparsable", "--task", "weather") == set(CITIES)
    done = tinygpt("traces-to-data", root / "traces", "--out", tmp_path / "no.jsonl", "--task", "other")
    refused(done, "no row is left of 5 traces: 5 another task", hint="--dry-run")
    for more, odd in (
        (("--task", "weather,other"), "--task other"),
        (("--outcome", "answered,anwsered"), "--outcome anwsered"),
        (("--score-field", "stars"), "--score-field stars"),
    ):
        done = tinygpt("traces-to-data", root / "traces", "--out", tmp_path / "no.jsonl", *more)
        refused(done, f"{odd}: no trace has that")
    assert not (tmp_path / "no.jsonl").exists()


def test_a_better_run_that_says_the_same_is_no_duplicate_of_one_left_out(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    rows = [{"messages": said, "success": good_, "reward": float(good_)} for good_ in (False, True, True)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for more in (("--success-only",), ("--min-reward", "reward=1")):
        line = ("traces-to-data", tmp_path / "log.jsonl", "--out", tmp_path / "rows.jsonl", "--force", *more)
        stages = {stage["name"]: stage for stage in good(*line, "--json").json["stages"]}
        assert stages["exact"]["dropped"] == {"a duplicate": 1} and stages["worth"]["n_out"] == 1
        assert [row["_meta"]["success"] for row in lines(tmp_path / "rows.jsonl")] == [True]


def test_a_judge_gives_marks(root: Path, tmp_path: Path) -> None:
    def answer(path: str, body: dict[str, Any]) -> dict[str, Any]:
        asked = body["messages"][0]["content"]
        assert "user: Weather in" in asked and "sunny today" in asked
        return chat("9" if "Oslo" in asked else "no idea" if "Lima" in asked else "4")

    with FakeOpenAI(answer).serving() as server:
        out = tmp_path / "rows.jsonl"
        judged = ("--judge-model", server.url, "--min-reward", "judge=7")
        found = good("traces-to-data", root / "traces", "--out", out, *judged, "--json").json
    (row,) = lines(out)
    assert row["_meta"]["trace"] == "Oslo" and row["_meta"]["reward"] == {"state": 1.0, "judge": 9.0}
    worth = next(stage for stage in found["stages"] if stage["name"] == "worth")
    assert worth["dropped"] == {"reward 'judge' below N": 2, "the judge gave no mark": 1}


def test_a_dry_run_counts_and_writes_nothing(root: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = good("traces-to-data", root / "traces", "--out", tmp_path / "new" / "rows.jsonl", "--dry-run")
    assert "4 rows would be written" in done.out and sorted(tmp_path.rglob("*")) == before
    (tmp_path / "mine.jsonl").write_text("{}\n")
    done = tinygpt("traces-to-data", root / "traces", "--out", tmp_path / "mine.jsonl", "--force")
    refused(done, "has no card of tinygpt's")


def test_bad_files_are_counted_and_told(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "Hi"}], "response": "Ho"}\n{"x"\n'
    )
    (tmp_path / "b.jsonl").write_text('{"text": "no trace"}\n')
    (tmp_path / "c.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "d.json").write_text("no JSON")
    for name in ("e", "f"):
        (tmp_path / f"{name}.atraj").write_text('{"atraj": 2}\n')
    done = good("traces-to-data", tmp_path, "--out", tmp_path / "out" / "rows.jsonl", "--json")
    assert "read: 6 of 7 rows left out" in done.err and "no format that is known" in done.err
    assert len(lines(tmp_path / "out" / "rows.jsonl")) == 1
    dropped = done.json["stages"][0]["dropped"]
    assert dropped["line N: 'id': field required"] == 2, "the same fault of two files"
    assert any("not UTF" in why for why in dropped) and sum(dropped.values()) == 6
    refused(tinygpt("traces-to-data", tmp_path / "none", "--out", tmp_path / "o.jsonl"), "there is no file")
