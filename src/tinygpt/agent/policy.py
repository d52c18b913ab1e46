"""What a model's calls may do, decided outside of the model: rules in order, each with a name.

    unknown-tool         there is no such tool
    not-allowed          it is not among those allowed, or among those denied
    arguments-too-large  they have more bytes or levels than may be
    bad-arguments        they are not what its schema says
    (of the tool)        path-outside, path-link, path-hidden, option-injection, ...: its own check
    call-budget          as many calls as are allowed have been made
    dry-run              nothing that does more than read is carried out
    confirm              the person says no, or there is nobody to ask
    harmless, told, confirmed   why a call is made: it only reads; said yes to beforehand; said yes to now
    time-limit           it had not ended in time, and is not waited for

Every decision goes to the log, and what a refusal tells the model names the rule and what would be allowed.
"""

from __future__ import annotations

import fnmatch
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from tinygpt.agent import _arguments
from tinygpt.agent._process import LATE, TICK
from tinygpt.agent.tool import ASKED, Cancel, Outcome, Refusal, Tool
from tinygpt.core.errors import ConfigError, TinyGPTError, nearest

REFUSED = 126  # the exit code of a call that was not made, as of a shell that may not execute
BROKEN = 70  # of a tool that fails in a way that it does not know itself
GRACE = 5.0  # seconds that a tool has, after its limit, to say what it has
SHOWN = 1500  # letters of the arguments that a person is shown
Confirm = Callable[[str], bool]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the person allows."""

    allow: Annotated[tuple[str, ...], "Tools that may be called; * stands for any letters."] = ("*",)
    deny: Annotated[tuple[str, ...], "Tools that may not, whatever is allowed."] = ()
    yes: Annotated[frozenset[str], "Effects that nobody is asked about: write, delete, execute, network."] = (
        frozenset()
    )
    dry_run: Annotated[bool, "Carry out nothing but reading; tell what would have been."] = False
    arguments: Annotated[int, "Largest arguments of a call, in bytes of JSON."] = 64 << 10
    output: Annotated[int, "Letters of a result that the model reads."] = 8192
    seconds: Annotated[float, "Longest time of a call."] = 30.0
    calls: Annotated[int, "Calls of one run; 0: no bound."] = 200

    def __post_init__(self) -> None:
        if (odd := next(iter(sorted(self.yes - ASKED)), None)) is not None:
            raise ConfigError(
                f"nobody is asked about '{odd}'.{nearest(odd, ASKED)}",
                hint=f"known: {', '.join(sorted(ASKED))}",
            )
        if self.arguments < 2 or self.output < 200 or not self.seconds > 0 or self.calls < 0:
            raise ConfigError(
                "the limits of calls are out of range",
                hint="--output-cap is 200 letters or more, --tool-timeout more than 0, --max-calls 0 or more",
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """What was decided of a call. arguments: a copy of its own, which is what is carried out; message: what
    the model reads where it is not."""

    tool: str
    arguments: Mapping[str, Any]
    rule: str
    allowed: bool
    message: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """As a log or a trajectory keeps it."""
        said = {"rule": self.rule, "allowed": self.allowed}
        return {**said, "message": self.message} if self.message else said


class Policy:
    """The tools behind their rules. May be used from several threads at once.

    confirm: asks the person at the terminal; None: there is none, so the answer is no. log: gets every
    decision. ConfigError: a rule names no tool, or a tool's schema is none."""

    def __init__(
        self,
        tools: Sequence[Tool],
        rules: Rules | None = None,
        *,
        confirm: Confirm | None = None,
        log: Callable[[Decision], None] = lambda decision: None,
    ) -> None:
        self.rules = rules or Rules()
        self._tools = {tool.name: tool for tool in tools}
        if len(self._tools) < len(tools):
            raise ConfigError("two tools have the same name", hint="rename one, or deny the other's server")
        for pattern in (*self.rules.allow, *self.rules.deny):
            if pattern != "*" and not fnmatch.filter(self._tools, pattern):
                raise ConfigError(
                    f"no tool is called '{pattern}'.{nearest(pattern, self._tools)}",
                    hint=f"tools: {', '.join(self._tools) or 'none'}",
                )
        self._allowed = {name: tool for name, tool in self._tools.items() if self._listed(name)}
        self._checkers = {n: _arguments.Checker(n, tool.parameters) for n, tool in self._allowed.items()}
        self._confirm, self._log = confirm, log
        self._guard, self._asking = threading.Lock(), threading.Lock()
        self._made = 0
        self._open = set[Decision]()

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The tools that may be called, in OpenAI's form."""
        return [tool.entry for tool in self._allowed.values()]

    def harmless(self, name: str) -> bool:
        """Whether calls of a tool only read, so that they may run beside each other."""
        return name in self._allowed and self._allowed[name].effects <= {"read"}

    def run(self, name: str, arguments: Any, cancel: Cancel) -> tuple[Decision, Outcome]:
        """Judge a call and, where it is allowed, make it. The decision is the last one about it."""
        return self.call(self.judge(name, arguments), cancel)

    # Before a call

    def judge(self, name: str, arguments: Any) -> Decision:
        """What is to be done with a call; the person is asked here. A decision is good for one call."""
        try:
            decision = self._judged(name, arguments)
        except Refusal as refusal:
            decision = self._refused(name, {}, refusal)
        if decision.allowed:
            with self._guard:
                self._open.add(decision)
        self._log(decision)
        return decision

    def _judged(self, name: Any, arguments: Any) -> Decision:
        if not isinstance(name, str) or name not in self._tools:
            said = str(name)[:80]
            close = nearest(said, self._allowed)
            raise Refusal("unknown-tool", f"there is no tool {said!r}.{close} {self._offer()}")
        if name not in self._allowed:
            raise Refusal("not-allowed", f"the person does not allow '{name}'. {self._offer()}")
        tool = self._allowed[name]
        try:
            given, _ = _arguments.plain(arguments, self.rules.arguments)
        except OverflowError as error:
            most = f"at most {self.rules.arguments} bytes and {_arguments.DEEPEST} levels are allowed"
            raise Refusal("arguments-too-large", f"the arguments have {error}: {most}") from error
        except ValueError as error:
            raise Refusal("bad-arguments", f"{error}. {_wanted(tool)}") from error
        try:
            if why := self._checkers[name].wrong(given):
                raise Refusal("bad-arguments", f"{why}. {_wanted(tool)}")
            if tool.check is not None:
                tool.check(given)
            return self._agreed(tool, given)
        except Refusal as refusal:
            return self._refused(name, given, refusal)

    def _agreed(self, tool: Tool, given: dict[str, Any]) -> Decision:
        """The call is a good one; whether it is made."""
        asked = sorted((tool.effects & ASKED) - self.rules.yes)
        does = tool.effects - {"read"}
        with self._guard:
            if self.rules.calls and self._made >= self.rules.calls:
                raise Refusal("call-budget", f"all {self.rules.calls} calls of this run are made: answer now")
            self._made += 1
        if self.rules.dry_run and does:
            what = f"'{tool.name}' ({', '.join(sorted(does))}) would have been called with {_shown(given)}"
            raise Refusal("dry-run", what)
        rule = "harmless" if not tool.effects & ASKED else "told"
        if asked:
            with self._asking:
                yes = self._confirm is not None and self._confirm(question(tool, given))
            if not yes:
                who = "the person said no" if self._confirm is not None else "there is nobody to ask"
                raise Refusal("confirm", f"'{tool.name}' needs a yes ({', '.join(asked)}), and {who}")
            rule = "confirmed"
        return Decision(tool=tool.name, arguments=given, rule=rule, allowed=True)

    def _offer(self) -> str:
        return f"Tools that may be called: {', '.join(self._allowed) or 'none'}"

    def _refused(self, name: str, given: Mapping[str, Any], refusal: Refusal) -> Decision:
        message = f"Not carried out (rule {refusal.rule}): {refusal.message}"
        return Decision(
            tool=str(name)[:128], arguments=given, rule=refusal.rule, allowed=False, message=message
        )

    # The call

    def call(self, decision: Decision, cancel: Cancel) -> tuple[Decision, Outcome]:
        """Make a call that was allowed, within its time, and cap what it says. A refusal is an outcome too,
        of exit code 126, as is one that the tool itself meets on the way; the decision then says so."""
        if decision.rule == "dry-run":
            return decision, Outcome(stdout=decision.message)
        if not decision.allowed:
            return decision, Outcome(stderr=decision.message, exit_code=REFUSED)
        with self._guard:
            if decision not in self._open:
                raise AssertionError("this policy did not allow the call, or it was made already")
            self._open.discard(decision)
        tool = self._tools[decision.tool]
        seconds = min(self.rules.seconds, tool.seconds or self.rules.seconds)
        started = time.monotonic()
        try:
            outcome = _timed(tool, decision.arguments, seconds, cancel)
        except Refusal as refusal:
            decision = self._refused(tool.name, decision.arguments, refusal)
            self._log(decision)
            code = LATE if refusal.rule == "time-limit" else REFUSED
            outcome = Outcome(stderr=decision.message, exit_code=code)
        except TinyGPTError as error:
            outcome = Outcome(stderr=error.message, exit_code=1)
        except Exception as error:  # a tool is somebody else's code: whatever it raises ends the call alone
            outcome = Outcome(stderr=f"the tool failed: {type(error).__name__}: {error}", exit_code=BROKEN)
        return decision, capped(replace(outcome, seconds=time.monotonic() - started), self.rules.output)

    def _listed(self, name: str) -> bool:
        def among(patterns: Sequence[str]) -> bool:
            return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

        return among(self.rules.allow) and not among(self.rules.deny)


