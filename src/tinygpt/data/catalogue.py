"""Known data sets of the Hugging Face hub: what each is for, its rows, its licence, and who may fetch it.

Sizes are rough, of the files. Licences and gating are those of the repositories' own pages, as far as we know
them; `download-dataset` reads them anew and records what it finds. `map` names the columns of rows that are
of no known shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinygpt.core.errors import ConfigError, nearest, unknown
from tinygpt.data.recognise import FORMATS, Format

KINDS = {
    "tool-calling": ("tools", "tool", "function-calling", "functions", "agent"),
    "debugger": ("debug", "debugging", "bugs", "bug-fixing"),
    "code": ("coding", "coder", "programming"),
    "math": ("maths", "mathematics"),
    "reasoning": ("reason", "cot", "thinking"),
    "instruct": ("instruction", "instructions", "chat", "assistant"),
    "preference": ("preferences", "dpo", "alignment"),
    "general": ("pretraining", "text", "base"),
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A data set. `row` are its columns as a row has them, `gated` how its owners let people in."""

    id: str
    kinds: tuple[str, ...]
    format: Format
    size: str
    licence: str
    row: str
    note: str = ""
    gated: str = ""
    config: str = ""
    map: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """Where people read about it."""
        return f"https://huggingface.co/datasets/{self.id}"


def _entry(
    id: str, kinds: str, format: Format, size: str, licence: str, row: str, note: str = "", **more: str
) -> Entry:
    pairs = tuple(more.pop("map", "").split())
    return Entry(
        id=id, kinds=tuple(kinds.split()), format=format, size=size, licence=licence, row=row, note=note,
        map=pairs, **more,
    )  # fmt: skip


