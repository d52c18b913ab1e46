"""What people see: results on stdout, progress and notes on stderr. Nothing else in the house prints."""

from __future__ import annotations

import json
import math
import re
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from tinygpt.core import events as ev
from tinygpt.core import ranks

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


WIDEST = 1 << 20  # columns of a table in a pipe: nothing there is cut
LEFT_OUT = {
    "empty": "empty documents", "bad_files": "unreadable files", "bad_rows": "bad rows",
    "dropped": "rows left out", "truncated": "rows cut short",
}  # fmt: skip
C1 = re.compile(r"[\x7f-\x9f]")  # control characters that JSON does not spell out
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline


class Output:
    """One command's output: JSON or text, quiet or not."""

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json, self.quiet = json, quiet

    def events(self) -> ev.Events:
        """Events that draw on stderr, unless the command is quiet or another process speaks for it."""
        return ev.Events() if self.quiet or ranks.follows() else ev.Events(ConsoleSink())

    def result(self, value: Any, render: Callable[[], None] | None = None) -> None:
        """The command's result: JSON when asked for (or when there is no other form), else what `render`
        prints; nothing where another process speaks for this one."""
        if ranks.follows():
            return
        if self.json or render is None:
            indent = None if self.json else 2
            text = json.dumps(_finite(value), ensure_ascii=False, indent=indent, default=str)
            print(C1.sub(lambda found: f"\\u{ord(found.group()):04x}", text))
        else:
            render()


def _finite(value: Any) -> Any:
    """The same without numbers that JSON cannot hold: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


def say(text: str, end: str = "\n") -> None:
    """What a model wrote, on stdout: as it is in a pipe; a terminal shows control characters, not obeys
    them."""
    print(visible(text) if sys.stdout.isatty() else text, end=end, flush=True)


def line(text: str, file: TextIO | None = None) -> None:
    """A line on stdout, or in `file`. It may hold names that others chose: control characters are spelled
    out."""
    print(visible(text), file=file)


def visible(text: str) -> str:
    """Control characters, with which a text could steer a terminal, spelled out: `\\x1b`."""
    return CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """A table on stdout: columns of numbers to the right; as wide as it needs to be when piped. Control
    characters in it are spelled out."""
    from rich.console import Console
    from rich.table import Table

    title = visible(title)
    shown = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        numeric = all(isinstance(r[i], int | float) or _number_like(str(r[i])) for r in rows)
        shown.add_column(visible(column), justify="right" if numeric and rows else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*(visible(cell(v)) for v in row))
    console = Console(width=None if sys.stdout.isatty() else WIDEST, highlight=False, markup=False)
    console.print(shown)


def cell(value: Any) -> str:
    """A value as a table shows it: four significant digits, thousands separated."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def started(e: ev.RunStarted) -> list[str]:
    """What a run is about to do, on a line or two; events.jsonl has every fact."""
    told = e.facts
    from_step = f" from step {e.step}" if e.step else ""
    epoch = f" ({told['batches_per_epoch']:,} an epoch)" if "batches_per_epoch" in told else ""
    learned = (f"{told[k]:,} parameters learn" for k in ("parameters", "learned_parameters") if k in told)
    seed = [f"seed {told['seed']}"] if "seed" in told else []
    lines = [f"{e.command}{from_step}: " + ", ".join([*learned, f"{e.steps:,} steps{epoch}", *seed])]
    if "tokens" in told:
        lines.append(f"data: {_amount(told)}")
        lines[-1] += f"; held out: {_amount(told['held_out'])}" if "held_out" in told else ""
        bad = [f"{told[k]:,} {what}" for k, what in LEFT_OUT.items() if told.get(k)]
        lines[-1] += f"; {', '.join(bad)}" if bad else ""
    for path, shapes in (told.get("read", {}) | told.get("held_out", {}).get("read", {})).items():
        lines.append(f"  {path}: " + ", ".join(f"{n:,} {shape} rows" for shape, n in shapes.items()))
    for name, facts in told.get("corpora", {}).items():
        times = told.get("epochs", {}).get(name, 0.0)
        lines.append(f"  {name}: {facts['weight']:.1%} of the rows, {_amount(facts)}, read {times:.2f} times")
    if "memory_bytes" in told:
        lines.append(f"memory: this run will take about {size(told['memory_bytes'])}")
    return lines


