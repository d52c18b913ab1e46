"""Small tasks for lm-eval whose data lie in files of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ("red", "blue", "green", "black", "white", "brown")
TASKS: dict[str, dict[str, Any]] = {
    "own_choice": {
        "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "{{options}}",
        "doc_to_target": "{{answer}}", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "own_letter": {
        "output_type": "multiple_choice", "doc_to_text": "{{question}} Answer:",
        "doc_to_choice": ["A", "B", "C", "D"], "doc_to_target": "{{answer}}", "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    },
    "own_text": {
        "output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{written}}",
        "generation_kwargs": {"until": ["z", "\n\n"], "max_gen_toks": 12},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
    "own_filters": {
        "output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{written}}",
        "generation_kwargs": {"until": ["z", "\n\n"], "max_gen_toks": 12},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [
            {"name": name, "filter": [{"function": "regex", "regex_pattern": it}, {"function": "take_first"}]}
            for name, it in (("first", "(\\w+)"), ("letters", "([a-z]+)"))
        ],
    },
    "own_rolling": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{long}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
}  # fmt: skip


def write(folder: Path, n: int = 8) -> Path:
    """The tasks' files in a folder, as JSON, which is YAML too."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "question": f"The {WORDS[i % 6]} thing number {i} is not", "answer": i * 7 % 4,
            "options": [f"{WORDS[(i + j) % 6]}{' or so' * (j % 3)}" for j in range(4)],
            "written": WORDS[i % 6], "long": f"{WORDS[i % 6]} and " * (1 + 9 * i) + "that is all",
        }
        for i in range(n)
    ]  # fmt: skip
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, task in TASKS.items():
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}
        text = json.dumps({"task": name, "test_split": "test", **source, **task, "metadata": {"version": 1}})
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder
