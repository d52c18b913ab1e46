"""Teachers of a distillation: opened, checked against the student, and named by what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.tokenizer import hf
from tinygpt.distill.aligned import AlignedTeacher, Vocabularies
from tinygpt.distill.reread import Reader, Reading
from tinygpt.distill.signal import LocalTeacher, Teacher
from tinygpt.model import checkpoint
from tinygpt.runs import _pieces, _reference
from tinygpt.train.update import Rewrite

SOME = 4  # batches over which a share is measured

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A teacher, the hashes of what it is made of by their names, and what a run tells of it."""

    teacher: Teacher | None
    inputs: dict[str, str] = field(default_factory=dict[str, str])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    reader: Reader | None = None
    """How batches are read in the teacher's own tokens; None: they are the student's."""

    def reading(self, source: Any) -> Any:
        """A source (or None) as the teacher needs it."""
        return source if self.reader is None or source is None else Reading(source, self.reader)

    def rewriting(self, rewrite: Rewrite) -> Rewrite:
        """What makes the batches of steps, as the teacher needs them."""
        reader = self.reader
        return rewrite if reader is None else lambda batch, step: reader(rewrite(batch, step))

    def told(self, source: Any) -> dict[str, Any]:
        """The facts, with the share of places at which both have read the same where tokenizers differ."""
        if self.reader is None:
            return self.facts
        share = Reading(source, self.reader).share(min(len(source), SOME))
        return self.facts | {"aligned": round(share, 4)}


def given(config: Any, tokenizer: Tokenizer, events: Events, *, n_own: int) -> Taught:
    """The teacher that a distillation's settings name; none where they name none."""
    if config.teacher is None:
        return Taught(teacher=None)
    return opened(config.teacher, config.teacher_adapter, tokenizer, events, n_own=n_own)


def opened(
    path: Path, adapters: Sequence[Path], tokenizer: Tokenizer, events: Events, *, n_own: int
) -> Taught:
    """A model of this machine, with adapters on it; where its tokens are not the student's, whose output
    matrix has `n_own` rows, it reads the text in its own. ConfigError where that cannot be."""
    loaded, own = _pieces.open_model(path, adapters, events=events)
    who = {"the teacher": _hash(loaded.path, adapters)}
    facts: dict[str, Any] = {"teacher_parameters": _pieces.n_parameters(loaded.model)}
    n_other = loaded.config.vocab_size
    if same_tokens(own, tokenizer):
        return Taught(teacher=LocalTeacher(loaded.model, n_other), inputs=who, facts=facts)
    reader = Reader(tokenizer, own, longest=loaded.config.reach)
    words = Vocabularies(tokenizer, own, n_own=n_own, n_other=n_other)
    facts |= {"shared_tokens": words.n_shared, "teacher_tokens": own.vocab_size}
    return Taught(teacher=AlignedTeacher(loaded.model, words), inputs=who, facts=facts, reader=reader)


def identity(path: Path, adapters: Sequence[Path], tokenizer: Tokenizer) -> str:
    """The hash of what `opened` would open, which is not opened. ConfigError where its tokens are not the
    student's: a cache holds these."""
    where = _pieces.model_path(path)
    if not same_tokens(hf.load(where), tokenizer):
        raise ConfigError(
            f"--cache-teacher: {path} has another tokenizer than the student",
            hint="leave --cache-teacher out: such a teacher reads the text anew at each step",
        )
    return _hash(where, adapters)


def _hash(path: Path, adapters: Sequence[Path]) -> str:
    who = checkpoint.identity(path)
    return who + "".join(_reference.adapter_hash(_pieces.model_path(adapter)) for adapter in adapters)


def same_tokens(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers give every text the same ids; their templates may differ."""
    return one.hash == other.hash
