"""Chat templates of models, run safely: Jinja in a sandbox whose time, memory and output are bounded.

A template comes with a model from wherever the model came from. It is rendered as transformers renders it
(the same switches, filters, globals and the `generation` tag), but it sees plain JSON values only, and every
loop, call, concatenation and multiplication is counted: a template that never ends, or grows without end,
ends with one sentence.
"""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tinygpt.core.errors import DataError, UnsupportedError

MOST_SOURCE = 1 << 18  # characters of a template; the longest known one has 30,000
MOST_TEXT = 1 << 24  # characters that one value or the whole output may have
MOST_OPERATIONS = 1_000_000  # turns of loops and calls in one rendering
MOST_SECONDS = 10.0  # one rendering takes a millisecond


class Refused(Exception):
    """The template asked to stop (raise_exception), for example because roles do not alternate."""


class _Beyond(Exception):
    """A bound was reached."""


class Compiled:
    """A template that is ready to render. `source`: its text."""

    def __init__(self, source: str) -> None:
        if len(source) > MOST_SOURCE:
            raise UnsupportedError(
                f"the chat template has {len(source)} characters, at most {MOST_SOURCE} are read",
                hint="choose another with --template NAME",
            )
        self.source = source
        self._meter = _Meter()
        try:
            self._environment = _environment(self._meter)
            self._template = self._environment.from_string(source)
        except (Exception, RecursionError) as error:
            line = getattr(error, "lineno", None)
            where = f" (line {line})" if line else ""
            raise UnsupportedError(
                f"the chat template cannot be read{where}: {_line(error)}",
                hint="choose another with --template NAME",
            ) from error
        self.marks_generation = self._meter.tagged
        self._lock = threading.Lock()

    def render(self, **variables: Any) -> tuple[str, list[tuple[int, int]]]:
        """(text, the (begin, end) of its `generation` blocks). `Refused` where the template says so itself;
        DataError where it fails on this conversation, UnsupportedError where it reaches a bound."""
        with self._lock:
            return self._render(variables)

    def _render(self, variables: dict[str, Any]) -> tuple[str, list[tuple[int, int]]]:
        meter = self._meter
        meter.reset()
        try:
            for block in self._template.generate(**variables):
                meter.written.append(block)
                meter.grow(len(block))
        except Refused:
            raise
        except (_Beyond, RecursionError, MemoryError) as error:
            why = str(error) or "it calls itself without end"
            raise UnsupportedError(
                f"the chat template was stopped: {why}", hint="choose another with --template NAME"
            ) from error
        except Exception as error:
            raise DataError(
                f"the chat template cannot write this conversation: {_line(error)}",
                hint="choose another with --template NAME",
            ) from error
        return "".join(meter.written), meter.generated


@functools.lru_cache(maxsize=16)
def compiled(source: str) -> Compiled:
    """The template of a text; each is compiled once."""
    return Compiled(source)


class _Meter:
    """What one rendering has used so far, and where its `generation` blocks lie."""

    def __init__(self) -> None:
        self.tagged = False
        self.reset()

    def reset(self) -> None:
        self.operations = 0
        self.size = 0
        self.until = time.monotonic() + MOST_SECONDS
        self.written: list[str] = []
        self.generated: list[tuple[int, int]] = []

    def count(self) -> None:
        self.operations += 1
        if self.operations > MOST_OPERATIONS:
            raise _Beyond(f"it takes more than {MOST_OPERATIONS:,} steps, as if it had no end")
        if self.operations % 64 == 0 and time.monotonic() > self.until:
            raise _Beyond(f"it takes longer than {MOST_SECONDS:.0f} seconds")

    def grow(self, n: int) -> None:
        self.size += n
        self.fits(self.size)

    def fits(self, n: int) -> None:
        if n > MOST_TEXT:
            raise _Beyond(f"it writes more than {MOST_TEXT:,} characters")

    def each(self, values: Any) -> Iterator[Any]:
        for value in values:
            self.count()
            yield value

    def joined(self, parts: Any) -> str:
        parts = [str(part) for part in parts]
        self.count()
        self.fits(sum(map(len, parts)))
        return "".join(parts)


