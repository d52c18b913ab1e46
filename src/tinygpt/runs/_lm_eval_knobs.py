"""Settings of answers in lm-eval's tasks (`--gen-kwargs`), checked before anything is loaded.

A server ignores a setting that it does not know, and so does `generate_until` of a task that writes nothing:
a misspelt one would be a measurement of something else."""

from __future__ import annotations

from typing import Any

from tinygpt.core.errors import ConfigError, DependencyError, nearest
from tinygpt.runs._lm_eval_model import KNOBS, NEUTRAL

# What lm-eval reads itself: the longest answer by the names it has, what ends one, how it is drawn.
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
OWN = (*LENGTHS, "until", "do_sample", "temperature")
# OpenAI's API, and what vLLM, SGLang, llama.cpp, Ollama and mlx-lm take besides.
SERVED = (
    "top_p", "top_k", "min_p", "typical_p", "frequency_penalty", "presence_penalty", "repetition_penalty",
    "repeat_penalty", "repeat_last_n", "repetition_context_size", "seed", "stop", "n", "best_of",
    "logit_bias", "user", "reasoning_effort", "reasoning", "verbosity", "response_format",
    "chat_template_kwargs",
    "min_tokens", "stop_token_ids", "ignore_eos", "skip_special_tokens", "spaces_between_special_tokens",
    "include_stop_str_in_output", "no_stop_trim", "truncate_prompt_tokens", "guided_json", "guided_regex",
    "guided_choice", "guided_grammar", "structured_outputs", "regex", "json_schema", "ebnf", "grammar",
    "mirostat", "mirostat_tau", "mirostat_eta", "dry_multiplier", "dry_base", "dry_allowed_length",
    "xtc_probability", "xtc_threshold", "dynatemp_range", "dynatemp_exponent", "n_probs", "cache_prompt",
    "num_ctx", "num_predict", "keep_alive", "think", "service_tier", "store", "metadata",
)  # fmt: skip


def parse(given: str, backend: str) -> dict[str, Any]:
    """The settings of a text such as "temperature=0.7,top_p=0.9", as lm-eval reads it; ConfigError where one
    is none of `backend` (lm-eval's name of what answers)."""
    from lm_eval.utils import simple_parse_args_string

    parts = [part for part in given.split(",") if part.strip()]
    if bad := next((part for part in parts if not all(part.partition("="))), None):
        hint = "write it as temperature=0.7,top_p=0.9"
        raise ConfigError(f"--gen-kwargs: '{bad}' is no setting", hint=hint)
    knobs: dict[str, Any] = simple_parse_args_string(",".join(part.strip() for part in parts))
    known = names(backend) if knobs else ()
    for name in knobs:
        if name not in known:
            raise ConfigError(
                f"--gen-kwargs: generation has no setting '{name}'.{nearest(name, known)}",
                hint=f"it has temperature, max_gen_toks, {', '.join(KNOBS)}",
            )
    return knobs


def names(backend: str) -> tuple[str, ...]:
    """Every setting that a backend's answers have."""
    if backend == "tinygpt":
        return (*OWN, *KNOBS, *NEUTRAL)
    if backend != "hf":
        return (*OWN, *SERVED)
    try:
        from transformers import GenerationConfig
    except ImportError as error:
        raise DependencyError("torch and transformers", "test-parity", "--hf-model") from error
    told: dict[str, Any] = GenerationConfig().to_dict()
    return (*OWN, *told)