def spike(e: ev.Spike) -> str:
    """What was out of bounds, and what became of it."""
    values = {"loss": (e.loss, e.loss_limit), "gradient norm": (e.grad_norm, e.grad_norm_limit)}
    known = {n: f" (limit {cell(most)})" if math.isfinite(most) else "" for n, (_, most) in values.items()}
    told = ", ".join(f"{n} {cell(value)}{known[n]}" for n, (value, _) in values.items())
    return told + ("" if e.applied else ": not applied, the batch is skipped")


def _amount(told: Mapping[str, Any]) -> str:
    learned = f" ({told['learned_tokens']:,} learned)" if "learned_tokens" in told else ""
    n = told.get("documents", 0)
    of = f" in {n:,} document{'s' if n != 1 else ''}" if n else ""
    return f"{told['tokens']:,} tokens{learned}{of}"


def size(n: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    raise AssertionError


def _number_like(text: str) -> bool:
    return bool(text) and not set(text) - set("-+.,%x± KMGB0123456789")


class ConsoleSink:
    """Draws events: a live bar on a terminal, a plain line every few seconds elsewhere."""

    every = 5.0

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        self.told: set[str] = set()
        self.last = time.monotonic()
        self.steps, self.start, self.began = 0, 0, time.monotonic()

    def write(self, event: ev.Event) -> None:
        match event:
            case ev.RunStarted():
                self.steps, self.start, self.began = event.steps, event.step, time.monotonic()
                for line in started(event):
                    self._line(line)
            case ev.TrainStep():
                self._train(event)
            case ev.Evaluated():
                found = " · ".join(f"{k.replace('_', ' ')} {cell(v)}" for k, v in event.metrics.items())
                self._line(f"step {event.step} · {event.name}: {found}")
            case ev.Spike():
                self._line(f"warning: step {event.step} · spike: {spike(event)}")
            case ev.RolledBack():
                slower = f", learning rate x {cell(event.lr_scale)}" if event.lr_scale < 1 else ""
                self._line(f"warning: step {event.step} · back to the state after step {event.to}{slower}")
            case ev.Sampled():
                self._line(f"step {event.step} · sample: {event.prompt}{event.text}")
            case ev.Progress():
                self._progress(event)
            case ev.Note():
                self._line(("warning: " if event.level == "warning" else "") + event.text)
            case ev.RunEnded():
                self.close()  # how it ended is the command's result
            case _:
                pass

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar, self.tasks = None, {}

    def _train(self, e: ev.TrainStep) -> None:
        left = (time.monotonic() - self.began) / max(1, e.step - self.start) * (self.steps - e.step)
        mfu = [] if e.mfu is None else [f"MFU {e.mfu:.0%}"]
        speed = [f"{e.tok_s:,.0f} tok/s", *mfu, size(e.mem_bytes), f"{clock(left)} left"]
        reward = [f"reward {cell(e.metrics['reward'])}"] if "reward" in e.metrics else []
        loss = [f"loss {e.loss:.4f}", *reward, f"lr {e.lr:.2e}", f"norm {e.grad_norm:.2f}"]
        text = " · ".join([*loss, *speed])
        self._advance("train", e.step, self.steps, text)

    def _progress(self, e: ev.Progress) -> None:
        self._advance(
            e.task, e.done, e.total, f"{e.done:,}{f' of {e.total:,}' if e.total else ''} {e.unit}".strip()
        )

    def _advance(self, task: str, done: int, total: int, text: str) -> None:
        finished = total > 0 and done >= total
        if not sys.stderr.isatty():
            # A task that ends before its first line was due says nothing.
            if (finished and task in self.told) or time.monotonic() - self.last >= self.every:
                self.last = time.monotonic()
                self.told.add(task)
                where = f"step {done}/{total} · " if task == "train" else f"{task}: "
                print(where + text, file=sys.stderr, flush=True)
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[text]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self.bar.start()
        if task not in self.tasks:
            self.tasks[task] = self.bar.add_task(task, total=total or None, text=text)
        self.bar.update(self.tasks[task], completed=done, total=total or None, text=text)
        if finished:
            self.bar.remove_task(self.tasks.pop(task))
            if not self.tasks:
                self.close()

    def _line(self, text: str) -> None:
        text = visible(text)
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """A time as 0:20, 3:20 or 1:01:11."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def typed() -> str:
    """What the person at the terminal types next, "" at its end. A signal that comes before the terminal is
    read at all would wait for the end of the line: it is read once there is something to read."""
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        pass
    return sys.stdin.readline()