def _environment(meter: _Meter) -> Any:
    """The environment of transformers, with a meter in it."""
    import jinja2
    from jinja2 import ext, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        """{% generation %} ... {% endgeneration %}: what stands between is the assistant's."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            meter.tagged = True
            return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

        def _mark(self, caller: Callable[[], str]) -> str:
            text = caller()
            begin = len("".join(meter.written))
            meter.generated.append((begin, begin + len(text)))
            return text

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("+", "*", "**", "%"))
        concat = staticmethod(meter.joined)

        def _parse(self, source: str, name: str | None, filename: str | None) -> Any:
            tree = super()._parse(source, name, filename)
            for loop in tree.find_all(nodes.For):
                loop.iter = nodes.Filter(loop.iter, "_each", [], [], None, None, lineno=loop.lineno)
            return _without_concat(tree, nodes)

        def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            meter.count()
            _check_call(meter, obj, args, kwargs)
            return super().call(context, obj, *args, **kwargs)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            meter.count()
            _check_operation(meter, operator, left, right)
            return super().call_binop(context, operator, left, right)

        def wrap_str_format(self, value: Any) -> Any:
            wrapped = super().wrap_str_format(value)
            if wrapped is not None:
                _check_format(value.__self__)
            return wrapped

    def raise_exception(message: Any) -> None:
        raise Refused(str(message))

    def tojson(
        x: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        if isinstance(indent, int | str) and (len(indent) if isinstance(indent, str) else indent) > 64:
            raise _Beyond("it indents JSON by more than 64 characters")
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    def strftime_now(format: str) -> str:
        from datetime import datetime

        return datetime.now().strftime(format)

    class Namespace(jinja2.utils.Namespace):
        def __init__(*args: Any, **kwargs: Any) -> None:
            self, rest = args[0], args[1:]
            values = dict(*rest, **kwargs)
            for name in values:
                _public(name)
            jinja2.utils.Namespace.__init__(self, values)

        def __setitem__(self, name: str, value: Any) -> None:
            _public(name)
            super().__setitem__(name, value)

    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    filters: dict[str, Any] = environment.filters  # type: ignore[assignment]
    known: dict[str, Any] = environment.globals  # type: ignore[assignment]
    filters.update(_bounded(filters, meter), tojson=tojson, _each=meter.each, _joined=meter.joined)
    for name in ("random", "pprint"):  # not the same every time; shows how a value is stored
        del filters[name]
    for name in ("lipsum", "cycler", "joiner"):
        del known[name]
    known.update(
        raise_exception=raise_exception, strftime_now=strftime_now, namespace=Namespace,
        dict=lambda *args, **kwargs: dict(*args, **kwargs),
    )  # fmt: skip
    return environment


def _without_concat(node: Any, nodes: Any) -> Any:
    """The tree with `a ~ b` as a filter that counts."""
    for field, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            setattr(node, field, _without_concat(value, nodes))
        elif isinstance(value, list):
            setattr(
                node, field, [_without_concat(v, nodes) if isinstance(v, nodes.Node) else v for v in value]
            )
    if isinstance(node, nodes.Concat):
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "_joined", [], [], None, None, lineno=node.lineno)
    return node


def _public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise _Beyond(f"it keeps a value under the name {name!r}")


def _bounded(filters: Mapping[str, Any], meter: _Meter) -> dict[str, Any]:
    """Filters whose result may be much longer than what they get."""
    center, indent, join, replace = (filters[name] for name in ("center", "indent", "join", "replace"))

    def bounded_center(value: Any, width: int = 80) -> Any:
        meter.fits(width)
        return center(value, width)

    def bounded_indent(
        value: Any, width: int | str = 4, first: bool = False, blank: bool = False, **more: Any
    ) -> Any:
        wide = width if isinstance(width, int) else len(width)
        meter.fits(len(value) + wide * (1 + str(value).count("\n")))
        return indent(value, width, first, blank, **more)

    @_like(join)
    def bounded_join(context: Any, value: Any, d: Any = "", attribute: Any = None) -> Any:
        parts = list(meter.each(value))
        meter.fits(len(parts) * len(str(d)) + sum(len(p) for p in parts if isinstance(p, str)))
        return join(context, parts, d, attribute)

    @_like(replace)
    def bounded_replace(context: Any, s: Any, old: Any, new: Any, count: Any = None) -> Any:
        text, old, new = str(s), str(old), str(new)
        meter.fits(len(text) + (text.count(old) if old else len(text) + 1) * len(new))
        return replace(context, s, old, new, count)

    def none(*args: Any, **kwargs: Any) -> Any:
        raise _Beyond("it uses a filter that chat templates have no use for")

    unused = dict.fromkeys(("batch", "slice", "wordwrap", "format", "urlize", "xmlattr"), none)
    return unused | {
        "center": bounded_center, "indent": bounded_indent, "join": bounded_join, "replace": bounded_replace,
    }  # fmt: skip


def _like(original: Any) -> Callable[[Any], Any]:
    """Give a filter the mark by which Jinja knows what to pass first."""

    def mark(function: Any) -> Any:
        function.jinja_pass_arg = original.jinja_pass_arg
        return function

    return mark


WIDENING = ("center", "ljust", "rjust", "zfill", "expandtabs")


def _check_call(meter: _Meter, obj: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Methods of text that can make much of little."""
    owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
    if not isinstance(owner, str | bytes):
        return
    if name in WIDENING:
        meter.fits(len(owner) * max([1, *(a for a in args if isinstance(a, int))]))
    elif name == "replace" and len(args) > 1 and all(isinstance(a, str) for a in args[:2]):
        count = owner.count(args[0])  # type: ignore[arg-type]
        meter.fits(len(owner) + count * len(args[1]))
    elif name == "join" and args:
        parts = list(args[0])
        meter.fits(sum(len(str(p)) for p in parts) + len(owner) * len(parts))


def _check_operation(meter: _Meter, operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str):
        _check_format(left)
    if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        meter.fits(len(left) + len(right))
    for one, other in ((left, right), (right, left)):
        if operator == "*" and isinstance(one, str | bytes | list | tuple) and isinstance(other, int):
            meter.fits(len(one) * max(0, other))
    if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
        times = right if operator == "**" else 1
        if left.bit_length() * max(1, abs(times)) + right.bit_length() > 4096:
            raise _Beyond("it computes with numbers of a thousand digits")


def _check_format(text: str) -> None:
    """Widths of a format: none may be large, or come from a value."""
    if re.search(r"\d{4}|[{][^{}]*[{]|%[^a-zA-Z%]*[*]", text):
        raise _Beyond("it pads text to a great width")


def _line(error: BaseException) -> str:
    """The first line of what went wrong."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
