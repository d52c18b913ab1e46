"""Requests and the tools that serve them: settings of `extractor-data`, and the pairs of every source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinygpt.core.config import flag, refuse_idle
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.data import card, requests, table
from tinygpt.data.card import Source
from tinygpt.data.requests import Request
from tinygpt.data.tally import Tally
from tinygpt.runs._asked import NOWHERE
from tinygpt.runs._data_out import HELD_OUT
from tinygpt.runs._prep_sources import EVALUATION, LICENCES
from tinygpt.runs._synth_requests import Written


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `extractor-data`."""

    data: Annotated[tuple[Path, ...], "Rows of conversations with calls, as sft reads them."] = ()
    bfcl: Annotated[tuple[Path, ...], "BFCL's data: a folder, or one of its files."] = ()
    tau_bench: Annotated[Path | None, "A clone of tau-bench or tau2-bench."] = None
    tools: Annotated[Path | None, "JSON list of tools: each one's description is a request of it."] = None
    synth: Annotated[bool, "Have a model write requests for each of --tools."] = False
    synth_model: Annotated[Path, "Model that writes them; with --synth-url the server's name for it."] = (
        NOWHERE
    )
    synth_url: Annotated[str, "OpenAI-compatible server of that model; its key is in OPENAI_API_KEY."] = ""
    synth_per_tool: Annotated[int, "Requests to be written for each tool."] = 40
    min_examples: Annotated[int, "Tools with fewer requests are left out."] = 5
    held_out: Annotated[float, f"Share of the requests that goes to NAME{HELD_OUT}."] = 0.1
    seed: Annotated[int, "Of the split, and of what a model writes."] = 0
    out: Annotated[Path | None, "JSONL file to write; its card goes beside it."] = None
    resume: Annotated[bool, "Go on with what an interrupted command had written by a model."] = False
    dry_run: Annotated[bool, "Read and count; ask no model, write nothing."] = False
    force: Annotated[bool, "Replace an --out that tinygpt wrote."] = False

    def __post_init__(self) -> None:
        if not (self.data or self.bfcl or self.tau_bench or self.tools):
            raise ConfigError("nothing is read", hint="give --data, --bfcl, --tau-bench or --tools")
        of_synth = ("synth_model", "synth_url", "synth_per_tool", "resume")
        refuse_idle(self, {"synth": "tools", **dict.fromkeys(of_synth, "synth")})
        if self.synth and self.synth_model == NOWHERE and not self.synth_url:
            raise ConfigError("--synth needs a model", hint="--synth-model DIR, or --synth-url URL")
        for name, least in (("min_examples", 1), ("synth_per_tool", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{flag(name)} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"--held-out must be at least 0 and below 1, got {self.held_out:g}")
        if self.out is None and not self.dry_run:
            raise ConfigError("--out is needed: where the pairs go", hint="or count first: --dry-run")


def read(
    config: Config,
    tallies: list[Tally],
    sources: list[Source],
    written: Written | None,
    events: Events,
) -> Iterator[tuple[str, str]]:
    """(request, tool) of every source; what gives none is counted."""

    def each(name: str, found: Iterator[Request | str]) -> Iterator[tuple[str, str]]:
        tally = Tally(name)
        tallies.append(tally)
        for one in found:
            why = one if isinstance(one, str) else "" if one.query else "there is no request"
            tool = "" if isinstance(one, str) else one.tool()
            if why or not tool:
                tally.drop(why or "several tools")
                continue
            tally.keep()
            assert isinstance(one, Request)
            yield one.query, tool

    for path in config.data:
        yield from each(f"read {path.name}", _conversations(path))
        sources.append(card.of_file(path, n_rows=tallies[-1].n_out))
    makers = [("bfcl", path, requests.bfcl) for path in config.bfcl]
    makers += [("tau_bench", config.tau_bench, requests.tau_bench)] if config.tau_bench is not None else []
    for kind, path, read in makers:
        events.note(f"{path} {EVALUATION}", "warning")
        yield from each(f"read {kind}", read(path))
        sources.append(Source(name=f"{kind} {path.name}", licence=LICENCES[kind], n_rows=tallies[-1].n_out))
    if config.tools is not None:
        tools = requests.tools(config.tools)
        plain = (Request(query=str(t.get("description") or ""), calls=({"name": t["name"]},)) for t in tools)
        yield from each(f"read {config.tools.name}", plain)
        sources.append(card.of_file(config.tools, n_rows=tallies[-1].n_out))
        if written is not None:
            yield from each("written by a model", written.requests(tools))
            sources.append(Source(name=written.name, n_rows=tallies[-1].n_out))


def _conversations(path: Path) -> Iterator[Request | str]:
    for _, row in table.records(path):
        try:
            found = requests.conversation(row())
        except DataError as error:
            yield error.message
            continue
        yield from found or ["there is no call in it"]


def chosen(found: Iterator[tuple[str, str]], least: int) -> tuple[list[tuple[str, str]], Tally]:
    """The pairs without doubles, contradictions and rare tools. One request with two tools teaches
    neither."""
    tools: dict[str, dict[str, str]] = {}  # folded request -> tool -> the request as it was written first
    order: list[tuple[str, str]] = []
    tally = Tally("choose")
    for query, tool in found:
        folded = " ".join(query.casefold().split())
        if tool in tools.setdefault(folded, {}):
            tally.drop("a duplicate")
            continue
        tools[folded][tool] = query
        order.append((folded, tool))
    alone = [(tools[folded][tool], tool) for folded, tool in order if len(tools[folded]) == 1]
    for _ in range(len(order) - len(alone)):
        tally.drop("the same request with several tools")
    counts: dict[str, int] = {}
    for _, tool in alone:
        counts[tool] = counts.get(tool, 0) + 1
    kept = [(query, tool) for query, tool in alone if counts[tool] >= least]
    for _ in range(len(alone) - len(kept)):
        tally.drop(f"a tool with fewer than {least} requests")
    for _ in kept:
        tally.keep()
    return kept, tally


def is_apart(query: str, config: Config) -> bool:
    """Whether a request is held out: by its text and the seed, whatever else there is."""
    folded = " ".join(query.casefold().split())
    found = hashlib.sha256(f"{config.seed} held out {folded}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(found[:8], "big") / 2**64 < config.held_out
