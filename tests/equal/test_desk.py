"""The desk over a real worker, lanes and engines: what is served is what the engine gives, and it ends when
its reader leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import BusyError, ConfigError, UnknownModel, UnsupportedError
from tinygpt.data.template import _choice
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.infer.worker import Worker
from tinygpt.model.cache.full import KVCache
from tinygpt.model.config import ModelConfig
from tinygpt.serve import toolbox
from tinygpt.serve.desk import FrontDesk
from tinygpt.serve.job import Chat, Delta, Done, Event, Format, ModelCard, Text
from tinygpt.serve.registry import Opened, Registry

TOKENIZER = ByteTokenizer()
GREEDY = SampleConfig(temperature=0, max_tokens=16)
HI = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
END = TOKENIZER.special["<|im_end|>"]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city.\nSecond line.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 5}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Scripted(nn.Module):
    """A model that writes the script of a prompt: the n-th, when n results of tools are in it. Answers of
    different turns must not overlap."""

    def __init__(self, scripts: Sequence[str], context: int = 4096) -> None:
        super().__init__()
        self._config = ModelConfig(
            vocab_size=260, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
            max_position_embeddings=context,
        )  # fmt: skip
        self._scripts = [[*s.encode(), END] for s in scripts]
        self._left: list[int] = []
        self.prompts: list[str] = []

    @property
    def config(self) -> ModelConfig:
        return self._config

    def make_cache(self, left_padding: Any = None) -> list[Any]:
        cache = Nothing()
        cache.left_padding = None if left_padding is None else mx.array(left_padding)
        return [cache]

    def __call__(self, tokens_BL: mx.array, cache: Any = None, *, last: int = 0) -> mx.array:
        if tokens_BL.shape[1] > 1:
            self.prompts.append(TOKENIZER.decode(tokens_BL[0].tolist()))
            self._left = list(self._scripts[self.prompts[-1].count("<tool_response>")])
        id = self._left.pop(0) if self._left else END
        row_V = (mx.arange(260) == id).astype(mx.float32) * 9
        return mx.broadcast_to(row_V, (tokens_BL.shape[0], last or tokens_BL.shape[1], 260))


class Nothing(KVCache):
    """A cache without content."""

    state = ()


def _tiny() -> Any:
    return nano.model(vocab_size=260, max_position_embeddings=1024)


@contextlib.asynccontextmanager
async def _desk(
    model: Callable[[], Any] = _tiny,
    tokenizer: Any = TOKENIZER,
    limits: Limits | None = None,
    template: str = "auto",
    **options: Any,
) -> AsyncGenerator[tuple[FrontDesk, Engine]]:
    made: list[Engine] = []

    def open_(name: str, base: Engine | None) -> Opened:
        made.append(Engine(model(), tokenizer, _choice.of(tokenizer, template)))
        return Opened(engine=made[0], lane=Lane(made[0], limits), card=CARD, own_bytes=0)

    with Worker() as worker:
        registry = Registry(worker, open_, lambda: {"tiny": CARD})
        await registry.load("tiny")
        desk = FrontDesk(registry, **options)
        try:
            yield desk, made[0]
        finally:
            desk.close()
            await registry.close()


CARD = ModelCard(name="tiny", created=0, context=1024, size_bytes=0, n_parameters=0, digest="")


async def _all(events: Any) -> list[Event]:
    return [event async for event in events]


def _text(events: Sequence[Event], index: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, Delta) and e.index == index)


def _done(events: Sequence[Event], index: int = 0) -> Done:
    (found,) = [e for e in events if isinstance(e, Done) and e.index == index]
    return found


def _calls(events: Sequence[Event]) -> list[tuple[str, Any]]:
    parts = [p for e in events if isinstance(e, Delta) for p in e.calls]
    return [(p.name, json.loads(p.arguments)) for p in parts]


async def _on(desk: FrontDesk, work: Callable[[], Any]) -> Any:
    """Something of the engine's, on the thread that owns it."""
    return await asyncio.wrap_future(desk.registry.worker.call(work))


def test_served_is_in_process_alone_and_with_neighbours() -> None:
    async def main() -> None:
        async with _desk() as (desk, engine):
            prompt = engine.encode_chat(HI)
            own = await _on(desk, lambda: engine.generate_batch([prompt], GREEDY)[0])
            jobs = [desk.text(Text(prompt="x" * i, config=GREEDY)) for i in range(8)]
            events, *rest = await asyncio.gather(
                _all(desk.chat(Chat(messages=HI, config=GREEDY))), *map(_all, jobs)
            )
            assert _text(events) == own.text
            done = _done(events)
            assert (done.finish_reason, done.usage.completion_tokens) == (own.finish_reason, len(own.ids))
            assert done.usage.prompt_tokens == len(prompt)
            for i, one in enumerate(rest):
                ids = engine.encode("x" * i)
                alone = await _on(desk, lambda ids=ids: engine.generate_batch([ids], GREEDY)[0])
                assert _text(one) == alone.text

    asyncio.run(main())