class _Stop:
    """The person's wish, or ours when we wait no longer."""

    def __init__(self, cancel: Cancel) -> None:
        self._cancel, self.given_up = cancel, threading.Event()

    def is_set(self) -> bool:
        return self.given_up.is_set() or self._cancel.is_set()


def _timed(tool: Tool, arguments: Mapping[str, Any], seconds: float, cancel: Cancel) -> Outcome:
    """The call in a thread of its own, so that one that never ends is left behind. Tools keep their time by
    themselves; this is for those that do not."""
    stop, ended = _Stop(cancel), threading.Event()
    found: list[Outcome | BaseException] = []

    def work() -> None:
        try:
            found.append(tool.call(arguments, seconds, stop))
        except BaseException as error:  # it is raised again, where it is waited for
            found.append(error)
        ended.set()

    threading.Thread(target=work, daemon=True, name=f"tool {tool.name}").start()
    try:
        end = time.monotonic() + seconds + GRACE
        while not ended.wait(TICK):
            if cancel.is_set():
                end = min(end, time.monotonic() + GRACE)
            if time.monotonic() >= end:
                raise Refusal("time-limit", f"'{tool.name}' has not ended after {seconds:g} seconds")
    finally:
        stop.given_up.set()
    if isinstance(result := found[0], BaseException):
        raise result
    return result


