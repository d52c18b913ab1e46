"""Our class for lm-eval against lm-eval's own `hf` backend, and `local-completions` on our server."""

from __future__ import annotations

import importlib.metadata
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

import lm_eval_tasks
import nano
from e2e.shell import good
from serving import tiny_chat_model
from tinygpt.core.backend import mx
from tinygpt.core.rows import read_rows
from tinygpt.model import checkpoint
from tinygpt.runs import _lm_eval_model

pytestmark = pytest.mark.parity


def evaluated(model: Any, folder: Path, names: list[str] | None = None, **more: Any) -> Any:
    lm_eval = nano.require("lm_eval")
    manager = nano.require("lm_eval.tasks").TaskManager(include_path=str(folder), include_defaults=False)
    return lm_eval.simple_evaluate(
        model=model, tasks=names or list(lm_eval_tasks.TASKS), task_manager=manager, bootstrap_iters=0, **more
    )


@pytest.fixture(scope="module", params=["plain", "bos"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of transformers with weights spread wide; with a BPE that merges over the borders of
    words, and puts bos before a text or not."""
    torch, transformers = nano.require("torch"), nano.require("transformers")
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    folder = tmp_path_factory.mktemp(request.param)
    text = [f"{a} thing is {b}, and {b} that is {a} or so" for a in lm_eval_tasks.WORDS for b in "xyz"]
    tok = tokenizers.Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tok.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    names = {"eos_token": "</s>"}
    if request.param == "bos":
        names["bos_token"] = "<s>"
        tok.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=tok, **names).save_pretrained(folder)
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=tok.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=96, initializer_range=0.25,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).eval().save_pretrained(folder)
    return folder


def answers(found: Any) -> dict[tuple[str, int], Any]:
    """What a model said about each document."""
    return {
        (task, sample["doc_id"]): sample["resps"]
        for task, samples in found["samples"].items()
        for sample in samples
    }


def test_equal_to_lm_evals_own_backend(saved: Path, tmp_path: Path) -> None:
    tasks = lm_eval_tasks.write(tmp_path)
    theirs = evaluated(
        "hf", tasks, model_args=f"pretrained={saved},dtype=float32", device="cpu", batch_size=3
    )
    model = _lm_eval_model.lm_class()(saved, batch_size=3)
    ours = evaluated(model, tasks)
    expected = answers(theirs)
    for key, resps in answers(ours).items():
        for (got,), (other,) in zip(resps, expected[key], strict=True):
            if isinstance(got, tuple):
                assert got[0] == pytest.approx(other[0], abs=1e-4) and got[1] == other[1], key
            else:
                assert got == (other if isinstance(other, str) else pytest.approx(other, abs=1e-3)), key
    assert model.noted.shortened == set(), "nothing is too long but texts that are read in windows"
    for task, scores in theirs["results"].items():
        for name, value in scores.items():
            if isinstance(value, float):
                assert ours["results"][task][name] == pytest.approx(value, rel=1e-4), (task, name)


def test_groups_and_filters(tmp_path: Path) -> None:
    tasks, folder = lm_eval_tasks.write(tmp_path / "tasks"), tiny_chat_model(tmp_path, context=400)
    group = {"group": "own_group", "task": ["own_choice", "own_letter"]}
    for name, weighs in (("own_group", True), ("own_mean", False)):
        acc = {"metric": "acc", "weight_by_size": weighs}
        (tasks / f"{name}.yaml").write_text(
            json.dumps({**group, "group": name, "aggregate_metric_list": [acc]})
        )
    task = json.loads((tasks / "own_text.yaml").read_text())
    regex = [{"function": "regex", "regex_pattern": "([a-z]+)"}, {"function": "take_first"}]
    filters = [{"name": "all", "filter": regex[1:]}, {"name": "word", "filter": regex}]
    (tasks / "own_text.yaml").write_text(json.dumps({**task, "filter_list": filters}))
    out = tmp_path / "rows.jsonl"
    names = "own_group,own_mean,own_text"
    good("run-lm-eval", folder, "--tasks", names, "--include-path", tasks, "--out", out, "--max-length", 300)
    rows = {(row.task, row.subtask, row.metric): row for row in read_rows(out)[0]}
    records = [json.loads(line) for line in (tmp_path / "rows.examples.jsonl").read_text().splitlines()]
    assert set(rows) == {
        *((group, None, "acc") for group in ("own_group", "own_mean")),
        *((group, one, "acc") for group in ("own_group", "own_mean") for one in ("own_choice", "own_letter")),
        ("own_group", "own_choice", "acc_norm"), ("own_mean", "own_choice", "acc_norm"),
        ("own_text", "all", "exact_match"), ("own_text", "word", "exact_match"),
    }  # fmt: skip
    for (task, subtask, metric), row in rows.items():
        assert row.interval and row.interval[0] <= row.score <= row.interval[1]
        mine = [r for r in records if r["task"] == task and subtask in r["subtasks"]]
        if (task, subtask) != ("own_mean", None):
            values = [r["scores"][metric] for r in mine]
            assert len(values) == row.n_examples and row.score == pytest.approx(sum(values) / len(values))
            assert len({r["id"] for r in mine}) == len(mine)


def test_one_token_options_are_told_apart(tmp_path: Path) -> None:
    """The answers are the model's own likeliest letters, seen by one plain pass, or its unlikeliest."""
    model = tiny_chat_model(tmp_path, context=400)
    lm = checkpoint.load(model).model
    for pick, score in ((max, 1.0), (min, 0.0)):
        tasks = lm_eval_tasks.write(tmp_path / f"tasks{score}")
        docs = [json.loads(line) for line in (tasks / "rows.jsonl").read_text().splitlines()]
        for doc in docs:
            ids = list(f"{doc['question']} Answer:".encode())
            logits = lm(mx.array([ids]))[0, -1].tolist()
            doc["answer"] = pick(range(4), key=lambda i, logits=logits: logits[ord("ABCD"[i])])
        (tasks / "rows.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
        found = evaluated(_lm_eval_model.lm_class()(model), tasks, ["own_letter"])
        assert found["results"]["own_letter"]["acc,none"] == score


def test_a_peer_through_the_command(saved: Path, tmp_path: Path) -> None:
    tasks, at = lm_eval_tasks.write(tmp_path / "tasks"), ["--tasks", "own_choice,own_text"]
    found = {}
    for name, who in (("ours", [saved]), ("theirs", ["--hf-model", saved])):
        out = tmp_path / f"{name}.jsonl"
        good(
            "run-lm-eval", *who, *at, "--include-path", tasks, "--gen-kwargs", "max_gen_toks=9", "--out", out
        )
        found[name] = read_rows(out)[0]
    assert [(r.task, r.metric, r.score, r.data_version, r.model_hash) for r in found["ours"]] == [
        (r.task, r.metric, r.score, r.data_version, r.model_hash) for r in found["theirs"]
    ]


def test_lm_eval_can_find_it_by_entry_point() -> None:
    """As lm-eval after 0.4.13 does with what pyproject.toml declares."""
    base, registry = nano.require("lm_eval.api.model"), nano.require("lm_eval.api.registry")
    root = Path(__file__).parents[2]
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"][
        "lm_eval.models"
    ]
    own = registry.Registry("model", base_cls=base.LM)
    for name, value in declared.items():
        own.register(name, target=importlib.metadata.EntryPoint(name, value, "lm_eval.models"))
    assert own.get("tinygpt") is _lm_eval_model.lm_class()