def test_n_answers_have_seeds_in_a_row_and_the_best_of_some_is_the_likeliest() -> None:
    async def main() -> None:
        async with _desk() as (desk, engine):
            config = SampleConfig(temperature=1.0, seed=5, max_tokens=6)
            events = await _all(desk.text(Text(prompt="a", config=config, n=3)))
            ids = engine.encode("a")
            alone = await _on(
                desk, lambda: engine.generate_batch([ids] * 4, config, seeds=[5, 6, 7, 8], logprobs=True)
            )
            assert [_text(events, i) for i in range(3)] == [c.text for c in alone[:3]]
            assert [_done(events, i).seed for i in range(3)] == [5, 6, 7]
            best = await _all(desk.text(Text(prompt="a", config=config, n=2, best_of=4)))
            mean = [-(c.logprob_sum or 0) / (len(c.ids) + (c.finish_reason == "stop")) for c in alone]
            order = sorted(range(4), key=mean.__getitem__)[:2]
            assert [_done(best, i).seed for i in range(2)] == [5 + i for i in order]
            assert [_text(best, i) for i in range(2)] == [alone[i].text for i in order]
            with pytest.raises(ConfigError, match="best_of"):
                await _all(desk.text(Text(prompt="a", n=2, best_of=1)))

    asyncio.run(main())


def test_who_leaves_ends_the_work_written_or_queued() -> None:
    async def main() -> None:
        async with _desk(limits=Limits(rows=1)) as (desk, engine):
            long = SampleConfig(temperature=0, max_tokens=900, logit_bias=("256=-100", "258=-100"))
            lane = desk.registry.served[0].lane
            first = desk.text(Text(prompt="a", config=long))
            assert isinstance(await anext(first), Delta)
            queued = asyncio.create_task(_all(desk.text(Text(prompt="b", config=long))))
            while not await _on(desk, lambda: len(lane.waiting)):
                await asyncio.sleep(0)
            queued.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await queued
            await first.aclose()
            await _on(desk, lambda: None)  # at most one step lies between
            await _on(desk, lambda: None)
            await _on(desk, lambda: None)
            assert not await _on(desk, lambda: lane.busy)
            assert desk.registry.served[0].pins == 0

    asyncio.run(main())


def test_a_broken_lane_reaches_the_reader_and_the_next_job_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with _desk() as (desk, _):
            with monkeypatch.context() as patch:

                def broken(*_: Any) -> None:
                    raise RuntimeError("out of memory")

                patch.setattr(Lane, "step", broken)
                with pytest.raises(RuntimeError, match="the model failed: out of memory"):
                    await _all(desk.text(Text(prompt="a", config=GREEDY)))
            assert _done(await _all(desk.text(Text(prompt="a", config=GREEDY))))
            desk.registry.worker.close()
            with pytest.raises(BusyError, match="shutting down"):
                await _all(desk.text(Text(prompt="a", config=GREEDY)))

    asyncio.run(main())


