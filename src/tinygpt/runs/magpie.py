"""Magpie: a model writes the questions that its users would ask, and answers them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tinygpt.core import lock
from tinygpt.core.errors import DataError, LockedError
from tinygpt.core.events import Events, Progress
from tinygpt.data import card, rows
from tinygpt.data.alike import Seen
from tinygpt.data.template._ahead import ahead
from tinygpt.eval.reward._answer import Answer
from tinygpt.runs import _resumed
from tinygpt.runs._drafts import Draft, Kept, opening, questions, write_turn
from tinygpt.runs._journal import Journal
from tinygpt.runs._magpie import Author, Config

SCORE = "too low a score"


def run(config: Config, events: Events) -> dict[str, Any]:
    """Write conversations until enough are kept, or all attempts are made; the first that are kept, in the
    order of their numbers, whatever is written together. An interrupted command is gone on with by --resume.
    DataError where none can be kept."""
    with lock.only_one(config.out.parent / f".{config.out.name}.tinygpt.lock", lambda: _busy(config)):
        _resumed.check(config.out, resume=config.resume)
        author = Author(config, events)
        ahead(author.template, author.tokenizer, opening(config))  # what cannot work is told first
        settings = config.decides() | {"model": author.identity}
        with Journal(config.out, settings, resume=config.resume) as journal:
            kept = Kept(Seen(config.near))
            for number in range(len(journal)):
                if len(kept.numbers) < config.count:
                    kept.take(number, journal[str(number)])
            while len(kept.numbers) < config.count and kept.tried < config.most:
                _more(config, author, journal, kept)
                events.emit(
                    Progress(task="magpie", done=len(kept.numbers), total=config.count, unit="conversations")
                )
            result = _written(config, author, journal, kept, events)
            journal.done()
    return result


def _more(config: Config, author: Author, journal: Journal, kept: Kept) -> None:
    """The next attempts, written together and judged one after the other."""
    last = min(kept.tried + config.batch, config.most)
    drafts = [Draft(number, opening(config)) for number in range(kept.tried, last)]
    for turn in range(config.turns):
        write_turn(config, author, [draft for draft in drafts if not draft.fault], turn)
    scorer = config.scorer()
    for draft in drafts:
        fault = draft.fault or kept.seen.has(questions(draft.messages))
        if not fault and scorer is not None:
            said = Answer(text=draft.messages[-1]["content"], prompt=draft.messages[:-1])
            draft.score = scorer(said).total
            fault = SCORE if draft.score < config.min_score else ""
        line = {"fault": fault, "messages": draft.messages, "score": draft.score, "tokens": draft.tokens}
        journal.keep(str(draft.number), line)
        kept.take(draft.number, line)
        if len(kept.numbers) == config.count:
            return


def _written(config: Config, author: Author, journal: Journal, kept: Kept, events: Events) -> dict[str, Any]:
    dropped = dict(sorted(kept.dropped.items()))
    told = ", ".join(f"{why} {n}" for why, n in dropped.items())
    if not kept.numbers:
        raise DataError(f"none of {kept.tried} conversations can be kept: {told}", hint="loosen the filters")
    if len(kept.numbers) < config.count:
        events.note(f"{len(kept.numbers)} of {config.count} after {kept.tried} attempts: {told}", "warning")

    def lines() -> Iterator[dict[str, Any]]:
        for number in kept.numbers:
            line = journal[str(number)]
            about = {"model": author.name, "attempt": number}
            about |= {} if line["score"] is None else {"score": line["score"]}
            yield {"messages": line["messages"], "_meta": about}

    rows.write(config.out, lines())
    stage = card.Stage(name="write", n_in=kept.tried, n_out=len(kept.numbers), dropped=dropped)
    source = card.Source(name=f"written by {author.name}", licence=config.licence or card.UNKNOWN)
    made = card.Card(made_by="tinygpt magpie", settings=config.decides(), sources=(source,), stages=(stage,))
    return {
        "out": str(config.out), "card": str(card.write(config.out, made)), "kept": len(kept.numbers),
        "wanted": config.count, "attempts": kept.tried, "dropped": dropped, "tokens": kept.tokens,
        "model": author.name, "seed": config.seed,
    }  # fmt: skip


def _busy(config: Config) -> None:
    raise LockedError(f"another process is writing {config.out}", hint="wait for it, or name another file")
