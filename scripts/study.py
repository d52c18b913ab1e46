"""A small study at equal compute: which optimizer, and which architecture, learns most from the same work.

    python scripts/study.py --corpus /usr/lib/python3.11 --out runs/study

About 1 M parameters on real text with a tokenizer of its own. Optimizers: the learning rate of each is swept
with one seed, then the best one is run with three. Architectures: AdamW at its best rate, three seeds, and as
many steps as cost the same FLOPs (`model/count.py`) as the plain model's. The figure is the loss on files
that no run has seen, in bits a byte, all of them read. Runs that are there already are not run again, so
several processes can share the work: `--only adamw muon`, and at last without.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

PLAIN = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
CONTEXT, BATCH, VOCAB = 256, 8, 2048
RATES = {
    "adamw": (1e-3, 2e-3, 4e-3, 8e-3),
    "muon": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    "lion": (1e-4, 2e-4, 4e-4, 8e-4),
    "sophia": (5e-4, 1e-3, 2e-3, 4e-3),
    "adafactor": (2e-3, 4e-3, 8e-3, 1.6e-2),
}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "differential attention": {"attention": "diff"},
    "mixture of experts, 2 of 8": {"mlp": "moe"},
    "mixture of depths": {"depth": "mod"},
    "multi-token prediction": {"head": "mtp"},
    "plain, norm on embeddings": {"embedding_norm": "rmsnorm"},
    "differential attention, norm on embeddings": {"attention": "diff", "embedding_norm": "rmsnorm"},
}
SEEDS = (1, 2, 3)
PARTS = (*RATES, "architectures")


class Study:
    """Runs by name; what a run found is a line of results.jsonl."""

    def __init__(self, options: argparse.Namespace) -> None:
        from tinygpt.core.events import Events
        from tinygpt.runs import tokenize

        self.options, self.file = options, options.out / "results.jsonl"
        options.out.mkdir(parents=True, exist_ok=True)
        self.found: dict[str, dict[str, Any]] = {}
        if self.file.exists():
            rows = (json.loads(line) for line in self.file.read_text().splitlines())
            self.found = {row["name"]: row for row in rows}
        self.tokenizer = options.out / "tokenizer"
        self.corpus = {"corpus": (options.corpus,), "glob": "*.py", "exclude": ("site-packages",)}
        if not self.tokenizer.exists():
            tokenize.run(tokenize.Config(out=self.tokenizer, vocab_size=VOCAB, **self.corpus), Events())

    def run(self, name: str, optimizer: str, lr: float, seed: int, shape: dict[str, Any]) -> dict[str, Any]:
        """One training, unless it was done before."""
        if name in self.found:
            return self.found[name]
        from tinygpt.core.config import Pick, from_dict
        from tinygpt.core.events import Events, MemorySink, RunStarted
        from tinygpt.model import count
        from tinygpt.model.config import ModelConfig
        from tinygpt.runs import pretrain

        sizes = {**PLAIN, "max_position_embeddings": CONTEXT}
        plain = from_dict(ModelConfig, {**sizes, "vocab_size": VOCAB}, "plain")
        other = from_dict(ModelConfig, {**sizes, "vocab_size": VOCAB, **shape}, "shape")
        cost = count.flops_per_token(other, CONTEXT) / count.flops_per_token(plain, CONTEXT)
        steps = round(self.options.tokens / (BATCH * CONTEXT) / cost)
        sink, began = MemorySink(), time.perf_counter()
        config = pretrain.Config(
            out=self.options.out / f"run-{os.getpid()}", **self.corpus, tokenizer=str(self.tokenizer),
            steps=steps,
            batch=BATCH, context=CONTEXT, lr=lr, optimizer=Pick(optimizer), seed=seed, eval_batches=0,
            model={**PLAIN, **shape}, force=True, lock=False,
            schedule=Pick("cosine", {"warmup": 0.05, "final": 0.02}),
        )  # fmt: skip
        try:
            result = pretrain.run(config, Events(sink))
            loss, status = result.metrics["loss"], result.status
        except self.diverged() as error:
            loss, status = math.inf, str(error)
        facts = sink.of(RunStarted)[0].facts
        held = facts["held_out"]
        row = {
            "name": name, "optimizer": optimizer, "lr": lr, "seed": seed, "shape": shape, "steps": steps,
            "status": status, "parameters": facts["parameters"], "flops_share": cost, "loss": loss,
            "bits_per_byte": loss * held["tokens"] / held["bytes"] / math.log(2),
            "seconds": round(time.perf_counter() - began, 1),
        }  # fmt: skip
        self.found[name] = row
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{name}: {row['bits_per_byte']:.4f} bits a byte, {steps} steps, {row['seconds']:.0f} s",
            flush=True,
        )
        return row

    @staticmethod
    def diverged() -> type[Exception]:
        from tinygpt.core.errors import TinyGPTError

        return TinyGPTError

    def best_rate(self, optimizer: str) -> float:
        """The learning rate with the least loss; the grid grows while the best is at its edge."""
        rates = sorted(RATES[optimizer])
        while True:
            loss = {lr: self.run(f"{optimizer} {lr:g} 1", optimizer, lr, 1, {})["loss"] for lr in rates}
            best = min(rates, key=loss.__getitem__)
            if best not in (rates[0], rates[-1]):
                return best
            rates = sorted([*rates, best / 2 if best == rates[0] else best * 2])

    def optimizers(self, names: list[str]) -> list[tuple[str, list[dict[str, Any]]]]:
        """Each optimizer at its best rate, three seeds."""
        table = []
        for optimizer in names:
            lr = self.best_rate(optimizer)
            rows = [self.run(f"{optimizer} {lr:g} {seed}", optimizer, lr, seed, {}) for seed in SEEDS]
            table.append((f"{optimizer}, lr {lr:g}", rows))
        return table

    def architectures(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Each architecture with AdamW, three seeds."""
        lr = self.best_rate("adamw")
        return [
            # The plain ones are the optimizer's own three.
            (
                what,
                [
                    self.run(f"{what if shape else f'adamw {lr:g}'} {seed}", "adamw", lr, seed, shape)
                    for seed in SEEDS
                ],
            )
            for what, shape in SHAPES.items()
        ]


def show(title: str, table: list[tuple[str, list[dict[str, Any]]]]) -> None:
    """A Markdown table: mean and spread over the seeds."""
    print(f"\n| {title} | bits a byte | spread | steps | parameters | seconds |\n|---|---|---|---|---|---|")
    for what, rows in table:
        bits = [row["bits_per_byte"] for row in rows]
        seconds = statistics.mean(row["seconds"] for row in rows)
        spread = f"{min(bits):.3f} to {max(bits):.3f}"
        print(
            f"| {what} | {statistics.mean(bits):.3f} | {spread} | {rows[0]['steps']} "
            f"| {rows[0]['parameters']:,} | {seconds:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of *.py files")
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of the plain model")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    study = Study(options)
    if optimizers := [name for name in options.only if name in RATES]:
        show("optimizer", study.optimizers(optimizers))
    if "architectures" in options.only:
        show("architecture", study.architectures())


if __name__ == "__main__":
    main()