def test_wrong_jobs_are_refused_before_the_first_event() -> None:
    async def main() -> None:
        async with _desk() as (desk, _):
            for job, message in (
                (Chat(messages=[]), "needs a message"),
                (Chat(messages=[{"role": "robot", "content": ""}]), "role 'robot'"),
                (Chat(messages=HI, n=0), "'n' must be"),
                (Chat(messages=HI, tool_choice="required"), "there are no tools"),
                (Chat(messages=HI, tools=[TOOL], tool_choice={"name": "x"}), "names 'x'"),
                (Chat(messages=HI, format=Format(kind="xml")), "unknown format 'xml'"),
                (Chat(messages=HI, format=Format(kind="schema", value={"type": "thing"})), "thing"),
                (Chat(messages=HI, format=Format(kind="json"), ignore_stop_ids=True), "stop id"),
                (Chat(messages=HI, tools=[TOOL], format=Format(kind="json")), "cannot call tools"),
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
            with pytest.raises(UnsupportedError, match="fill in a gap"):
                await anext(desk.text(Text(prompt="a", suffix="b")))
        async with _desk(limits=Limits(waiting=0)) as (desk, _):
            with pytest.raises(BusyError):
                await anext(desk.text(Text(prompt="a", config=GREEDY)))

    asyncio.run(main())


@pytest.mark.parametrize("score_only", [False, True])
def test_echoed_reports_equal_a_plain_pass(score_only: bool) -> None:
    async def main() -> None:
        async with _desk() as (desk, engine):
            prompt = [72, 200, 105, 33, 72]
            job = Text(
                prompt=prompt, echo=True, logprobs=3, score_only=score_only,
                config=SampleConfig(temperature=0, max_tokens=1, logit_bias=("256=-100", "258=-100")),
            )  # fmt: skip
            events = await _all(desk.text(job))
            tokens = [t for e in events if isinstance(e, Delta) for t in e.tokens]
            assert _text(events).startswith(TOKENIZER.decode(prompt))
            assert [t.id for t in tokens[:5]] == prompt and len(tokens) == 5 + (not score_only)
            assert (tokens[1].text, tokens[1].bytes) == ("bytes:\\xc8", b"\xc8") and tokens[0].logprob is None
            done = _done(events)
            assert (done.finish_reason, done.usage.completion_tokens) == ("length", int(not score_only))
            ids = [t.id for t in tokens]
            table = await _on(
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
        async with _desk() as (desk, _):
            job = Text(prompt=[7] * 1024, echo=True, logprobs=0, score_only=True)
            events = await _all(desk.text(job))
            assert sum(len(e.tokens) for e in events if isinstance(e, Delta)) == 1024

    asyncio.run(main())


def test_random_weights_call_the_tool_that_must_be_called() -> None:
    async def main() -> None:
        async with _desk() as (desk, _):
            config = SampleConfig(temperature=1.0, seed=1, max_tokens=300)
            for choice in ("required", {"name": "weather"}):
                job = Chat(messages=HI, tools=[TOOL], tool_choice=choice, config=config, parallel=False)
                events = await _all(desk.chat(job))
                ((name, arguments),) = _calls(events)
                assert name == "weather" and set(arguments) == {"city"} and not _text(events)
                assert _done(events).finish_reason == "tool_calls"

    asyncio.run(main())


def test_formats_bind_answers_and_the_server_may_have_one_of_its_own() -> None:
    async def main() -> None:
        choices = Format(kind="choice", value=["yes", "no"])
        config = SampleConfig(temperature=1.0, seed=3, max_tokens=20)
        async with _desk(grammar=choices) as (desk, _):
            events = await _all(desk.chat(Chat(messages=HI, config=config, n=4)))
            assert {_text(events, i) for i in range(4)} <= {"yes", "no"}
            assert _text(await _all(desk.text(Text(prompt="a", config=config)))) in ("yes", "no")
            digits = Chat(messages=HI, config=config, format=Format(kind="regex", value="[0-9]{3}"))
            assert _text(await _all(desk.chat(digits))).isdecimal()
            assert len(_text(await _all(desk.chat(Chat(messages=HI, config=config, tools=[TOOL]))))) > 3

    asyncio.run(main())


CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>'
ASK = 'I look.\n<tool_call>\n{"name": "get_tool_info", "arguments": {"name": "weather"}}\n</tool_call>'


def test_calls_are_read_and_one_may_be_the_most() -> None:
    async def main() -> None:
        config = SampleConfig(temperature=0, max_tokens=900)
        async with _desk(lambda: Scripted([f"<think>\nHm.\n</think>\n\nSo:\n{CALL}\n{CALL}"])) as (desk, _):
            events = await _all(desk.chat(Chat(messages=HI, tools=[TOOL], config=config, logprobs=0)))
            assert _calls(events) == [("weather", {"city": "Ulm"})] * 2
            assert _text(events) == "So:" and _done(events).finish_reason == "tool_calls"
            assert "".join(e.reasoning for e in events if isinstance(e, Delta)) == "Hm."
            ids = [p.id for e in events if isinstance(e, Delta) for p in e.calls]
            assert len(set(ids)) == 2 and all(id.startswith("call_") for id in ids)
            tokens = [t for e in events if isinstance(e, Delta) for t in e.tokens]
            assert len(tokens) == _done(events).usage.completion_tokens
            assert 0 < _done(events).usage.reasoning_tokens < 20
            one = await _all(desk.chat(Chat(messages=HI, tools=[TOOL], config=config, parallel=False)))
            assert len(_calls(one)) == 1 and _done(one).finish_reason == "tool_calls"
            none = await _all(desk.chat(Chat(messages=HI, tools=[TOOL], config=config, tool_choice="none")))
            assert _text(none) == f"So:\n{CALL}\n{CALL}" and _done(none).finish_reason == "stop"

    asyncio.run(main())


def test_deferred_tools_are_looked_up_at_most_three_times(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps({"tools": [TOOL, {"name": "a_tool"}]}))
    box = toolbox.load(tmp_path / "tools.json", "deferred")
    metrics = toolbox.Metrics(tmp_path / "metrics.jsonl")

    async def main() -> None:
        config = SampleConfig(temperature=0, max_tokens=900)
        scripts = Scripted([ASK, CALL])
        async with _desk(lambda: scripts, tools=box, metrics=metrics) as (desk, _):
            events = await _all(desk.chat(Chat(messages=HI, config=config, stream=True)))
            assert _calls(events) == [("weather", {"city": "Ulm"})] and _text(events) == "I look."
            done = _done(events)
            assert (done.finish_reason, done.usage.tool_info_hops) == ("tool_calls", 1)
            assert done.usage.completion_tokens == len(ASK) + len(CALL)
            assert done.usage.prompt_tokens == sum(
                len(TOKENIZER.encode(p, special=True)) for p in scripts.prompts
            )
            first, second = scripts.prompts
            assert "a_tool \u2014 no description\nweather \u2014 Weather of a city." in first
            assert "Second line" not in first and '"maxLength": 5' in second.rpartition("<tool_response>")[2]
        again = Scripted([ASK] * 4)
        async with _desk(lambda: again, tools=box, metrics=metrics) as (desk, _):
            events = await _all(desk.chat(Chat(messages=HI, config=config)))
            assert len(again.prompts) == 4 and not _calls(events)
            assert toolbox.ENOUGH in again.prompts[3] and toolbox.ENOUGH not in again.prompts[2]
            done = _done(events)
            assert (done.finish_reason, done.usage.tool_info_hops) == ("stop", 3)
            off = await _all(desk.chat(Chat(messages=HI, config=config, tool_choice="none")))
            assert _text(off) == ASK and "weather" not in again.prompts[-1]

    asyncio.run(main())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["get_tool_info_hops"], r["streaming"]) for r in rows] == [(1, True), (3, False), (0, False)]
    assert {r["tool_mode"] for r in rows} == {"deferred"} and all(r["completion_tokens"] for r in rows)


