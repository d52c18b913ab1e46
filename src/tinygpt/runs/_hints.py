"""Hints of a distillation: their settings, and how what they learn is kept out of the student's files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import Pick, refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family
from tinygpt.data.source import chat
from tinygpt.distill.hint._points import Hint, shapes
from tinygpt.distill.signal import LocalTeacher
from tinygpt.runs._conversations import Conversations
from tinygpt.runs._learned import Resume, Write

HINTS = Family("tinygpt.distill.hint")


@dataclass(frozen=True, kw_only=True)
class Hinted(Conversations):
    """Settings of what a student learns beside distributions: layers, and reasons."""

    hint: Annotated[
        Pick | None, "What of the teacher's layers the student's should be like; not given: nothing.", HINTS
    ] = None
    hint_weight: Annotated[float, "Weight of the hint beside the loss."] = 1.0
    rationale_weight: Annotated[
        float,
        "Learn the reasons of rows that give them as a second task, each token with this weight beside an "
        "answer's 1; 0: leave them (Distilling Step-by-Step).",
    ] = 0.0
    rationale_field: Annotated[str, "Field of a row that holds its reasons."] = "rationale"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_idle(self, {"hint_weight": "hint", "rationale_field": "rationale_weight"})
        if not self.hint_weight > 0:
            raise ConfigError(
                f"--hint-weight must be positive, got {self.hint_weight:g}", hint="leave --hint out"
            )
        if self.rationale_weight < 0:
            raise ConfigError(f"--rationale-weight must not be negative, got {self.rationale_weight:g}")
        if 0 < self.rationale_weight < self.prompt_weight:
            raise ConfigError(
                "--prompt-weight above --rationale-weight: prompts would count more than reasons",
                hint="lower --prompt-weight",
            )
        if not self.rationale_field:
            raise ConfigError("--rationale-field is empty", hint="name the field of a row that holds reasons")
        if self.hint is not None and self.grad_checkpoint:
            raise ConfigError(
                "--hint looks into blocks, and --grad-checkpoint keeps nothing of them", hint="leave one out"
            )

    def rows(self) -> chat.Config:
        found = super().rows()
        if self.rationale_weight <= 0:
            return found
        return replace(found, rationale=self.rationale_field, rationale_weight=self.rationale_weight)

    def hinted(self, model: Any, teacher: Any, seed: int) -> Hint | None:
        """The hint between these two, whose teacher shows what it compares; what it learns is now a part
        "hints" of the student. ConfigError where they cannot be compared."""
        if self.hint is None:
            return None
        if not isinstance(teacher, LocalTeacher):
            raise ConfigError(
                "--hint compares layers token by token, so the teacher must be a model of this machine with "
                "the student's tokenizer",
                hint="leave --hint out, or choose another teacher",
            )
        build = HINTS.load(self.hint.name).build
        hint: Hint = build(self.hint.options, shapes(model), shapes(teacher.model), seed=seed)
        teacher.points = hint.points[1]
        if hint.projections is not None:
            model[PART] = hint.projections
        return hint


PART = "hints"


def without(model: Any, write: Write, resume: Resume) -> tuple[Write, Resume]:
    """The same two for a student with hints, which they neither write nor look for."""

    def bare(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **more: Any) -> Any:
            hints = model.pop(PART, None)
            try:
                return call(*given, **more)
            finally:
                if hints is not None:
                    model[PART] = hints

        return called

    def write_bare(path: Path, **parts: Any) -> Path:
        return bare(write)(path, **parts)

    def resume_bare(path: Path) -> None:
        bare(resume)(path)

    return write_bare, resume_bare
