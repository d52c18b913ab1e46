"""The stages that traces go through on their way to rows, each of which counts what it leaves out."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data import card
from tinygpt.data.tally import Tally
from tinygpt.data.traces import _examples, _values
from tinygpt.data.traces._examples import Example, Pairs
from tinygpt.data.traces._mend import Mended, mended
from tinygpt.data.traces._spool import Spool
from tinygpt.data.traces._trace import Trace
from tinygpt.runs import _traces_judge
from tinygpt.runs._traces_settings import JUDGE, SUCCESS, Config

EVERY = 100  # traces between two events
STAGES = ("read", "kept", "mended", "exact", "worth", "examples")


class Work:
    """One pass over traces. `tallies` have the counts of its stages."""

    def __init__(self, config: Config, events: Events) -> None:
        self.config, self.events = config, events
        self.tallies = {name: Tally(name) for name in STAGES}
        self.left_out: Counter[str] = Counter()
        self.models: Counter[tuple[str, str]] = Counter()
        self.places: Counter[str] = Counter()
        self._seen: set[bytes] = set()
        self._unmet = {f"--task {task}" for task in config.task} | {f"--outcome {o}" for o in config.outcome}
        self._unmet |= {f"--score-field {config.score_field}"} if config.score_field else set()
        self._mark = _traces_judge.opened(config) if config.judge_model else None

    def examples(self, found: Sequence[Path], pairs: Pairs) -> Iterator[Example]:
        """What the traces of files become; for dpo they are first gathered in `pairs`."""
        last = self.tallies["examples"]
        for trace, left in self._worthy(found):
            made = self._example(trace, left, pairs)
            if isinstance(made, str):
                last.drop(made, trace.place)
            else:
                last.keep()
                if made is not None:
                    yield made
        if self.config.mode == "dpo":
            yield from pairs.made()

    def _example(self, trace: Trace, left: Mended, pairs: Pairs) -> Example | str | None:
        """An example, why there is none, or None where it is one of a pair."""
        mode = self.config.mode
        if mode == "sft" and self.config.token_exact:
            if not trace.tokenizer:
                return "nothing says whose tokens they are" if trace.steps else "its tokens are not known"
            made = _examples.exact(trace, left)
            return made if made.rows else "no token that was written is known"
        if mode == "sft":
            return _examples.sft(trace, left)
        if left.messages[0]["role"] == "assistant":
            return "there is no request before its answer"
        if mode == "kto":
            good = trace.success
            return (
                "nothing says whether it is a success" if good is None else _examples.kto(trace, left, good)
            )
        score = self.config.score(trace)
        if score is None:
            return "nothing says how good it is"
        return pairs.add(trace, left, score)

    def _worthy(self, found: Sequence[Path]) -> Iterator[tuple[Trace, Mended]]:
        """Traces that are to be learned from, mended."""
        kept, whole, exact, worth = (self.tallies[name] for name in STAGES[1:5])
        for n, trace in enumerate(self._read(found), 1):
            if n % EVERY == 0:
                self.events.emit(Progress(task="read", done=n, total=0, unit="traces"))
            self._unmet -= {f"--task {trace.task}", f"--outcome {trace.outcome}"}
            self._unmet -= {f"--score-field {name}" for name in trace.reward}
            if why := self.config.fault(trace):
                kept.drop(why, trace.place)
                continue
            kept.keep()
            left = mended(trace, self.config.mend)
            self.left_out.update(
                {"erroneous turns": left.n_errors, "refused calls": left.n_refused, "echoes": left.n_echoes}
            )
            left = left.last() if self.config.turns == "last" else left
            if not left.messages:
                whole.drop("no answer is left", trace.place)
                continue
            whole.keep()
            digest = hashlib.sha256(_examples.text_of(trace, left).encode("utf-8", "surrogatepass")).digest()
            if digest[:16] in self._seen:
                exact.drop("a duplicate", trace.place)
                continue
            exact.keep()
            if not (why := self._fault(trace, judged=False)):  # else a better one may say the same
                self._seen.add(digest[:16])
                trace, why = self._judged(trace, left)
            if why:
                worth.drop(why, trace.place)
                continue
            worth.keep()
            yield trace, left

    def _fault(self, trace: Trace, *, judged: bool) -> str:
        """Why a trace is not good enough; `judged`: by the judge's mark, too."""
        config = self.config
        names = tuple(name for name in config.least if judged or name != JUDGE)
        if why := config.worth(trace, names):
            return why
        if not config.success_only or (not judged and config.good is not None and config.good[0] == JUDGE):
            return ""
        success = config.judged(trace).success
        if success is None:
            return f"nothing says whether it is a {SUCCESS}"
        return "" if success else "no success"

    def _judged(self, trace: Trace, left: Mended) -> tuple[Trace, str]:
        """The trace with the judge's mark and its success, and why it is not good enough."""
        if self._mark is not None:
            mark = self._mark(left)
            if mark is None:
                return trace, "the judge gave no mark"
            trace = dataclasses.replace(trace, reward=trace.reward | {JUDGE: mark})
        why = self._fault(trace, judged=True)
        return self.config.judged(trace), why

    def _read(self, found: Sequence[Path]) -> Iterator[Trace]:
        """The traces of files, by their formats."""
        read = self.tallies["read"]
        by: dict[str, list[Path]] = {}
        for path in found:
            try:
                name = self.config.format if self.config.format != "auto" else _values.format_of(path)
            except DataError as error:
                read.drop(_values.why(path, error), str(path))
                continue
            if name:
                by.setdefault(name, []).append(path)
            else:
                read.drop("no format that is known", str(path))
        for name, paths in by.items():
            reader: Any = _values.FORMATS.load(name)
            for trace in reader.read(
                paths, lambda place, why: read.drop(why, place), score=self.config.score_field
            ):
                read.keep()
                self.places[trace.place] += 1
                if trace.model:
                    self.models[trace.model.get("name", ""), trace.model.get("hash", "")] += 1
                yield trace

    def check(self) -> None:
        """ConfigError where no trace has what a setting names: it would have said nothing."""
        if self.tallies["read"].n_out and self._unmet:
            raise ConfigError(f"{min(self._unmet)}: no trace has that", hint="check how it is written")

    def alike(self, kept: Spool, kinds: Sequence[str], folder: Path) -> tuple[list[int], card.Stage | None]:
        """The numbers of the examples that stay, and the stage."""
        n = len(kept)
        if not self.config.near_dup or not n:
            return list(range(n)), None
        found = self.config.alike.kept(
            n, lambda i: kept[i][1], kinds, folder,
            lambda done, total: self.events.emit(
                Progress(task="compare", done=done, total=total, unit="examples")
            ),
        )  # fmt: skip
        stay = found.nonzero()[0].tolist()
        dropped = {"a near duplicate": n - len(stay)} if len(stay) < n else {}
        return stay, card.Stage(name="near", n_in=n, n_out=len(stay), dropped=dropped)

    def stages(self, pairs: Pairs, n: int) -> list[card.Stage]:
        """The stages so far; `n` examples came of them."""
        notes = {name: k for name, k in self.left_out.items() if k}
        found = [t.stage(**(notes if name == "mended" else {})) for name, t in self.tallies.items()]
        if self.config.mode == "dpo":
            told = {"alone with its prompt": pairs.n_alone, "not better by the margin": pairs.n_close}
            dropped = {why: k for why, k in told.items() if k}
            notes = {"traces of a pair": 2}
            found.append(
                card.Stage(name="pairs", n_in=found[-1].n_out, n_out=n, dropped=dropped, notes=notes)
            )
        return found

    def sources(self, found: Sequence[Path]) -> list[card.Source]:
        """What was read: each file that was named, each folder as one, and the models that wrote it."""
        licence = self.config.licence or card.UNKNOWN
        sources: list[card.Source] = []
        for path in self.config.paths:
            inside = [one for one in found if one == path or path in one.parents]
            n = sum(self.places[str(one)] for one in inside)
            if path.is_file():
                sources.append(card.of_file(path, licence=licence, n_rows=n))
                continue
            total = hashlib.sha256()
            for one in inside:
                total.update(f"{one.relative_to(path).as_posix()} {card.of_file(one).sha256}\n".encode())
            size = sum(one.stat().st_size for one in inside)
            sources.append(
                card.Source(
                    name=path.resolve().name,
                    licence=licence,
                    sha256=total.hexdigest(),
                    n_bytes=size,
                    n_rows=n,
                )
            )
        models = sorted(self.models.items())
        return sources + [card.Source(name=name, revision=hash, n_rows=n) for (name, hash), n in models]
