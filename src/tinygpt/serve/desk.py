"""The desk: jobs in, events out; between them a model's template, a lane of its engine, and a parser.

What does not need the device is done beside the loop (rendering, grammars) or on it (taking answers apart);
only the worker's thread touches arrays. A job is refused before its first event, and closing its iterator
ends its work at the next token.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError
from tinygpt.data.template import _calls, chatml
from tinygpt.infer.constrain import tools as tools_
from tinygpt.infer.request import Constraint, Request
from tinygpt.serve import calls, embed, fim, formats, prompts, toolbox
from tinygpt.serve import turn as turn_
from tinygpt.serve.bridge import Feed
from tinygpt.serve.fields import FieldError
from tinygpt.serve.formats import Formats
from tinygpt.serve.job import Chat, Event, Format, Job, ModelCard, Text
from tinygpt.serve.routed import Routes
from tinygpt.serve.rows import Best, Row
from tinygpt.serve.stream import Parser
from tinygpt.serve.traced import Traces
from tinygpt.serve.turn import Turn

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine
    from tinygpt.serve.registry import Registry


class FrontDesk:
    """See `job.Desk`.

    tools:   offered in every conversation but those whose answer must have a format.
    metrics: where answers with tools leave a line.
    grammar: the format of answers that name none and call no tools.
    traces:  where conversations are kept, token by token.
    routes:  which model does a conversation that names the general one.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        tools: toolbox.Toolbox | None = None,
        metrics: toolbox.Metrics | None = None,
        grammar: Format | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.registry, self.tools, self.metrics, self.grammar = registry, tools, metrics, grammar
        self.traces = traces
        self.routes: Routes | None = None
        self._formats = Formats()

    def close(self) -> None:
        """End the threads of the desk; the registry is its owner's."""
        self._formats.close()
        if self.traces is not None:
            self.traces.close()

    # Conversations

    async def chat(self, job: Chat) -> AsyncIterator[Event]:
        """The answers to a conversation; see `Desk`."""
        count = turn_.count(job)
        begun = time.perf_counter()
        if self.routes is not None:
            job = await self.routes.send(job, self._fits)
        async with self.registry.use(job.model) as served:
            engine, load = served.engine, time.perf_counter() - begun
            turn = await self._chat_turn(engine, job, job.messages, count)
            if job.told is not None:
                job.told(turn.ids)
            own = self._own(job)
            rows = [
                Row(index=i, tokenizer=engine.tokenizer, report=job.logprobs is not None, own=own, load=load)
                for i in range(count)
            ]
            kept = contextlib.AsyncExitStack()
            async with kept, Feed(self.registry.worker, served.lane) as feed:
                await self._begin(feed, engine, job, turn, rows)
                best = Best(job)
                if self.traces is not None:
                    await kept.enter_async_context(self.traces.of(served, job, turn, rows, best))
                while best.waits:
                    for index, piece in await feed.next():
                        row = rows[index]
                        if index in best.ended:
                            continue
                        for delta in row.take(piece):
                            if best.passes(delta):
                                yield delta
                        full = row.parser is not None and row.parser.full
                        if full and piece.finish_reason is None:
                            feed.drop(index)
                        elif piece.finish_reason is None:
                            continue
                        if row.asked and not row.n_calls and await self._hop(feed, engine, job, row):
                            continue
                        self._count(job, row)
                        for event in best.end(row):
                            yield event

    async def _fits(self, job: Chat) -> bool:
        """Whether the context of the job's model has room for an answer."""
        return len(await self.prompt(job)) < self.registry.card(job.model).context

    async def _chat_turn(
        self, engine: Engine, job: Chat, messages: Sequence[Mapping[str, Any]], n: int
    ) -> Turn:
        """What this conversation asks of the model."""
        box = self._offered(job)
        shown = list(box.shown(job.tools) if box else job.tools)
        given = set(map(calls.name_of, job.tools))
        more = box.tools if box and box.deferred else ()
        known = [*shown, *(tool for tool in more if calls.name_of(tool) not in given)]
        wanted = formats.choice_of(job.tool_choice, [calls.name_of(tool) for tool in known])
        if job.tool_choice == "none":
            shown = []
        form = job.format or (None if shown else self.grammar)
        free = form is not None and bool(shown) and wanted is None  # it may be an answer, or call
        if form is not None and free and form.kind not in ("json", "schema"):
            raise FieldError(
                "an answer in a format that is not JSON cannot call tools as well",
                param=form.param,
                hint='set tool_choice to "none" or "required", or leave the format out',
            )
        said = [dict(message) for message in messages]
        if box and box.deferred and shown:
            said.insert(0, {"role": "system", "content": box.catalogue()})
        prompt = await asyncio.to_thread(
            prompts.of_chat, engine, said, shown,
            think=job.think, prefill=job.prefill,
            bare=form is not None or wanted is not None,
        )  # fmt: skip
        stop_ids = turn_.stop_ids(engine, job)
        listed = calls.forms(prompt.source, engine.tokenizer.special) if shown else []
        thoughts = "open" if prompt.opened else "may" if prompt.thinks else ""
        constraints: Sequence[Constraint | None] = [None] * n
        strict = any((tool.get("function") or tool).get("strict") for tool in known)
        if wanted is not None or free or (shown and strict):
            source = prompt.source
            if _calls.parser(source) is _calls.plain:  # of the forms that mlx_lm reads there is no grammar
                source, listed = chatml.CHAT_TEMPLATE, [calls.TAGGED]
            choice = "auto" if wanted is None else job.tool_choice
            answer = (form.value if form.kind == "schema" else {"type": "object"}) if form and free else None
            spec = tools_.Config(
                tools=known, choice=choice, parallel=job.parallel, template=source, answer=answer
            )
            wrong = "tools" if not free else form.param if form and not strict else None
            constraints = await self._formats.compiled(
                engine, "tools", spec, stop_ids, n, thoughts, param=wrong
            )
        elif form is not None:
            constraints = await self._formats.of(engine, form, stop_ids, n, thoughts)
        parser = functools.partial(
            Parser, prompt.think, opened=prompt.opened, forms=listed, tools=known, parallel=job.parallel
        )
        return Turn(
            ids=[*job.context, *prompt.ids], stop_ids=stop_ids, constraints=constraints,
            boundaries=tuple(len(job.context) + at for at in prompt.boundaries), parser=parser,
            said=said, shown=shown,
        )  # fmt: skip

    def _offered(self, job: Chat) -> toolbox.Toolbox | None:
        """The server's tools, where this conversation may call them."""
        return self.tools if not job.closed and (job.format is None or job.tool_choice != "auto") else None

    def _own(self, job: Chat) -> str:
        """The tool that the desk answers itself in this conversation, or ""."""
        clients = {calls.name_of(tool) for tool in job.tools}
        box = self._offered(job)
        deferred = box is not None and box.deferred and job.tool_choice != "none"
        return toolbox.INFO if deferred and toolbox.INFO not in clients else ""

    async def _hop(self, feed: Feed, engine: Engine, job: Chat, row: Row) -> bool:
        """Answer the calls of the desk's own tool and let the model go on; False where it may not."""
        assert self.tools is not None and row.answer is not None
        left = job.config.max_tokens - row.usage().completion_tokens
        if row.hops + len(row.asked) > toolbox.HOPS or left < 1:
            return False
        row.hops += len(row.asked)
        row.messages += toolbox.turn(self.tools, row.written, row.asked, last=row.hops >= toolbox.HOPS)
        given, said = list(job.messages), list(row.messages)
        if job.prefill:  # what was begun and what followed are one message
            begun = given.pop().get("content") or ""
            said[0] = {**said[0], "content": begun + said[0]["content"]}
        turn = await self._chat_turn(engine, replace(job, prefill=False), [*given, *said], 1)
        again = replace(job, config=replace(job.config, max_tokens=left, seed=row.answer.request.seed))
        await self._begin(feed, engine, again, turn, [row], seeded=True)
        return True

    def _count(self, job: Chat, row: Row) -> None:
        if self.metrics is not None and self.tools is not None:
            usage = row.usage()
            self.metrics.write(
                self.tools.mode, row.hops, usage.prompt_tokens, usage.completion_tokens, job.stream
            )

    # Texts

    async def text(self, job: Text) -> AsyncIterator[Event]:
        """What goes on from a text; see `Desk`."""
        count = turn_.count(job)
        if job.score_only and not job.echo:
            raise ConfigError("an answer of 0 tokens without 'echo' is nothing")
        if job.suffix is not None and job.echo:
            raise FieldError("'suffix' and 'echo' do not go together", param="suffix")
        begun = time.perf_counter()
        async with self.registry.use(job.model) as served:
            engine, load = served.engine, time.perf_counter() - begun
            turn = await self._text_turn(engine, job, count)
            if job.told is not None:
                job.told(turn.ids)
            told = job.logprobs is not None
            rows = [
                Row(index=i, tokenizer=engine.tokenizer, report=told, stops=job.echo, load=load)
                for i in range(count)
            ]
            async with Feed(self.registry.worker, served.lane) as feed:
                await self._begin(feed, engine, job, turn, rows, echo=job.echo and told)
                best, opened = Best(job), set[int]()
                while best.waits:
                    for index, piece in await feed.next():
                        row = rows[index]
                        deltas = [] if job.score_only else row.take(piece)
                        if job.echo and index not in opened:
                            opened.add(index)
                            deltas.insert(0, turn_.echoed(engine, job, turn, row))
                        for delta in deltas:
                            if best.passes(delta):
                                yield delta
                        if piece.finish_reason is not None:
                            for event in best.end(row):
                                yield turn_.scored(event) if job.score_only else event

    async def _text_turn(self, engine: Engine, job: Text, n: int) -> Turn:
        stop_ids = turn_.stop_ids(engine, job)
        ids = list(job.prompt) if not isinstance(job.prompt, str) else []
        turn_.check_ids(engine, "prompt", ids)
        if job.suffix is not None:
            before = job.prompt if isinstance(job.prompt, str) else engine.tokenizer.decode(ids)
            middle, ends = fim.prompt(engine.tokenizer, before, job.suffix)
            bos = engine.tokenizer.bos_id
            ids, stop_ids = ([] if bos is None else [bos]) + middle, stop_ids | ends
        elif isinstance(job.prompt, str):
            ids = await asyncio.to_thread(engine.encode, job.prompt)
        form = None if job.score_only else job.format or self.grammar
        constraints: Sequence[Constraint | None] = [None] * n
        if form is not None:
            constraints = await self._formats.of(engine, form, stop_ids, n)
        return Turn(ids=ids, stop_ids=stop_ids, constraints=constraints)

    async def _begin(
        self,
        feed: Feed,
        engine: Engine,
        job: Job,
        turn: Turn,
        rows: Sequence[Row],
        *,
        echo: bool = False,
        seeded: bool = False,
    ) -> None:
        """Queue a turn of these rows."""
        config = job.config.seeded()
        wanted = (job.best_of or 0) > job.n or (self.traces is not None and isinstance(job, Chat))
        logprobs = 0 if job.logprobs is None and wanted else job.logprobs
        score = isinstance(job, Text) and job.score_only
        makes: dict[int, Callable[[], Request]] = {}
        for k, row in enumerate(rows):
            seed = config.seed if seeded else turn_.seed(config.seed, row.index)
            makes[row.index] = functools.partial(
                turn_.request,
                engine,
                turn,
                replace(config, seed=seed),
                turn.constraints[k],
                logprobs,
                echo,
                score,
            )
        answers = await feed.submit(makes)
        for row in rows:
            row.begin(answers[row.index], turn.parser())

    # The rest

    async def prompt(self, job: Chat) -> list[int]:
        """Ids of the prompt of a conversation; see `Desk`."""
        async with self.registry.use(job.model) as served:
            return (await self._chat_turn(served.engine, job, job.messages, 0)).ids

    async def embed(self, model: str, inputs: Sequence[str | Sequence[int]]) -> tuple[list[list[float]], int]:
        """Mean-pooled hidden states of length 1, and how many tokens were read; see serve/embed.py."""
        async with self.registry.use(model) as served:
            engine = served.engine

            def encoded() -> list[list[int]]:
                return [engine.encode(text) if isinstance(text, str) else list(text) for text in inputs]

            rows = await asyncio.to_thread(encoded)
            embed.check(engine, rows)
            found: list[list[float]] = [[] for _ in rows]
            for group in embed.groups(rows):
                work = functools.partial(embed.embed, engine, [rows[i] for i in group])
                vectors = await asyncio.wrap_future(self.registry.worker.call(work))
                for i, vector in zip(group, vectors, strict=True):
                    found[i] = vector
            return found, sum(map(len, rows))

    async def tokenize(
        self, model: str, text: str, *, special: bool = True, control: bool = False
    ) -> list[int]:
        """Ids of a text; `special`: with bos, as a prompt has it, where the tokenizer has one; `control`:
        names of control tokens in it are no text."""
        async with self.registry.use(model) as served:
            tokenizer = served.engine.tokenizer
            bos = [tokenizer.bos_id] if special and tokenizer.bos_id is not None else []
            return bos + await asyncio.to_thread(tokenizer.encode, text, control)

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """The text of ids, control tokens spelled out."""
        async with self.registry.use(model) as served:
            tokenizer = served.engine.tokenizer
            if (wrong := next((i for i in ids if not 0 <= i < tokenizer.vocab_size), None)) is not None:
                known = f"they go from 0 to {tokenizer.vocab_size - 1}"
                raise FieldError(f"'tokens' holds the id {wrong}: {known}", param="tokens")
            return await asyncio.to_thread(tokenizer.decode, list(ids))

    def models(self) -> list[ModelCard]:
        """Every model that may be asked for."""
        return self.registry.cards()

    async def card(self, model: str) -> ModelCard:
        """One of them; UnknownModel."""
        return self.registry.card(model)

    async def load(self, model: str, keep: float | None = None) -> None:
        """See `Desk.load`."""
        await self.registry.load(model, keep)
