"""What answers may be: the settings --grammar, --json-schema, --regex and --choices."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinygpt.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.request import Constraint

SIZE = 1 << 20  # bytes of a file that is read


@dataclass(frozen=True, kw_only=True)
class Constrained:
    """What an answer must be; at most one of them."""

    grammar: Annotated[
        Path | None, "A file that answers follow: a grammar in Lark or GBNF, or a JSON Schema."
    ] = None
    json_schema: Annotated[Path | None, "A JSON Schema that answers are valid under."] = None
    regex: Annotated[str, "A regular expression that the whole answer matches."] = ""
    choices: Annotated[str, "Texts with commas between, one of which is the answer."] = ""

    def __post_init__(self) -> None:
        names = ("grammar", "json_schema", "regex", "choices")
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(self, name)]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} cannot be used together", hint="choose one of them")

    @property
    def format(self) -> tuple[str, Any] | None:
        """The kind of constraint and its value; None where answers are free. Files are read here."""
        if self.choices:
            return "choice", [text.strip() for text in self.choices.split(",")]
        if self.regex:
            return "regex", self.regex
        if self.json_schema is not None:
            return "schema", _json(self.json_schema, _text(self.json_schema))
        return None if self.grammar is None else of_file(self.grammar)


def of_file(path: Path) -> tuple[str, Any]:
    """The kind and the value of a grammar's file: GBNF and Lark are known by how they write rules, a JSON
    Schema by its brace."""
    text = _text(path)
    if text.lstrip().startswith("{"):
        return "schema", _json(path, text)
    return ("gbnf" if "::=" in text else "lark"), text


def maker(
    config: Constrained, tokenizer: Tokenizer, stop_ids: frozenset[int]
) -> Callable[[], Constraint] | None:
    """What gives a fresh constraint for every answer, which one of these ids ends; None where answers are
    free. What is wrong with the constraint is found here, before anything is answered."""
    from tinygpt.infer.constrained import constraint

    if (format := config.format) is None:
        return None
    constraint(*format, tokenizer, stop_ids=stop_ids)
    return lambda: constraint(*format, tokenizer, stop_ids=stop_ids)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(SIZE + 1)
        if len(data) > SIZE:
            raise DataError(f"{path} is larger than {SIZE} bytes", hint="is it the right file?")
        return data.decode()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="check the path") from error


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
