"""The contestant of scripts/bench.py that is llama.cpp: one stream of the same weights in a GGUF file.

It takes part where `llama_cpp` (llama-cpp-python) and `gguf` are installed: neither is among our own tools,
since no wheel of the first fits every machine.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import time
from pathlib import Path

from bench_streams import LONG, PROMPT, Figures, best


def installed() -> bool:
    """Whether it can take part."""
    return all(importlib.util.find_spec(name) for name in ("llama_cpp", "gguf"))


def make_gguf(model: Path, path: Path) -> None:
    """A Llama-shaped directory of ours as a GGUF file in float32, without a vocabulary: prompts are ids."""
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    n_heads, n_kv = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for file in sorted(model.glob("*.safetensors")):
        for name, x in load_file(file).items():
            heads = {"q_proj": n_heads, "k_proj": n_kv}.get(name.split(".")[-2])
            if heads:  # its rotations take neighbours, ours the two halves of a head
                x = x.reshape(heads, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
            known = names.get_name(name, try_suffixes=(".weight",))
            assert known, f"GGUF has no name for {name}"
            writer.add_tensor(known, np.ascontiguousarray(x, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def single(model: Path) -> Figures:
    """One greedy stream, and a long prompt."""
    import llama_cpp
    import numpy as np

    n_threads = int(os.environ.get("OPENBLAS_NUM_THREADS") or os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.gguf"
        make_gguf(model, path)
        llm = llama_cpp.Llama(
            str(path), n_ctx=1024, n_batch=512, n_threads=n_threads, n_threads_batch=n_threads,
            logits_all=False, verbose=False,
        )  # fmt: skip

    def run(seed: int) -> Figures:
        def times(length: int, n: int) -> tuple[float, list[float]]:
            llm.reset()
            ids = np.random.default_rng(seed).integers(0, llm.n_vocab(), length).tolist()
            began, found = time.perf_counter(), list[float]()
            for _ in range(n):
                llm.eval(ids)
                ids = [llm.sample(temp=0.0)]
                found.append(time.perf_counter())
            return began, found

        _, found = times(PROMPT, 200)
        began, long = times(LONG, 2)
        return {
            "decode_tok_s": (len(found) - 1) / (found[-1] - found[0]),
            "prefill_tok_s": LONG / (long[0] - began),
        }

    return best(run)


CONTESTANTS = {"single-llama": single}
