"""Teachers of a distillation: opened, checked against the student, and named by what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.tokenizer import hf
from tinygpt.distill.signal import LocalTeacher, Teacher
from tinygpt.model import checkpoint
from tinygpt.runs import _pieces, _reference

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A teacher, the hashes of what it is made of by their names, and what a run tells of it."""

    teacher: Teacher
    inputs: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


def opened(path: Path, adapters: Sequence[Path], tokenizer: Tokenizer, events: Events) -> Taught:
    """A model of this machine, with adapters on it. ConfigError where its tokens are not the student's."""
    loaded, own = _pieces.open_model(path, adapters, events=events)
    _refuse_other(path, own, tokenizer)
    facts = {"teacher_parameters": _pieces.n_parameters(loaded.model)}
    return Taught(
        teacher=LocalTeacher(loaded.model, loaded.config.vocab_size),
        inputs={"the teacher": _hash(loaded.path, adapters)},
        facts=facts,
    )


def identity(path: Path, adapters: Sequence[Path], tokenizer: Tokenizer) -> str:
    """The hash of what `opened` would open, which is not opened; ConfigError as there."""
    where = _pieces.model_path(path)
    _refuse_other(path, hf.load(where), tokenizer)
    return _hash(where, adapters)


def _hash(path: Path, adapters: Sequence[Path]) -> str:
    who = checkpoint.identity(path)
    return who + "".join(_reference.adapter_hash(_pieces.model_path(adapter)) for adapter in adapters)


def _refuse_other(path: Path, own: Tokenizer, tokenizer: Tokenizer) -> None:
    if not same_tokens(own, tokenizer):
        raise ConfigError(
            f"the teacher {path} has another tokenizer than the student",
            hint="choose a teacher of the same family, or train the student with --tokenizer of the teacher",
        )


def same_tokens(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers give every text the same ids; their templates may differ."""
    return one.hash == other.hash
