"""A family of techniques: a folder is the registry, a file is a technique, its name is the public name.

Nothing is listed twice. `names()` and `summary()` read the folder and the first lines without importing, so
that `--help` stays fast; `load()` imports one file and checks that it offers the family's verb."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from tinygpt.core.errors import unknown

# What one technique of a family is called, where its folder's name does not say it.
NOUNS = {
    "builtin": "built-in tool", "optim": "optimizer", "peft": "adapter", "pii": "recogniser",
    "preference": "loss type", "sample": "sampling rule", "suites": "suite", "tools": "executor",
}  # fmt: skip


@dataclass(frozen=True)
class Technique:
    """What a technique file says about itself in its docstring."""

    name: str
    summary: str
    body: str
    paper: str
    differs: str


@dataclass(frozen=True)
class Family:
    """The techniques found in a package, for example Family("tinygpt.train.optim", verb="build")."""

    package: str
    verb: str = "build"

    @cached_property
    def folder(self) -> Path:
        # A submodule search imports the parent package only; package __init__ files are kept empty for this.
        spec = importlib.util.find_spec(self.package)
        assert spec is not None and spec.submodule_search_locations, f"no package {self.package}"
        return Path(next(iter(spec.submodule_search_locations)))

    @property
    def kind(self) -> str:
        return self.package.rsplit(".", 1)[-1]

    @property
    def noun(self) -> str:
        """What one of its techniques is called: "optimizer"."""
        return NOUNS.get(self.kind, self.kind)

    def names(self) -> list[str]:
        """Public names, sorted: files and sub-packages whose name does not start with an underscore."""
        files = [p.stem for p in self.folder.glob("*.py")]
        packages = [p.parent.name for p in self.folder.glob("*/__init__.py")]
        return sorted(n for n in files + packages if not n.startswith("_"))

    def path(self, name: str) -> Path:
        """The source file of a technique; ConfigError with the nearest names when there is none."""
        for candidate in (self.folder / f"{name}.py", self.folder / name / "__init__.py"):
            if name.isidentifier() and candidate.is_file() and not name.startswith("_"):
                return candidate
        raise unknown(self.noun, name, self.names())

    def summary(self, name: str) -> str:
        """Line 1 of the file, without importing it."""
        with self.path(name).open(encoding="utf-8") as file:
            return file.readline().strip().strip('"').strip()

    def describe(self, name: str) -> Technique:
        """The docstring in parts: summary, body, the `Paper:` and the `Differs:` paragraph."""
        text = ast.get_docstring(ast.parse(self.path(name).read_text(encoding="utf-8"))) or ""
        summary, _, rest = text.partition("\n")
        parts: dict[str, list[str]] = {"body": [], "Paper": [], "Differs": []}
        where = "body"
        for line in rest.splitlines():
            head = line.split(":", 1)[0]
            if head in ("Paper", "Differs") and ":" in line:
                where, line = head, line.split(":", 1)[1].strip()
            elif not line.strip():
                where = "body"
            parts[where].append(line)
        joined = {key: "\n".join(value).strip() for key, value in parts.items()}
        return Technique(name, summary.strip(), joined["body"], joined["Paper"], joined["Differs"])

    def load(self, name: str) -> ModuleType:
        """Import one technique. A file without the family's verb is a bug of ours, not of the user."""
        self.path(name)
        module = importlib.import_module(f"{self.package}.{name}")
        assert hasattr(module, self.verb), f"{self.package}.{name} lacks the verb '{self.verb}'"
        return module

    def config(self, name: str) -> Any:
        """The technique's Config class, or None when it has no knobs."""
        return getattr(self.load(name), "Config", None)
