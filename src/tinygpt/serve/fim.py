"""Filling in the middle: what stands before a gap and after it, in the tokens that a model has for it.

    prefix-suffix-middle   <PRE> before <SUF> after <MID>      Qwen, StarCoder, CodeGemma, Granite, CodeLlama
    suffix-prefix          [SUFFIX] after [PREFIX] before      Codestral
Paper: Bavarian et al. 2022, arXiv:2207.14255
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygpt.serve.fields import FieldError

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

# Before the prefix, before the suffix, before the answer.
SETS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder, CodeGemma, Granite 4
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite Code, StableCode
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"),  # CodeLlama
    ("<PRE>", "<SUF>", "<MID>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder
    ("[PREFIX]", "[SUFFIX]", ""),  # Codestral: the suffix comes first
)
# Where a model goes on beyond the gap.
ENDS = (
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|file_separator|>", "<|cursor|>", "<fim_pad>",
    "<file_sep>", "<reponame>", "<filename>", "\u2581<EOT>", "<EOT>",
)  # fmt: skip


def prompt(tokenizer: Tokenizer, before: str, after: str) -> tuple[list[int], frozenset[int]]:
    """Ids of the prompt, without bos, and the ids that end the answer beside the usual ones.

    FieldError where the tokenizer has no tokens for it."""
    special = tokenizer.special
    found = next((s for s in SETS if all(name in special for name in s if name)), None)
    if found is None:
        raise FieldError(
            "this model cannot fill in a gap before a 'suffix': its tokenizer has no tokens for it",
            param="suffix",
            hint="leave the suffix out, or use a model that was trained for it, as Qwen2.5-Coder",
        )
    first, second, middle = found
    head = tokenizer.encode_inside([before], after_control=True)[0]
    tail = tokenizer.encode_inside([after], after_control=False)[0]
    if middle:
        ids = [special[first], *head, special[second], *tail, special[middle]]
    else:
        ids = [special[second], *tail, special[first], *head]
    names = {*ENDS, *(name for name in found if name)}
    return ids, frozenset(special[name] for name in names if name in special)
