"""Train a classifier that tells wanted texts from unwanted ones, and report on held-out texts.

It weighs classes alike, its probabilities are calibrated, and the directory holds a report and a picture of
the calibration. `quality-filter` reads it; with toxic texts as positive ones, so does `filter
--toxicity-model`.

Example:

    tinygpt train-quality-classifier --positive good.jsonl --negative crawl.jsonl --out quality.tinygpt
    tinygpt train-quality-classifier --positive toxic.jsonl --negative fine.jsonl --out toxic.tinygpt
"""

from __future__ import annotations

from tinygpt.cli._classifier import told
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.runs.train_quality_classifier import Config, run


def call(config: Config, out: Output) -> None:
    told(run(config, out.events()), out)


main = from_config(Config, call)
