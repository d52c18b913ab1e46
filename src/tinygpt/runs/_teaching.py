"""Settings of runs that learn from a teacher: who it is, and whether its word is kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError

AUTO = Path("auto")


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Who teaches, and how it is kept."""

    teacher: Annotated[Path | None, "Model to learn from: a model, run or specialist directory."] = None
    teacher_adapter: Annotated[tuple[Path, ...], "Adapter that the teacher wears; may be repeated."] = ()
    teacher_url: Annotated[
        str, "In place of --teacher, an OpenAI-compatible server, such as http://host:8000/v1."
    ] = ""
    teacher_model: Annotated[str, "The server's name for the teacher; not given: the first it lists."] = ""
    cache_teacher: Annotated[
        Path | None,
        "Ask the teacher once, before training, and keep its likeliest tokens in this folder; auto: in "
        "tinygpt's own cache. A cache that has all rows needs no teacher.",
    ] = None
    top_k: Annotated[int, "Tokens of a place that the cache keeps."] = 64
    cache_only: Annotated[bool, "Fill the cache, and end before training."] = False

    def check_teacher(self, loss: str) -> None:
        """Refuse settings of teachers that do not go together; a server's word is always kept."""
        if self.teacher and self.teacher_url:
            raise ConfigError("--teacher and --teacher-url are two teachers", hint="leave one of them out")
        if self.teacher_url and self.cache_teacher is None:
            object.__setattr__(self, "cache_teacher", AUTO)
        needs = {"top_k": "cache_teacher", "cache_only": "cache_teacher", "teacher_model": "teacher_url"}
        refuse_idle(self, {**needs, "teacher_adapter": "teacher"})
        if self.top_k < 1:
            raise ConfigError(f"--top-k must be at least 1, got {self.top_k}")
        if self.cache_teacher is not None and loss == "hard":
            raise ConfigError(
                "--loss hard asks for one token, and a cache may find all the others together likelier",
                hint="choose another --loss, or leave --cache-teacher out",
            )
