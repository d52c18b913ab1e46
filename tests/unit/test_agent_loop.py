"""The agent's loop with a writer by script: turns, repair, limits, parallel calls, overflow, escalation."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tinygpt.agent import keep
from tinygpt.agent.loop import CANCELLED, UNKNOWN, Agent, Limits
from tinygpt.agent.policy import Decision
from tinygpt.agent.recorder import Recorder, messages_of
from tinygpt.agent.tool import Cancel, Outcome
from tinygpt.agent.turn import KEPT, REPAIR, Message, Said, Turn
from tinygpt.core.errors import ConfigError, TooLongError
from tinygpt.data import atraj


def call(name: str, number: int = 0, **arguments: Any) -> Message:
    return {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def said(text: str = "", *calls: Message, error: str = "", reason: str = "stop") -> Said:
    message: Message = {"role": "assistant", "content": text} | ({"tool_calls": list(calls)} if calls else {})
    return Said(message=message, error=error, finish_reason=reason, n_written=10, n_prompt=5)


class Script:
    """Says what it was given; a letter is a token."""

    def __init__(self, *turns: Said, room: int | None = None) -> None:
        self.turns, self.asked, self.most = list(turns), list[Turn](), room

    def write(self, turn: Turn) -> Said:
        self.asked.append(dataclasses.replace(turn, messages=list(turn.messages)))
        found = self.turns.pop(0)
        turn.on_text(found.message["content"])
        return found

    def room(self, max_tokens: int) -> int | None:
        return self.most

    def size(self, messages: Sequence[Message], tools: Any) -> int:
        return len(self.encode(messages, tools, answer=True) or ())

    def encode(self, messages: Sequence[Message], tools: Any, *, answer: bool) -> list[int] | None:
        return [ord(c) for m in messages for c in f"<{m['content']}"] + [ord("!")] * answer

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


class Tools:
    """Two tools: `ls` only reads."""

    def __init__(self, act: Callable[[str, Any], Outcome] | None = None) -> None:
        self.made = list[tuple[str, Any]]()
        self._act = act or (lambda name, arguments: Outcome(stdout=f"{name} done"))

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": name}} for name in ("ls", "rm")]

    def harmless(self, name: str) -> bool:
        return name == "ls"

    def run(self, name: str, arguments: Any, cancel: Cancel) -> tuple[Decision, Outcome]:
        self.made.append((name, arguments))
        decision = Decision(tool=name, arguments=arguments, rule="told", allowed=True)
        return decision, self._act(name, arguments)


class Heard:
    def __init__(self) -> None:
        self.written, self.told = "", list[tuple[str, dict[str, Any]]]()

    def text(self, piece: str) -> None:
        self.written += piece

    def tell(self, event: str, **facts: Any) -> None:
        self.told.append((event, facts))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]


def agent(script: Script, tools: Tools | None = None, **more: Any) -> tuple[Agent, Heard]:
    heard = Heard()
    limits = more.pop("limits", Limits())
    cancel = more.pop("cancel", threading.Event())
    return Agent(script, tools or Tools(), limits, heard, cancel, **more), heard


def test_calls_are_made_and_read_until_there_is_an_answer() -> None:
    script = Script(said("", call("rm", 0, path="a"), call("ls", 1)), said("Removed."))
    tools = Tools()
    one, heard = agent(script, tools, messages=[{"role": "system", "content": "Help."}])
    found = one.ask("remove a")
    assert (found.text, found.outcome, found.fallback, found.steps) == ("Removed.", "answered", False, 2)
    assert tools.made == [("rm", {"path": "a"}), ("ls", {})]
    assert [m["role"] for m in one.messages] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert one.messages[3] == {"role": "tool", "tool_call_id": "c0", "name": "rm", "content": "rm done"}
    names = [
        "user",
        "assistant",
        "tool_call",
        "tool_call",
        "tool_result",
        "tool_result",
        "assistant",
        "answer",
    ]
    assert heard.names == names
    assert heard.written == "Removed." and one.counts["calls"] == 2 and one.counts["written_tokens"] == 20


def test_calls_that_only_read_run_beside_each_other_and_others_one_by_one() -> None:
    barrier = threading.Barrier(3)

    def together(name: str, arguments: Any) -> Outcome:
        barrier.wait(10)  # none returns before all have begun
        return Outcome(stdout=str(arguments["n"]))

    script = Script(said("", *(call("ls", n, n=n) for n in range(3))), said("ok"))
    one, _ = agent(script, Tools(together))
    one.ask("go")
    assert [m["content"] for m in one.messages if m["role"] == "tool"] == ["0", "1", "2"]

    running = threading.Lock()

    def alone(name: str, arguments: Any) -> Outcome:
        assert running.acquire(blocking=False)
        running.release()
        return Outcome(stdout=name)

    one, _ = agent(Script(said("", call("rm", 0), call("ls", 1)), said("ok")), Tools(alone))
    assert one.ask("go").outcome == "answered"


def test_what_is_no_turn_is_asked_for_once_more() -> None:
    script = Script(said("<tool_call>{", error="not whole"), said("", call("ls")), said("done"))
    one, heard = agent(script)
    assert one.ask("go").outcome == "answered"
    assert "not whole" in script.asked[1].messages[-1]["content"] and heard.names.count("repair") == 1
    script = Script(said("{", error="not whole"), said("{{", error="not whole either"))
    one, heard = agent(script)
    found = one.ask("go")
    assert (found.text, found.outcome, found.fallback) == ("{{", "unparsable", True)
    assert heard.told[-1] == ("answer", {"content": "{{", "fallback": True, "outcome": "unparsable"})


def test_limits() -> None:
    turns = [said("", call("ls", n)) for n in range(9)]
    one, _ = agent(Script(*turns), limits=Limits(max_steps=3))
    assert (one.ask("go").outcome, one.counts["turns"]) == ("steps", 3)
    script = Script(*turns)
    one, _ = agent(script, limits=Limits(max_tokens=16, budget=25))
    assert one.ask("go").outcome == "budget"
    assert [turn.max_tokens for turn in script.asked] == [16, 15, 5]
    script = Script(said("{", error="not whole"), said("", call("ls")), said("ok"))
    one, _ = agent(script, limits=Limits(max_tokens=16, budget=20))
    assert one.ask("go").outcome == "budget" and [turn.max_tokens for turn in script.asked] == [16, 10]
    one, heard = agent(Script(said("{", error="not whole")), limits=Limits(budget=10))
    assert one.ask("go").outcome == "unparsable" and "repair" not in heard.names
    with pytest.raises(ConfigError, match="at least 1"):
        Limits(max_steps=0)


def test_a_request_that_does_not_fit_ends_without_an_answer() -> None:
    one, heard = agent(Script(room=20))
    found = one.ask("a" * 40)
    assert (found.outcome, found.text, found.steps) == ("context", "", 0) and "full" in heard.names


def test_a_cancelled_turn_calls_nothing() -> None:
    cancel, tools = threading.Event(), Tools()
    one, _ = agent(Script(said("half", reason="cancelled")), tools, cancel=cancel)
    assert one.ask("go").outcome == "cancelled" and not tools.made

    def stop(name: str, arguments: Any) -> Outcome:
        cancel.set()
        return Outcome(stderr="stopped", exit_code=1)

    one, _ = agent(Script(said("", call("rm"))), Tools(stop), cancel=cancel)
    assert one.ask("go").outcome == "cancelled"
    assert one.messages[-1]["content"] == "stopped\nexit code 1"
    tools = Tools(stop)
    cancel.clear()
    one, _ = agent(Script(said("", call("rm", 0), call("rm", 1), call("ls", 2))), tools, cancel=cancel)
    assert one.ask("go").outcome == "cancelled" and len(tools.made) == 1
    assert [m["content"].partition("\n")[0] for m in one.messages[-2:]] == [CANCELLED, CANCELLED]
    one, _ = agent(Script(said("", call("rm"))), tools, cancel=cancel)  # wished while it was written
    assert one.ask("go").outcome == "cancelled" and one.messages[-1]["role"] == "tool"
    assert len(tools.made) == 1


def test_a_router_narrows_the_first_turn_alone() -> None:
    script = Script(said("", call("ls")), said("done"))
    one, _ = agent(script, route=lambda request, tell: ["ls"])
    one.ask("go")
    assert [list(turn.first) for turn in script.asked] == [["ls"], []]
    assert [turn.choice for turn in script.asked] == ["auto", "auto"]
    script = Script(said("no tool"))
    one, _ = agent(script, route=lambda request, tell: [])
    one.ask("go")
    assert script.asked[0].choice == "none"


class Cloud:
    entry = {"type": "function", "function": {"name": "escalate"}}

    def __init__(self, answer: str | None) -> None:
        self.answer, self.asked = answer, list[tuple[list[Message], str]]()

    def wanted(self, message: Message) -> str | None:
        if any(one["function"]["name"] == "escalate" for one in message.get("tool_calls") or ()):
            return "hard"
        return "deferred" if "defer_to_cloud" in message["content"] else None

    def ask(self, messages: Any, reason: str, on_text: Any, cancel: Any) -> str | None:
        self.asked.append((list(messages), reason))
        return self.answer


def test_escalation_by_a_call_and_by_words() -> None:
    cloud = Cloud("42")
    tools = Tools()
    one, _ = agent(Script(said("", call("escalate", 0), call("rm", 1))), tools, escalation=cloud)
    found = one.ask("what is it?")
    assert (found.text, found.outcome) == ("42", "escalated") and not tools.made
    assert [m["role"] for m in cloud.asked[0][0]] == ["user"]
    assert [m["content"] for m in one.messages[-2:]][0] == "42"
    cloud = Cloud("43")
    one, _ = agent(Script(said('{"defer_to_cloud": true}')), escalation=cloud)
    assert one.ask("what?").text == "43" and one.messages[-1] == {"role": "assistant", "content": "43"}


def test_a_cancelled_escalation_is_no_answer() -> None:
    cancel = threading.Event()
    cloud = Cloud("par\n[it was cancelled]")

    def ask(messages: Any, reason: str, on_text: Any, cancel: Any) -> str | None:
        cancel.set()
        return cloud.answer

    cloud.ask = ask
    one, heard = agent(Script(said("", call("escalate"))), escalation=cloud, cancel=cancel)
    assert one.ask("what?").outcome == "cancelled" and heard.told[-1][1]["fallback"]


def test_a_conversation_too_long_for_the_stronger_model_stays_here() -> None:
    cloud = Cloud(None)

    def ask(messages: Any, reason: str, on_text: Any, cancel: Any) -> str | None:
        raise TooLongError(300, 256)

    cloud.ask = ask
    script = Script(said("", call("escalate")), said("then I try"))
    assert agent(script, escalation=cloud)[0].ask("what?").text == "then I try"
    assert "No answer came" in script.asked[1].messages[-1]["content"]


def test_a_refused_escalation_leaves_it_to_the_model() -> None:
    script = Script(said('{"defer_to_cloud": true}'), said("then I try"))
    one, _ = agent(script, escalation=Cloud(None))
    assert one.ask("what?").text == "then I try"
    assert script.asked[1].messages[-1] == {"role": "user", "content": KEPT}


def test_a_full_context_loses_whole_turns_then_exchanges_then_middles() -> None:
    messages: list[Message] = [{"role": "system", "content": "S"}]
    for n in range(3):
        messages += [{"role": "user", "content": f"u{n}"}, {"role": "assistant", "content": f"a{n}"}]
        messages += [{"role": "tool", "content": f"t{n}"}, {"role": "assistant", "content": f"b{n}"}]

    def size(some: Sequence[Message]) -> int:
        return sum(len(m["content"]) for m in some)

    kept = keep.fitted(messages, size, 20)
    assert [m["content"] for m in kept.messages] == ["S", *(x + n for n in "12" for x in "uatb")]
    kept = keep.fitted(messages, size, 6)
    assert [m["content"] for m in kept.messages] == ["S", "u2", "b2"]
    assert [m["content"] for m in kept.dropped[-2:]] == ["a2", "t2"]
    long = [{"role": "user", "content": "u"}, {"role": "assistant", "content": ""}]
    long += [{"role": "tool", "content": "x" * 5000}]
    kept = keep.fitted(long, size, 1000)
    assert size(kept.messages) <= 1000 and "letters left out" in kept.messages[-1]["content"]
    assert kept.n_cut == 5000 - len(kept.messages[-1]["content"])
    with pytest.raises(TooLongError):
        keep.fitted([{"role": "user", "content": "u" * 10}], size, 5)


@pytest.mark.parametrize(
    "own",
    [REPAIR.format(error="not whole"), KEPT, f"No answer came (odd). {KEPT}"],
    ids=["repair", "kept", "failed"],
)
def test_a_request_stays_whatever_the_loop_said_behind_it(own: str) -> None:
    said_ = [("user", "old"), ("assistant", "so"), ("user", "request"), ("assistant", "{"), ("user", own)]
    messages = [{"role": role, "content": text} for role, text in [*said_, ("assistant", "x")]]
    kept = keep.fitted(messages, len, 2)
    assert [m["content"] for m in kept.messages] == ["request", "x"]
    with pytest.raises(TooLongError):
        keep.fitted(messages[:5], len, 2)
    asked = list[str]()
    again, _ = agent(Script(said("done")), route=lambda request, tell: asked.append(request))
    again.go_on(messages[:5], [])
    assert asked == ["request"]


def test_a_summary_tells_what_was_summarised_before() -> None:
    script = Script(said("A"), said("first"), said("B"), said("second"), said("C"), room=230)
    one, _ = agent(script, summarise=True)
    for letter in "abc":
        assert one.ask(letter * 150).outcome == "answered"
    assert "first" in script.asked[3].messages[0]["content"]
    assert one.messages[0] == {"role": "system", "content": "Earlier in this conversation: second"}
    script = Script(said("A"), said("they talked"), said("B"), room=80)
    one, _ = agent(script, summarise=True)
    one.ask("a" * 60)  # of its summary there is no room beside the next
    assert one.ask("b" * 60).outcome == "answered" and one.messages[0]["role"] == "user"


def test_what_leaves_may_be_summarised() -> None:
    script = Script(said("short"), said("they talked"), said("ok"), room=60)
    one, heard = agent(script, messages=[{"role": "system", "content": "S"}], summarise=True)
    one.ask("a" * 40)
    assert one.ask("b" * 10).text == "ok"
    assert "a" * 10 in script.asked[1].messages[0]["content"]
    assert one.messages[0]["content"] == "S\n\nEarlier in this conversation: they talked"
    assert ("dropped", {"messages": 2, "letters": 0}) in heard.told


def test_steps_are_recorded_and_a_cut_off_run_goes_on(tmp_path: Path) -> None:
    script = Script(said("", call("rm", 0, path="a")), said("Removed."))
    file = atraj.Writer.begin(tmp_path, atraj.Header(id="x"))
    one, _ = agent(script, messages=[{"role": "system", "content": "S"}], recorder=Recorder(file, script, []))
    seen: list[int] = []

    def act(name: str, arguments: Any) -> Outcome:
        seen.append(len(atraj.read(file.path).steps))  # the call is on disk before it is made
        return Outcome(stdout="gone", seconds=0.5)

    one.hands = Tools(act)
    one.ask("remove a")
    found = atraj.read(file.path)
    assert seen == [3] and [step.role for step in found.steps] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert messages_of(found.steps) == one.messages
    assert [step.text for step in found.steps[:2]] == ["<S", "<remove a"]
    assert found.steps[3].decision == {"rule": "told", "allowed": True} and found.steps[3].seconds == 0.5

    again, _ = agent(Script(said("It may be gone.")))
    answer = again.go_on(messages_of(found.steps[:3]), [])
    assert answer is not None and answer.text == "It may be gone."
    assert UNKNOWN in again.messages[3]["content"] and again.counts["calls"] == 1
    assert agent(Script())[0].go_on(messages_of(found.steps), []) is None


def test_a_run_goes_on_though_ids_of_calls_are_used_again() -> None:
    told: list[Message] = [{"role": "user", "content": "go"}]
    told += [said("", call("rm", 0)).message, {"role": "tool", "content": "done", "tool_call_id": "c0"}]
    told += [said("", call("rm", 0), call("rm", 0)).message]
    told += [{"role": "tool", "content": "done", "tool_call_id": "c0"}]
    again, _ = agent(Script(said("I cannot know.")), Tools())
    answer = again.go_on(told, [])
    assert answer is not None and answer.text == "I cannot know." and again.counts["refused_calls"] == 1
    assert UNKNOWN in again.messages[-2]["content"]


def test_what_was_to_be_handed_over_is_handed_over_after_a_crash() -> None:
    told: list[Message] = [{"role": "user", "content": "what?"}, said('{"defer_to_cloud": true}').message]
    one, _ = agent(Script(), escalation=Cloud("42"))
    answer = one.go_on(told, [])
    assert answer is not None and (answer.text, answer.outcome) == ("42", "escalated")
    one, _ = agent(Script(said("then I try")), escalation=Cloud(None))
    answer = one.go_on(told, [])
    assert answer is not None and answer.text == "then I try"
    assert agent(Script())[0].go_on(told, []) is None
