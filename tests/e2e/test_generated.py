"""Data that a model of this machine or a server writes: labels, conversations, corrections, escalation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nano
import serving
from e2e.shell import good, process, refused, snapshot, tinygpt
from fake_openai import FakeOpenAI, Reply, chat, completion
from rude_openai import Rude
from tinygpt.data import rows
from tinygpt.data.tokenizer import byte
from tinygpt.runs._asking import seed_of
from tinygpt.runs._labels import Labels
from tinygpt.runs._magpie import Author

SCHEMA = {
    "type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"],
    "additionalProperties": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving.tiny_chat_model(tmp_path_factory.mktemp("generated"), context=512)


def _lines(path: Path, given: list[Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in given), encoding="utf-8")
    return path


def _read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_model_of_this_machine_labels_and_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nano.require("jsonschema")
    given = [{"prompt": f"{i}?"} for i in range(12)] + [{"messages": []}, {"prompt": "x" * 600}]
    data, schema = _lines(tmp_path / "in.jsonl", given), tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
    words = [
        "synthesize",
        "--teacher",
        model,
        "--inputs",
        data,
        "--schema",
        schema,
        "--temperature",
        1,
        "--json",
    ]
    found = good(*words, "--out", tmp_path / "a" / "rows.jsonl", "--parallel", 1).json
    assert (found["labelled"], found["skipped"], found["rejected"]) == (12, 1, {"refused": 1})
    assert found["cost"] is None and found["endpoint"] == "local"
    reject = _read(Path(found["rejects"]))[0]
    assert reject["input_index"] == 14 and "leaves no room in a context of 512" in reject["why"]
    for one in _read(tmp_path / "a" / "rows.jsonl"):
        assert json.loads(one["messages"][-1]["content"]).keys() == {"on"}
    took = Labels._take

    def breaks(self: Labels, *given: Any) -> None:
        if len(self.journal) == 5:
            raise KeyboardInterrupt
        took(self, *given)

    out = tmp_path / "b" / "rows.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(Labels, "_take", breaks)
        assert tinygpt(*words, "--out", out, "--parallel", 3).code == 130
    assert not out.exists()
    assert good(*words, "--out", out, "--parallel", 4, "--resume").json["kept_from_before"] == 5
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    learns = ("--steps", 1, "--batch", 2, "--no-compile", "--no-lock", "--quiet")
    good("sft", model, "--data", out, "--out", tmp_path / "run", *learns)


def test_wrong_answers_are_asked_again_and_rejected_in_the_end(tmp_path: Path) -> None:
    nano.require("jsonschema")
    data = _lines(tmp_path / "in.jsonl", [{"prompt": "good"}, {"prompt": "bad"}, {"prompt": "never"}])
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    words: list[object] = [
        "synthesize", "--inputs", data, "--schema", tmp_path / "schema.json", "--out", tmp_path / "out.jsonl",
        "--retries", 2, "--backoff", 0.01, "--json", "--teacher",
    ]  # fmt: skip
    faults = {"bad": ["wrong"] * 9, "never": ["400"] * 9}
    with Rude(lambda _: '{"on": true}', faults) as server:
        found = good(*words, server.url).json
        assert found["labelled"] == 1 and found["rejected"] == {"not valid under the schema": 1, "refused": 1}
        assert server.asked == {"good": 1, "bad": 3, "never": 2}, "once more without response_format"
        seeds = [body["seed"] for body in server.bodies if body["messages"][0]["content"] == "bad"]
        assert len(set(seeds)) == 3 and server.bodies[0]["response_format"]["type"] == "json_schema"
    bad, never = _read(tmp_path / "out.rejects.jsonl")
    assert (bad["input_index"], bad["said"]) == (2, "not what was asked for") and "not JSON" in bad["why"]
    assert "HTTP 400: never" in never["why"]
    card = json.loads((tmp_path / "out.card.json").read_text(encoding="utf-8"))
    assert card["stages"][1]["dropped"] == found["rejected"] and card["stages"][1]["n_out"] == 1


def test_a_server_that_refuses_the_field_is_asked_without_it(tmp_path: Path) -> None:
    nano.require("jsonschema")

    def answer(path: str, body: dict[str, Any]) -> Reply:
        if "response_format" in body:
            return 400, {}, {"error": {"message": "unknown field"}}
        return chat('{"on": false}')

    data = _lines(tmp_path / "in.jsonl", [{"prompt": f"{i}"} for i in range(5)])
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    with FakeOpenAI(answer).serving() as server:
        done = good(
            "synthesize", "--teacher", server.url, "--teacher-model", "m", "--inputs", data, "--json",
            "--schema", tmp_path / "schema.json", "--out", tmp_path / "out.jsonl", "--parallel", 1,
        )  # fmt: skip
        assert done.json["labelled"] == 5 and len(server.asked) == 6
    assert "does not take the fields" in done.err


def test_anthropic_with_a_key_that_is_nowhere_afterwards(tmp_path: Path) -> None:
    def answer(path: str, body: dict[str, Any]) -> Reply:
        assert path == "/v1/messages" and body["system"] == "Be brief."
        usage = {"input_tokens": 5, "output_tokens": 2}
        return {"content": [{"type": "text", "text": "yes"}], "stop_reason": "end_turn", "usage": usage}

    data = _lines(tmp_path / "in.jsonl", [{"prompt": "a"}, {"prompt": "b", "completion": "old"}])
    out, key = tmp_path / "new" / "out.jsonl", "sk-of-nobody-17"
    with FakeOpenAI(answer).serving() as server:
        words = (
            "synthesize", "--teacher", server.url, "--api", "anthropic", "--teacher-model", "claude",
            "--inputs", data, "--out", out, "--system", "Be brief.", "--api-key-env", "MY_KEY",
            "--shape", "completion", "--price-in", 3, "--price-out", 15, "--json",
        )  # fmt: skip
        refused(tinygpt(*words), "MY_KEY is not set")
        done = process(*words, MY_KEY=key)
        assert done.code == 0, done.err
        assert [one["X-Api-Key"] for one in server.headers] == [key, key]
    assert done.json["cost"] == pytest.approx((10 * 3 + 4 * 15) / 1e6)
    assert done.json["seconds_p95"] > done.json["seconds_median"], "of two, it is the longer one"
    told = done.out + done.err + "".join(f"{k} {v!r}" for k, v in snapshot(tmp_path).items())
    assert key not in told
    assert [row["completion"] for row in _read(out)] == [[{"role": "assistant", "content": "yes"}]] * 2


def test_a_key_in_the_address_and_idle_settings_are_refused(model: Path, tmp_path: Path) -> None:
    data = _lines(tmp_path / "in.jsonl", [{"prompt": "a"}])
    words = ["synthesize", "--inputs", data, "--out", tmp_path / "o.jsonl", "--teacher"]
    refused(tinygpt(*words, "http://me:key@127.0.0.1:1/v1"), "before the @", hint="environment")
    refused(tinygpt(*words, model, "--rate-limit", 2), "says nothing to a model of this machine")
    refused(tinygpt(*words, model, "--timeout", 2), "says nothing to a model of this machine")
    refused(tinygpt(*words, model, "--retries", 3), "says the same again at --temperature 0")
    refused(tinygpt(*words, "http://127.0.0.1:1", "--enforce", "guided"), "nothing without a schema or gram")
    refused(tinygpt(*words, model, "--resume"), "nothing to go on with")
    refused(tinygpt(*words, "http://127.0.0.1:1", "--body", "[]"), "must be a JSON object")
    refused(tinygpt(*words, model, "--retry-rejected"), "means nothing without --resume")
    assert not (tmp_path / "o.jsonl").exists()


LOOSE = ("--max-user", 200, "--max-assistant", 200, "--min-letters", 1, "--max-repetition", 1, "--json")


def test_a_model_writes_conversations_and_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("magpie", model, "--count", 4, "--system", "S", "--temperature", 1, *LOOSE)
    found = good(*words, "--out", tmp_path / "a" / "rows.jsonl", "--batch", 3).json
    assert found["kept"] == 4 and found["attempts"] == 4 + sum(found["dropped"].values())
    used, report = rows.read(tmp_path / "a" / "rows.jsonl", rows.to_messages)
    assert report.n_used == 4
    assert all([m["role"] for m in one.messages] == ["system", "user", "assistant"] for one in used)
    assert len({one.messages[1]["content"] for one in used}) == 4
    write, n = Author.write, [0]

    def breaks(self: Author, *given: Any, **more: Any) -> Any:
        n[0] += 1
        if n[0] > 5:
            raise KeyboardInterrupt
        return write(self, *given, **more)

    out = tmp_path / "b" / "rows.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(Author, "write", breaks)
        assert tinygpt(*words, "--out", out, "--batch", 2).code == 130
    refused(tinygpt(*words, "--out", out), "interrupted command", hint="--resume")
    refused(tinygpt(*words, "--out", out, "--resume", "--seed", 1), "other settings")
    assert good(*words, "--out", out, "--batch", 4, "--resume").json["kept"] == 4
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


# What the server writes for the attempts 0, 1, ...: a question, an answer, and what becomes of them.
TURNS = [
    ("How do I bake bread at home without a machine?", "Mix the flour and the water, then wait.", ""),
    ("How do I bake  bread at home without a machine?", "Mix it.", "a duplicate"),
    ("How do I bake bread at home without a kitchen?", "Mix it all.", "a near duplicate"),
    ("go", "It is what it is for you.", "question too short"),
    ("Was ist das, und wie ist es mit dem Berg?", "It is what it is.", "question another language"),
    ("What is the name of this?", "no no no no no no no no no", "answer repeats itself"),
    ("What is that in the sky?", "This is", "answer cut off"),
    ("What is the worst of it?", "It is bad for you.", "too low a score"),
    ("Where is the nearest town to this place?", "That is not far from the river.", ""),
]


def test_filters_count_what_they_drop(model: Path, tmp_path: Path) -> None:
    tokenizer, numbers = byte.load(None), {seed_of(0, i, part): i for i in range(9) for part in (0, 1)}

    def answer(path: str, body: dict[str, Any]) -> Reply:
        assert path == "/v1/completions" and body["model"] == "writer"
        prompt, turn = tokenizer.decode(body["prompt"]), TURNS[numbers[body["seed"]]]
        asked = prompt.endswith("<|im_start|>user\n")
        assert asked or prompt.endswith(f"{turn[0].strip()}<|im_end|>\n<|im_start|>assistant\n")
        end = "length" if not asked and "cut off" in turn[2] else "stop"
        text = turn[0] if asked else turn[1]
        return {
            "choices": [{"text": text, "finish_reason": end}],
            "usage": {"prompt_tokens": 3, "completion_tokens": len(text.split())},
        }

    reward = tmp_path / "reward.py"
    reward.write_text(
        "def good(answer):\n    return 0.0 if 'bad' in answer.text else 1.0\n", encoding="utf-8"
    )
    with FakeOpenAI(answer).serving() as server:
        found = good(
            "magpie", "writer", "--url", server.url, "--tokenizer", model, "--out", tmp_path / "out.jsonl",
            "--count", 2, "--language", "en", "--batch", 3, "--reward", f"{reward}:good", "--json",
        ).json  # fmt: skip
    assert found["attempts"] == 9 and found["dropped"] == {why: 1 for *_, why in TURNS if why}
    kept = _read(tmp_path / "out.jsonl")
    assert [row["_meta"] for row in kept] == [{"model": "writer", "attempt": i, "score": 1.0} for i in (0, 8)]
    card = json.loads((tmp_path / "out.card.json").read_text(encoding="utf-8"))
    assert card["stages"][0]["dropped"] == found["dropped"]


def test_a_conversation_of_turns_goes_on_from_its_own(model: Path, tmp_path: Path) -> None:
    tokenizer, prompts = byte.load(None), list[str]()

    def answer(path: str, body: dict[str, Any]) -> Reply:
        prompts.append(tokenizer.decode(body["prompt"]))
        return completion(f"words of part {len(prompts)}")

    with FakeOpenAI(answer).serving() as server:
        words = ("--url", server.url, "--tokenizer", model, "--out", tmp_path / "out.jsonl", "--count", 1)
        good("magpie", "writer", *words, "--turns", 2, "--batch", 1, "--template", "llama3")
    (row,) = _read(tmp_path / "out.jsonl")
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * 2
    assert [m["content"] for m in row["messages"]] == [f"words of part {i}" for i in (1, 2, 3, 4)]
    assert all(after.startswith(before) for before, after in zip(prompts[::2], prompts[1::2], strict=True))
    assert "words of part 2" in prompts[2] and prompts[2].endswith("user<|end_header_id|>\n\n")


def test_corrections_go_round(tmp_path: Path) -> None:
    folder = ("--dir", tmp_path / "kept")
    for corrected in ("Please go", "Please go."):
        said = ("--intent", "Make it polite.", "--input", "go", "--original", "Go.", "--corrected", corrected)
        assert good("record-correction", *said, *folder, "--json").json["path"].startswith(str(tmp_path))
    refused(
        tinygpt("record-correction", "--intent", " ", "--original", "", "--corrected", "a", *folder), "intent"
    )
    base = _lines(tmp_path / "base.jsonl", [{"prompt": f"{i}?", "completion": "a"} for i in range(9)])
    out = tmp_path / "out.jsonl"
    words = ("corrections-to-data", *folder, "--out", out, "--json")
    found = good(*words, "--replay", base, "--replay-ratio", 3).json
    assert (found["corrections"], found["used"], found["replayed"]) == (2, 1, 3)
    used, report = rows.read(out, rows.to_messages)
    assert report.n_used == 4 and used[0].messages[-1]["content"] == "Please go."
    assert good(*words, "--format", "dpo").json["replayed"] == 0
    (pair,) = _read(out)
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (
        "Make it polite.\n\ngo", "Please go.", "Go.",
    )  # fmt: skip
    card = json.loads((tmp_path / "out.card.json").read_text(encoding="utf-8"))
    assert card["stages"][0]["dropped"] == {"corrected again later": 1}
    refused(
        tinygpt("corrections-to-data", "--dir", tmp_path / "no", "--out", out), "there are no corrections"
    )
    refused(tinygpt(*words, "--seed", 1), "means nothing without --replay")
    refused(tinygpt(*words[:-1], "--since", "2999-01-01"), "none of the 2 corrections can be used")


def test_escalation_rows(tmp_path: Path) -> None:
    given = [
        {"prompt": "1+1?", "response": "2", "local_correct": True},
        {"instruction": "hard", "response": "x", "local_correct": False, "cloud_correct": True},
        {"prompt": "harder", "response": "x", "local_correct": False, "cloud_correct": False},
        {"prompt": "odd"},
    ]
    data, out = _lines(tmp_path / "in.jsonl", given), tmp_path / "out.jsonl"
    done = good("build-escalate-data", data, "--out", out, "--reason", "too hard", "--json")
    assert done.json["kept"] == done.json["deferred"] == 1 and done.json["rows"] == 4
    assert done.json["dropped"] == {"both are wrong": 1, "does not fit": 1} and "line 4" in done.err
    first, second = _read(out)
    assert first == {"instruction": "1+1?", "response": '{"defer_to_cloud": false, "response": "2"}'}
    assert json.loads(second["response"]) == {"defer_to_cloud": True, "reason": "too hard"}
    refused(tinygpt("build-escalate-data", _lines(data, given[2:3]), "--out", out), "nothing can be learned")