def test_tools_of_the_server_are_shown_in_full_unless_the_client_has_its_own() -> None:
    box = toolbox.Toolbox((TOOL,))
    mine = {"type": "function", "function": {"name": "weather", "description": "mine"}}
    assert [toolbox.name_of(t) for t in box.shown([])] == ["weather"] and box.shown([mine]) == [mine]
    with pytest.raises(ConfigError, match="two tools"):
        toolbox.Toolbox((TOOL, TOOL))
    with pytest.raises(ConfigError, match="tool_mode"):
        toolbox.Toolbox((TOOL,), "half")


def test_embeddings_are_mean_hidden_states_of_length_one() -> None:
    async def main() -> None:
        async with _desk() as (desk, engine):
            vectors, n = await desk.embed("", ["ab", [1, 2, 3, 4], "abc"])
            assert n == 9
            for ids, vector in zip(([97, 98], [1, 2, 3, 4], [97, 98, 99]), vectors):
                mean = await _on(
                    desk, lambda ids=ids: engine.model.hidden(mx.array([ids]))[0].mean(axis=0).tolist()
                )
                length = sum(x * x for x in mean) ** 0.5
                assert vector == pytest.approx([x / length for x in mean], abs=1e-5)
            with pytest.raises(ConfigError, match="2000 tokens"):
                await desk.embed("", ["x" * 2000])
            assert await desk.tokenize("", "hé") == [104, 195, 169]
            assert await desk.detokenize("", [104, 195, 169, 258]) == "hé<|im_end|>"
            with pytest.raises(ConfigError, match="no id 300"):
                await desk.detokenize("", [300])
            assert [c.name for c in desk.models()] == ["tiny"] and (await desk.card("")).loaded

    asyncio.run(main())


def test_pieces_that_nobody_reads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygpt.serve import bridge

    monkeypatch.setattr(bridge, "UNREAD", 8)

    async def main() -> None:
        async with _desk() as (desk, _):
            long = SampleConfig(temperature=0, max_tokens=200, logit_bias=("256=-100", "258=-100"))
            lane = desk.registry.served[0].lane
            events = desk.text(Text(prompt="a", config=long))
            await anext(events)
            ended = threading.Event()
            while not ended.is_set():  # the reader sleeps while the worker writes
                desk.registry.worker.call(lambda: None if lane.busy else ended.set()).result(10)
            with pytest.raises(BusyError, match="not read as fast"):
                await _all(events)

    asyncio.run(main())
