"""The part of `eval-bfcl` that runs in BFCL's own environment: its runner and scorer, with our model known.

    python -I _bfcl_harness.py plan|generate|evaluate SETTINGS.json

It imports nothing of tinygpt. BFCL's registry imports the client of every vendor; here a registry that knows
one model takes its place, so the environment needs a quarter of the packages. Runner, scorer, questions and
simulated back ends are BFCL's, unchanged but for this: an answer that did not come is wrong where calling
nothing would be right (`irrelevance`), and the spread of one single latency is 0.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
import sys
import threading
import types
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FAILED = "Error during inference"  # how BFCL's runner begins the result of an answer that did not come
THOUGHT = re.compile(r"^.*?</think(?:ing)?>", re.DOTALL)


def register(settings: dict[str, Any]) -> None:
    """Put a registry with our model alone where BFCL looks for its own."""
    registry: Any = types.ModuleType("bfcl_eval.constants.model_config")
    registry.MODEL_CONFIG_MAPPING = {}
    sys.modules[registry.__name__] = registry
    registry.MODEL_CONFIG_MAPPING[settings["name"]] = SimpleNamespace(
        model_name=settings["model"], display_name=settings["name"], url="", org="", license="",
        model_handler=handler(settings), input_price=None, output_price=None,
        is_fc_model=settings["native"], underscore_to_dot=settings["native"],
    )  # fmt: skip


def handler(settings: dict[str, Any]) -> Any:
    """BFCL's handler of /v1/chat/completions, with our bounds, that says how answers ended."""
    base: Any = import_module("bfcl_eval.model_handler.api_inference.openai_completion")
    ended = threading.local()  # one example is answered in one thread

    class Handler(base.OpenAICompletionsHandler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.model_name_underline_replaced = "tinygpt"  # is evaluated as part of a Python name

        def _build_client_kwargs(self) -> dict[str, Any]:
            return {
                "base_url": settings["url"], "api_key": os.environ.get("OPENAI_API_KEY") or "none",
                "timeout": settings["seconds"], "max_retries": settings["tries"] - 1,
            }  # fmt: skip

        def generate_with_backoff(self, **kwargs: Any) -> Any:
            """Without BFCL's own endless waiting where a server says 429: the client tries again, then it
            is an error."""
            if settings["max_tokens"]:
                kwargs["max_tokens"] = settings["max_tokens"]
            if not settings["show_tools"]:
                kwargs.pop("tools", None)
            answer = base.OpenAICompletionsHandler.generate_with_backoff.__wrapped__(self, **kwargs)
            ended.reasons.append(answer[0].choices[0].finish_reason)
            return answer

        def _parse_query_response_prompting(self, api_response: Any) -> dict[str, Any]:
            found = super()._parse_query_response_prompting(api_response)
            return {**found, "model_responses": THOUGHT.sub("", found["model_responses"] or "").strip()}

        def inference(self, *args: Any, **kwargs: Any) -> Any:
            ended.reasons = []
            result, told = super().inference(*args, **kwargs)
            return result, {**told, "finish_reasons": ended.reasons}

    return Handler


def plan(settings: dict[str, Any]) -> dict[str, Any]:
    """The examples of each category that are asked, and those that must be asked before them."""
    data: Any = import_module("bfcl_eval.utils")
    listed: dict[str, Any] = {}
    asked: dict[str, list[str]] = {}
    for category in settings["categories"]:
        entries = {one["id"]: one for one in data.load_dataset_entry(category)}
        scored = [name for name in entries if "prereq" not in name]
        if settings["classes"]:
            wanted = set(settings["classes"])
            scored = [n for n in scored if set(entries[n].get("involved_classes") or ["?"]) <= wanted]
        chosen = scored[: settings["limit"] or None]
        before = {name for one in chosen for name in entries[one].get("depends_on", ())}
        asked[category] = [name for name in entries if name in before or name in set(chosen)]
        texts = [json.dumps(entries[name], sort_keys=True, default=str) for name in chosen]
        if not data.is_relevance_or_irrelevance(category):
            texts.append(json.dumps(data.load_ground_truth_entry(category), sort_keys=True, default=str))
        listed[category] = {
            "ids": chosen, "before": sorted(before), "n_all": len(scored),
            "group": data.get_general_grouping(category),
            "data_version": hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12],
        }  # fmt: skip
    if settings["limit"] or settings["classes"]:
        subset: Any = import_module("bfcl_eval.constants.eval_config").TEST_IDS_TO_GENERATE_PATH
        subset.write_text(json.dumps(asked))
    return {"version": metadata.version("bfcl-eval"), "categories": listed}


def generate(settings: dict[str, Any]) -> None:
    """Ask; results that are there already are kept."""
    register(settings)
    import_module("bfcl_eval._llm_response_generation").main(
        SimpleNamespace(
            model=[settings["name"]], test_category=settings["categories"],
            temperature=settings["temperature"], include_input_log=False, exclude_state_log=False,
            num_gpus=0, num_threads=settings["threads"], gpu_memory_utilization=0.0, backend="none",
            skip_server_setup=True, local_model_path=None, result_dir=None, allow_overwrite=False,
            run_ids=bool(settings["limit"] or settings["classes"]), enable_lora=False, max_lora_rank=None,
            lora_modules=None,
        )
    )  # fmt: skip


def evaluate(settings: dict[str, Any]) -> None:
    """Score what was answered."""
    register(settings)
    runner: Any = import_module("bfcl_eval.eval_checker.eval_runner")
    helper: Any = import_module("bfcl_eval.eval_checker.eval_runner_helper")
    official = runner._evaluate_single_relevance_entry

    def one(handler: Any, index: Any, result: Any, prompt: Any, model: Any, category: Any) -> Any:
        if not (isinstance(result, str) and result.startswith(FAILED)):
            return official(handler, index, result, prompt, model, category)
        return {"id": index, "valid": False, "error": [result], "error_type": "inference_error"}

    runner._evaluate_single_relevance_entry = one
    helper.statistics = SimpleNamespace(
        mean=statistics.mean, stdev=lambda found: statistics.stdev(found) if len(found) > 1 else 0.0
    )
    runner.main([settings["name"]], settings["categories"], None, None, partial_eval=True)


def main() -> None:
    action, path = sys.argv[1:]
    settings = json.loads(Path(path).read_text(encoding="utf-8"))
    os.environ["BFCL_PROJECT_ROOT"] = str(Path(path).resolve().parent)
    if action == "plan":
        sys.stdout.write(json.dumps(plan(settings)) + "\n")
    else:
        {"generate": generate, "evaluate": evaluate}[action](settings)


if __name__ == "__main__":
    main()
