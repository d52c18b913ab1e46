"""Rows on their way to a teacher and back: what is still to be asked, what came, and what it cost."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data import rows, table
from tinygpt.data.unanswered import Question, answered, question
from tinygpt.runs._answerers import Ask, Told
from tinygpt.runs._asking import seed_of
from tinygpt.runs._checked import Check, Checked
from tinygpt.runs._journal import Journal
from tinygpt.runs._predictions import sha
from tinygpt.runs._remote_endpoint import spelled
from tinygpt.runs._synthesize import Config
from tinygpt.runs._teachers import Teacher


@dataclass
class Count:
    """What became of the rows."""

    rows: int = 0
    kept: int = 0  # done by an earlier command
    bad: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    missing: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])


class Labels:
    """One command's work: the rows that have no line in the journal yet."""

    def __init__(self, config: Config, teacher: Teacher, journal: Journal, check: Check) -> None:
        self.config, self.teacher, self.journal, self.count = config, teacher, journal, Count()
        self._check = check
        self._again: deque[Ask] = deque()
        self._spent: dict[int, tuple[int, int]] = {}  # of answers that were wrong, until the row is done

    def results(self) -> Iterator[Told]:
        """Ask, check, keep; once for each answer that came or did not."""
        asks = self._asks()
        while (first := self._next(asks)) is not None:
            more = iter(lambda: self._next(asks), None)
            for ask, told in self.teacher.answers(itertools.chain([first], more)):
                self._take(ask, told)
                yield told

    def _next(self, asks: Iterator[Ask]) -> Ask | None:
        return self._again.popleft() if self._again else next(asks, None)

    def _take(self, ask: Ask, told: Told) -> None:
        if told.error and told.again:
            self.count.missing.append((ask.number, told.error))
            return
        read, written = self._spent.pop(ask.number, (0, 0))
        spent = read + (told.prompt_tokens or 0), written + (told.tokens or 0)
        found = self._check(told)
        wrong = found.message is None and not told.error
        if wrong and self.teacher.again and ask.sample < self.config.retries:
            self._spent[ask.number] = spent
            self._again.append(self._with_seed(ask, ask.sample + 1))
            return
        self.journal.keep(str(ask.number), self._line(ask, told, found, spent))

    def _line(self, ask: Ask, told: Told, found: Checked, spent: tuple[int, int]) -> dict[str, Any]:
        line: dict[str, Any] = {"sha": ask.sha, "spent": spent, "seconds": told.seconds}
        if found.message is None:
            about = {"input_index": ask.number, "reason": found.kind, "why": found.why, "said": told.text}
            return line | {"kind": found.kind, "rejected": about | {"messages": ask.messages}}
        asked = Question(ask.messages or [], ask.tools)
        about = {
            "teacher": self.teacher.name, "endpoint": self.teacher.where, "input_index": ask.number,
            "prompt_tokens": told.prompt_tokens, "completion_tokens": told.tokens,
            "finish_reason": told.finish_reason,
        }  # fmt: skip
        row = answered(asked, found.message, pair=self.config.shape == "completion")
        return line | {"row": row | {"_meta": about}}

    def _asks(self) -> Iterator[Ask]:
        """What has no line yet, row by row; rows that ask nothing are counted."""
        config, count = self.config, self.count
        pairs, system = rows.renames(config.map), config.system_text
        for number, read in table.records(config.inputs):
            count.rows += 1
            try:
                asked = question(rows.renamed(read(), pairs), config.input_field, system)
            except DataError as error:
                count.bad.append((number, error.message))
                continue
            key = sha([asked.messages, asked.tools])
            if self._has(number, key):
                count.kept += 1
                continue
            ask = Ask(
                number=number, sample=0, row={}, sha=key, seed=0, messages=asked.messages,
                raw=spelled(asked.messages) if config.remote else None, tools=asked.tools,
            )  # fmt: skip
            yield self._with_seed(ask, 0)

    def _has(self, number: int, key: str) -> bool:
        if str(number) not in self.journal:
            return False
        line = self.journal[str(number)]
        if line["sha"] != key:
            raise DataError(
                f"{self.config.inputs} {table.unit(self.config.inputs)} {number} is not what was answered: "
                "the rows were changed",
                hint=f"give the rows of the first start, or remove {self.journal.path} to ask anew",
            )
        return "row" in line or not self.config.retry_rejected

    def _with_seed(self, ask: Ask, tries: int) -> Ask:
        return dataclasses.replace(ask, sample=tries, seed=seed_of(self.config.seed, ask.number, tries))