_MESSAGES = "{messages: [{role, content}]}"
_SHAREGPT = "{conversations: [{from, value}]}"
ENTRIES = (
    _entry("Salesforce/xlam-function-calling-60k", "tool-calling", "sft", "80 MB", "CC-BY-4.0",
           "{id, query, answers: JSON text, tools: JSON text}",
           "the original's list has CC BY-NC 4.0; agree to its terms on its page", gated="auto"),
    _entry("NousResearch/hermes-function-calling-v1", "tool-calling instruct", "sft", "200 MB", "Apache-2.0",
           "{id, conversations: [{from, value}], tools?, category}", "several configs: --config-name",
           config="func_calling"),
    _entry("Locutusque/function-calling-chatml", "tool-calling", "sft", "60 MB", "Apache-2.0",
           "{system_message, function_description, conversations: [{from, value}]}"),
    _entry("princeton-nlp/SWE-bench_Verified", "debugger", "plain", "50 MB", "MIT",
           "{repo, instance_id, problem_statement, patch, test_patch, ...}",
           "for evaluation: do not train on it", map="text=problem_statement"),
    _entry("princeton-nlp/SWE-bench", "debugger", "sft", "3 GB", "MIT",
           "{repo, instance_id, problem_statement, patch, test_patch, ...}",
           map="instruction=problem_statement response=patch"),
    _entry("bigcode/commitpack", "debugger code", "sft", "4 TB", "MIT",
           "{commit, subject, message, old_contents, new_contents, lang, license, ...}",
           "each row names its own licence; a config for each language",
           map="instruction=subject input=old_contents response=new_contents"),
    _entry("bigcode/the-stack-smol", "code", "plain", "250 MB", "per file",
           "{content, lang, ext, size, licenses, ...}", "agree to its terms on its page", gated="auto"),
    _entry("open-r1/codeforces-cots", "code reasoning", "sft", "1.5 GB", "CC-BY-4.0",
           "{id, title, description, prompt, generation, messages, ...}",
           "the original's list has Apache-2.0; several configs", config="solutions"),
    _entry("iamtarun/python_code_instructions_18k_alpaca", "code instruct", "sft", "12 MB", "Apache-2.0",
           "{instruction, input, output, prompt}", "the original's licence; its page names none"),
    _entry("nvidia/OpenMathReasoning", "math reasoning", "sft", "1 GB", "CC-BY-4.0",
           "{problem, generated_solution, expected_answer, problem_type, ...}", "splits: cot, tir, genselect",
           map="instruction=problem response=generated_solution"),
    _entry("AI-MO/NuminaMath-CoT", "math reasoning", "sft", "800 MB", "Apache-2.0",
           "{source, problem, solution, messages: [{role, content}]}"),
    _entry("meta-math/MetaMathQA", "math", "sft", "200 MB", "MIT",
           "{query, response, type, original_question}"),
    _entry("open-thoughts/OpenThoughts-114k", "reasoning", "sft", "3 GB", "Apache-2.0",
           "{system, conversations: [{from, value}]}"),
    _entry("open-thoughts/OpenThoughts2-1M", "reasoning", "sft", "30 GB", "Apache-2.0", _SHAREGPT),
    _entry("teknium/OpenHermes-2.5", "instruct", "sft", "1.6 GB", "other", _SHAREGPT,
           "written by other models, under their makers' terms"),
    _entry("HuggingFaceH4/ultrachat_200k", "instruct", "sft", "1.2 GB", "MIT",
           "{prompt, prompt_id, messages: [{role, content}]}",
           "splits: train_sft, test_sft, train_gen, test_gen"),
    _entry("yahma/alpaca-cleaned", "instruct", "sft", "25 MB", "CC-BY-4.0", "{instruction, input, output}",
           "the original's list has CC BY-NC 4.0"),
    _entry("argilla/ultrafeedback-binarized-preferences-cleaned", "preference", "dpo", "200 MB", "MIT",
           "{prompt, chosen: [{role, content}], rejected: [...], ...}"),
    _entry("HuggingFaceH4/ultrafeedback_binarized", "preference", "dpo", "250 MB", "MIT",
           "{prompt, chosen: [{role, content}], rejected: [...], messages, ...}",
           "splits: train_prefs, test_prefs, train_sft, ..."),
    _entry("Intel/orca_dpo_pairs", "preference", "dpo", "50 MB", "Apache-2.0",
           "{system, question, chosen, rejected}"),
    _entry("roneneldan/TinyStories", "general", "plain", "1 GB", "CDLA-Sharing-1.0", "{text}"),
    _entry("HuggingFaceFW/fineweb-edu", "general", "plain", "1.3 TB", "ODC-By", "{text, id, url, score, ...}",
           "begin with --config-name sample-10BT, and --max-files 1", config="sample-10BT"),
)  # fmt: skip


def kind(name: str) -> str:
    """The kind that a name or one of its aliases means; ConfigError with the nearest names."""
    plain = name.lower().replace("_", "-")
    for found, aliases in KINDS.items():
        if plain == found or plain in aliases:
            return found
    raise unknown("kind of specialist", name, [*KINDS, *(a for aliases in KINDS.values() for a in aliases)])


def find(id: str) -> Entry:
    """The entry of an id, whatever its case, or of its last part; ConfigError with the nearest names."""
    plain = id.removeprefix("hf://datasets/").lower()
    named = [e for e in ENTRIES if plain in (e.id.lower(), e.id.lower().partition("/")[2])]
    if not named:
        parts = {e.id.partition("/")[2]: e.id for e in ENTRIES}
        close = [name for part, name in parts.items() if plain in part.lower()]
        raise ConfigError(
            f"unknown data set '{id}'.{nearest(id, [*parts, *parts.values()])}",
            hint=f"{', '.join(close)}" if close else "tinygpt list-datasets names them all",
        )
    return named[0]


def known(repo: str) -> Entry | None:
    """The entry of a repository; None where it is not in the list."""
    return next((e for e in ENTRIES if e.id.lower() == repo.lower()), None)


def listed(specialist: str = "", format: str = "") -> Sequence[Entry]:
    """The entries for a kind of specialist and in a format; all where neither is said."""
    wanted = kind(specialist) if specialist else ""
    if format and format not in FORMATS:
        raise unknown("format", format, FORMATS)
    return [e for e in ENTRIES if wanted in ("", *e.kinds) and format in ("", e.format)]
