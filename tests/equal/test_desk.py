"""What the desk serves is what the engine gives, and its work ends when its reader leaves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import replace
from typing import Any

import pytest

from desks import GREEDY, HI, TOKENIZER, TOOL, done_of, heard, on, opened, text_of
from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import BusyError, ConfigError, TooLongError, UnknownModel
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.lane import Lane, Limits
from tinygpt.serve.fields import FieldError
from tinygpt.serve.job import Chat, Delta, Format, Text


def test_served_is_in_process_alone_and_with_neighbours() -> None:
    async def main() -> None:
        async with opened() as (desk, engine):
            prompt = engine.encode_chat(HI)
            own = await on(desk, lambda: engine.generate_batch([prompt], GREEDY)[0])
            jobs = [desk.text(Text(prompt="x" * i, config=GREEDY)) for i in range(8)]
            events, *rest = await asyncio.gather(
                heard(desk.chat(Chat(messages=HI, config=GREEDY))), *map(heard, jobs)
            )
            assert text_of(events) == own.text
            done = done_of(events)
            assert (done.finish_reason, done.usage.completion_tokens) == (own.finish_reason, len(own.ids))
            assert done.usage.prompt_tokens == len(prompt)
            for i, one in enumerate(rest):
                ids = engine.encode("x" * i)
                alone = await on(desk, lambda ids=ids: engine.generate_batch([ids], GREEDY)[0])
                assert text_of(one) == alone.text

    asyncio.run(main())


def test_what_was_read_is_told_and_a_context_stands_before_it_as_it_is() -> None:
    async def main() -> None:
        async with opened() as (desk, _):
            ids: list[int] = []
            chat = Chat(messages=HI, config=GREEDY, told=ids.extend)
            plain = await heard(desk.chat(chat))
            assert ids == await desk.prompt(chat) and done_of(plain).usage.prompt_tokens == len(ids)
            read = [*b"before", *ids]
            ids.clear()
            after = await heard(desk.chat(replace(chat, context=list(b"before"))))
            alone = await heard(desk.text(Text(prompt=read, config=GREEDY)))
            assert ids == read and text_of(after) == text_of(alone) != text_of(plain)

    asyncio.run(main())


def test_a_prompt_beyond_the_context_says_how_long_it_is() -> None:
    async def main() -> None:
        async with opened() as (desk, _):
            for events in (
                desk.chat(Chat(messages=[{"role": "user", "content": "a" * 2000}])),
                desk.text(Text(prompt="a" * 2000)),
            ):
                with pytest.raises(TooLongError) as wrong:
                    await heard(events)
                assert wrong.value.n >= 2000 and wrong.value.most == 1024
            with pytest.raises(TooLongError):
                await desk.embed("tiny", ["a" * 2000])

    asyncio.run(main())


def test_n_answers_have_seeds_in_a_row_and_the_best_of_some_is_the_likeliest() -> None:
    async def main() -> None:
        async with opened() as (desk, engine):
            config = SampleConfig(temperature=1.0, seed=5, max_tokens=6)
            events = await heard(desk.text(Text(prompt="a", config=config, n=3)))
            ids = engine.encode("a")
            alone = await on(
                desk, lambda: engine.generate_batch([ids] * 4, config, seeds=[5, 6, 7, 8], logprobs=True)
            )
            assert [text_of(events, i) for i in range(3)] == [c.text for c in alone[:3]]
            assert [done_of(events, i).seed for i in range(3)] == [5, 6, 7]
            best = await heard(desk.text(Text(prompt="a", config=config, n=2, best_of=4)))
            mean = [-(c.logprob_sum or 0) / (len(c.ids) + (c.finish_reason == "stop")) for c in alone]
            order = sorted(range(4), key=mean.__getitem__)[:2]
            assert [done_of(best, i).seed for i in range(2)] == [5 + i for i in order]
            assert [text_of(best, i) for i in range(2)] == [alone[i].text for i in order]
            with pytest.raises(ConfigError, match="best_of"):
                await heard(desk.text(Text(prompt="a", n=2, best_of=1)))

    asyncio.run(main())


def test_who_leaves_ends_the_work_written_or_queued() -> None:
    async def main() -> None:
        async with opened(limits=Limits(rows=1)) as (desk, engine):
            long = SampleConfig(temperature=0, max_tokens=900, logit_bias=("256=-100", "258=-100"))
            lane = desk.registry.served[0].lane
            first = desk.text(Text(prompt="a", config=long))
            assert isinstance(await anext(first), Delta)
            queued = asyncio.create_task(heard(desk.text(Text(prompt="b", config=long))))
            while not await on(desk, lambda: len(lane.waiting)):
                await asyncio.sleep(0)
            queued.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await queued
            await first.aclose()
            await on(desk, lambda: None)  # at most one step lies between
            await on(desk, lambda: None)
            await on(desk, lambda: None)
            assert not await on(desk, lambda: lane.busy)
            assert desk.registry.served[0].pins == 0

    asyncio.run(main())


def test_a_broken_lane_reaches_the_reader_and_the_next_job_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with opened() as (desk, _):
            with monkeypatch.context() as patch:

                def broken(*_: Any) -> None:
                    raise RuntimeError("out of memory")

                patch.setattr(Lane, "step", broken)
                with pytest.raises(RuntimeError, match="the model failed: out of memory"):
                    await heard(desk.text(Text(prompt="a", config=GREEDY)))
            assert done_of(await heard(desk.text(Text(prompt="a", config=GREEDY))))
            desk.registry.worker.close()
            with pytest.raises(BusyError, match="shutting down"):
                await heard(desk.text(Text(prompt="a", config=GREEDY)))

    asyncio.run(main())


def test_wrong_jobs_are_refused_before_the_first_event() -> None:
    async def main() -> None:
        async with opened() as (desk, _):
            for job, message in (
                (Chat(messages=[]), "needs a message"),
                (Chat(messages=[{"role": "robot", "content": ""}]), "role 'robot'"),
                (Chat(messages=HI, n=0), "'n' must be"),
                (Chat(messages=HI, tool_choice="required"), "there are no tools"),
                (Chat(messages=HI, tools=[TOOL], tool_choice={"name": "x"}), "names 'x'"),
                (Chat(messages=HI, format=Format(kind="xml")), "unknown format 'xml'"),
                (Chat(messages=HI, format=Format(kind="schema", value={"type": "thing"})), "thing"),
                (Chat(messages=HI, format=Format(kind="json"), ignore_stop_ids=True), "stop id"),
                (Chat(messages=HI, tools=[TOOL], format=Format(kind="regex", value="a")), "cannot call"),
                (Chat(messages=HI, prefill=True), "assistant's text"),
                (
                    Chat(messages=[{"role": "user", "content": "x" * 2000}]),
                    r"20\d\d tokens .* context of 1024",
                ),
                (Text(prompt=[999]), "the id 999"),
                (Text(prompt=[]), "no token"),
                (Text(prompt="a", score_only=True), "'echo'"),
            ):
                with pytest.raises(ConfigError, match=message):
                    await anext(desk.chat(job) if isinstance(job, Chat) else desk.text(job))
            with pytest.raises(UnknownModel):
                await anext(desk.chat(Chat(model="huge", messages=HI)))
        async with opened(limits=Limits(waiting=0)) as (desk, _):
            with pytest.raises(BusyError):
                await anext(desk.text(Text(prompt="a", config=GREEDY)))

    asyncio.run(main())


def test_a_refusal_names_the_field_that_is_wrong() -> None:
    """As it stands in a request, wherever in the desk or below it is found."""
    schema = {"type": "object", "properties": {"a": {"uniqueItems": True}}}
    strict = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
    odd, regex = Format(kind="schema", value=schema, param="text.format"), Format(kind="regex", value="a")
    biased = SampleConfig(logit_bias=("3=1", "260=1"))

    async def main() -> None:
        async with opened() as (desk, _):
            for job, param in (
                (Chat(messages=HI, config=biased), "logit_bias"),
                (Text(prompt="a", config=biased), "logit_bias"),
                (Chat(messages=HI, stop_ids=[3, 260]), "stop_token_ids"),
                (Text(prompt="a", stop_ids=[260]), "stop_token_ids"),
                (Text(prompt=[260]), "prompt"),
                (Text(prompt="a", suffix="b"), "suffix"),
                (Text(prompt="a", suffix="b", echo=True), "suffix"),
                (Chat(messages=HI, format=odd), "text.format"),
                (Text(prompt="a", format=replace(regex, value="(", param="guided_regex")), "guided_regex"),
                (Chat(messages=HI, tools=[TOOL], format=replace(regex, param="grammar")), "grammar"),
                (Chat(messages=HI, tools=[TOOL], format=odd), "text.format"),
                (Chat(messages=HI, tools=[strict]), "tools"),
                (Chat(messages=HI, tool_choice="required"), "tool_choice"),
                (Chat(messages=HI, tools=[TOOL], tool_choice={"name": "x"}), "tool_choice"),
            ):
                with pytest.raises(FieldError) as found:
                    await anext(desk.chat(job) if isinstance(job, Chat) else desk.text(job))
                assert found.value.param == param, job
            for work, param in ((desk.embed("", [[260]]), "input"), (desk.detokenize("", [260]), "tokens")):
                with pytest.raises(FieldError) as found:
                    await work
                assert found.value.param == param

    asyncio.run(main())


@pytest.mark.parametrize("score_only", [False, True])
def test_echoed_reports_equal_a_plain_pass(score_only: bool) -> None:
    async def main() -> None:
        async with opened() as (desk, engine):
            prompt = [72, 200, 105, 33, 72]
            job = Text(
                prompt=prompt, echo=True, logprobs=3, score_only=score_only,
                config=SampleConfig(temperature=0, max_tokens=1, logit_bias=("256=-100", "258=-100")),
            )  # fmt: skip
            events = await heard(desk.text(job))
            tokens = [t for e in events if isinstance(e, Delta) for t in e.tokens]
            assert text_of(events).startswith(TOKENIZER.decode(prompt))
            assert [t.id for t in tokens[:5]] == prompt and len(tokens) == 5 + (not score_only)
            assert (tokens[1].text, tokens[1].bytes) == ("bytes:\\xc8", b"\xc8") and tokens[0].logprob is None
            done = done_of(events)
            assert (done.finish_reason, done.usage.completion_tokens) == ("length", int(not score_only))
            ids = [t.id for t in tokens]
            table = await on(
                desk, lambda: nn.log_softmax(engine.model(mx.array([ids]))[0].astype(mx.float32)).tolist()
            )
            for at, token in enumerate(tokens[1:]):
                assert token.logprob == pytest.approx(table[at][token.id], abs=1e-4)
                best = sorted(table[at], reverse=True)[:3]
                assert [value for _, value in token.top] == pytest.approx(best, abs=1e-4)
                if token.id == token.top[0][0].id:
                    assert token.logprob == token.top[0][1]  # clients compare them
            if not score_only:
                assert tokens[-1].id == tokens[-1].top[0][0].id

    asyncio.run(main())


def test_a_prompt_that_fills_the_context_can_be_scored() -> None:
    async def main() -> None:
        async with opened() as (desk, _):
            job = Text(prompt=[7] * 1024, echo=True, logprobs=0, score_only=True)
            events = await heard(desk.text(job))
            assert sum(len(e.tokens) for e in events if isinstance(e, Delta)) == 1024

    asyncio.run(main())


def test_formats_bind_answers_and_the_server_may_have_one_of_its_own() -> None:
    async def main() -> None:
        choices = Format(kind="choice", value=["yes", "no"])
        config = SampleConfig(temperature=1.0, seed=3, max_tokens=20)
        async with opened(grammar=choices) as (desk, _):
            events = await heard(desk.chat(Chat(messages=HI, config=config, n=4)))
            assert {text_of(events, i) for i in range(4)} <= {"yes", "no"}
            assert text_of(await heard(desk.text(Text(prompt="a", config=config)))) in ("yes", "no")
            digits = Chat(messages=HI, config=config, format=Format(kind="regex", value="[0-9]{3}"))
            assert text_of(await heard(desk.chat(digits))).isdecimal()
            assert len(text_of(await heard(desk.chat(Chat(messages=HI, config=config, tools=[TOOL]))))) > 3

    asyncio.run(main())


def test_embeddings_are_mean_hidden_states_of_length_one() -> None:
    async def main() -> None:
        async with opened() as (desk, engine):
            vectors, n = await desk.embed("", ["ab", [1, 2, 3, 4], "abc"])
            assert n == 9
            for ids, vector in zip(([97, 98], [1, 2, 3, 4], [97, 98, 99]), vectors):
                mean = await on(
                    desk, lambda ids=ids: engine.model.hidden(mx.array([ids]))[0].mean(axis=0).tolist()
                )
                length = sum(x * x for x in mean) ** 0.5
                assert vector == pytest.approx([x / length for x in mean], abs=1e-5)
            with pytest.raises(ConfigError, match="2000 tokens"):
                await desk.embed("", ["x" * 2000])
            assert await desk.tokenize("", "hé") == [104, 195, 169]
            assert await desk.tokenize("", "h<|im_end|>", control=True) == [104, 258]
            assert len(await desk.tokenize("", "h<|im_end|>")) == 11
            assert await desk.detokenize("", [104, 195, 169, 258]) == "hé<|im_end|>"
            with pytest.raises(ConfigError, match="the id 300"):
                await desk.detokenize("", [300])
            assert [c.name for c in desk.models()] == ["tiny"] and (await desk.card("")).loaded

    asyncio.run(main())


def test_pieces_that_nobody_reads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygpt.serve import bridge

    monkeypatch.setattr(bridge, "UNREAD", 8)

    async def main() -> None:
        async with opened() as (desk, _):
            long = SampleConfig(temperature=0, max_tokens=200, logit_bias=("256=-100", "258=-100"))
            lane = desk.registry.served[0].lane
            events = desk.text(Text(prompt="a", config=long))
            await anext(events)
            ended = threading.Event()
            while not ended.is_set():  # the reader sleeps while the worker writes
                desk.registry.worker.call(lambda: None if lane.busy else ended.set()).result(10)
            with pytest.raises(BusyError, match="not read as fast"):
                await heard(events)

    asyncio.run(main())
