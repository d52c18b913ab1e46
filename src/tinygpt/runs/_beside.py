"""What a model's directory holds beside its weights, and how it goes along into a new one."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path

from tinygpt.core import files
from tinygpt.model import checkpoint
from tinygpt.runs import _pieces

# Configs of generation, tokenizers, templates and the licence. No code, and no model card, the old model's.
WITH_IT = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "chat_template.jinja",
    "chat_template.json", "LICENSE*", "NOTICE*",
)  # fmt: skip


def claim(out: Path, *, force: bool) -> None:
    """Refuse to write a model where something is; with `force` one of ours goes."""
    _pieces.refuse_inside(out.resolve().parent)
    files.refuse_existing(out, force=force, what="model", mark=checkpoint.MANIFEST, replaced={"": ()})


def copy(source: Path, folder: Path) -> None:
    """Copy what belongs to a model but its config and weights; links become files."""
    try:
        for path in sorted(p for p in source.iterdir() if p.is_file()):
            if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in WITH_IT):
                shutil.copyfile(path, folder / path.name)
    except OSError as error:
        raise files.unwritable(folder, error) from error