def question(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """What a person is asked, in letters that a terminal only shows."""
    name = json.dumps(tool.name)[1:-1]
    return f"{name} ({', '.join(sorted(tool.effects & ASKED))}) {_shown(arguments)}"


def _shown(arguments: Mapping[str, Any]) -> str:
    """Arguments in ASCII; the end is shown as well as the beginning, and how much is not."""
    text = json.dumps(arguments)
    half = SHOWN // 2
    return text if len(text) <= SHOWN else f"{text[:half]} [{len(text) - SHOWN} letters] {text[-half:]}"


def _wanted(tool: Tool) -> str:
    properties: Mapping[str, Any] = tool.parameters.get("properties") or {}
    required = tool.parameters.get("required") or ()
    parts = [f"{name}{'' if name in required else '?'}: {_kind(one)}" for name, one in properties.items()]
    return f"'{tool.name}' takes ({', '.join(parts)})"


def _kind(schema: Any) -> str:
    kind = schema.get("type", "any") if isinstance(schema, Mapping) else "any"
    return kind if isinstance(kind, str) else "|".join(map(str, kind))


def capped(outcome: Outcome, most: int) -> Outcome:
    """An outcome of at most `most` letters and the marks of what is left out: heads and ends stay."""
    stderr, lost = _cut(outcome.stderr, max(most // 4, most - len(outcome.stdout)))
    stdout, more = _cut(outcome.stdout, max(most // 4, most - len(stderr)))
    return replace(outcome, stdout=stdout, stderr=stderr, cut=outcome.cut + lost + more)


def _cut(text: str, most: int) -> tuple[str, int]:
    text = text.encode("utf-8", "replace").decode()  # names of files may be no text
    if len(text) <= most:
        return text, 0
    head, lost = most * 2 // 3, len(text) - most
    return f"{text[:head]}\n[... {lost} letters left out ...]\n{text[head + lost :]}", lost
