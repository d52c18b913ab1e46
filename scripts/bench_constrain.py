"""What a constraint costs: time of its mask, its way to the device and its `where`, against a decode step.

    python scripts/bench_constrain.py [--vocab 150000] [--layers 8] [--width 512]

The vocabulary is synthetic: byte-level, with random words and runs of punctuation up to its size. The model
is a drawn one; its output matrix is as wide as the vocabulary, so the step is a realistic one for its size.
Process time is shown too, for machines that are busy with something else.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygpt.core.backend import mx
from tinygpt.data.tokenizer._files import byte_letters
from tinygpt.data.tokenizer.hf import HFTokenizer
from tinygpt.infer.batch import unpacked
from tinygpt.infer.constrained import constraint
from tinygpt.infer.decode import Decoder, fixed_step
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 60}, "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string"}}, "kind": {"enum": ["a", "b", "c"]},
    },
    "required": ["name", "age", "tags", "kind"],
}  # fmt: skip


def vocabulary(size: int) -> HFTokenizer:
    """A byte-level tokenizer of this size."""
    rng, letters = random.Random(0), byte_letters()
    words = dict.fromkeys(letters[b] for b in range(256))
    while len(words) < size - 1:
        kind = rng.random()
        alphabet = "abcdefghijklmnopqrstuvwxyz" if kind < 0.8 else '{}[]":,.;()<>=/_-0123456789'
        word = "".join(rng.choices(alphabet, k=rng.randint(2, 9)))
        words["".join(letters[b] for b in (" " * (rng.random() < 0.5) + word).encode())] = None
    vocab = {word: i for i, word in enumerate(words)}
    end = {"id": size - 1, "content": "</s>", "special": True, "single_word": False, "lstrip": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": vocab | {"</s>": size - 1}, "merges": []}
    definition = {
        "version": "1.0", "model": model, "pre_tokenizer": byte_level, "decoder": byte_level,
        "added_tokens": [{**end, "rstrip": False, "normalized": False}],
    }  # fmt: skip
    return HFTokenizer(definition, {"tokenizer_config.json": {"eos_token": "</s>"}})


def timed(work: Callable[[], Any], n: int = 20) -> tuple[float, float]:
    """Median wall and mean process milliseconds."""
    walls, start = [], time.process_time()
    for _ in range(n):
        begun = time.perf_counter()
        work()
        walls.append(time.perf_counter() - begun)
    return statistics.median(walls) * 1e3, (time.process_time() - start) / n * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in {"vocab": 150_000, "layers": 8, "width": 512}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    tokenizer = vocabulary(args.vocab)
    begun = time.perf_counter()
    constraint("schema", SCHEMA, tokenizer)
    found: dict[str, Any] = {"vocab": args.vocab, "bridge_s": round(time.perf_counter() - begun, 2)}
    config = ModelConfig(
        vocab_size=args.vocab, hidden_size=args.width, num_hidden_layers=args.layers,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=512,
    )  # fmt: skip
    model = initialize(LM(config), 0)
    decoder = Decoder(model, [0], fixed_step(model))
    logits_BV = decoder.read(mx.array([[1, 2, 3]]), last=1)[:, -1]

    def step() -> None:
        mx.eval(decoder.step(mx.array([5])))

    step()
    found["step_ms"] = timed(step)

    rng, masks = random.Random(1), []
    for _ in range(6):
        own = constraint("schema", SCHEMA, tokenizer)
        for _ in range(60):
            begun, used = time.perf_counter(), time.process_time()
            mask = own.mask()
            ids = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
            masks.append((time.perf_counter() - begun, time.process_time() - used))
            id = int(ids[rng.randrange(len(ids))])
            if id == tokenizer.eos_id:
                break
            own.take(id)
    walls = sorted(wall for wall, _ in masks)
    found["mask_ms"] = (statistics.median(walls) * 1e3, sum(used for _, used in masks) / len(masks) * 1e3)
    found["mask_ms_p99"] = walls[int(0.99 * len(walls))] * 1e3
    packed = mask[None]
    found["apply_ms"] = timed(lambda: mx.eval(mx.where(unpacked(packed, args.vocab), logits_BV, -mx.inf)))
    found["overhead"] = (found["mask_ms"][1] + found["apply_ms"][1]) / found["step_ms"][1]
    print(json.dumps({k: [round(x, 3) for x in v] if isinstance(v, tuple) else v for k, v in found.items()}))


if __name__ == "__main__":
    main()
