"""Chat templates come from strangers: whatever they try, one clear line, soon, and nothing is run."""

from __future__ import annotations

import time

import pytest

from tinygpt.core.errors import DataError, UnsupportedError
from tinygpt.data.template import _sandbox
from tinygpt.data.template._sandbox import Compiled, Refused

TURNS = [{"role": "user", "content": "x"}]
GROW = "{% set n = namespace(s='aaaa') %}{% for i in range(99) %}BODY{% endfor %}"

STOPPED = {
    "loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "calls": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "loops in loops": "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "times": "{{ 'a' * 10**12 }}",
    "power": "{% set x = 3 %}{% for i in range(9) %}{% set x = x ** 99999 %}{{ x }}{% endfor %}",
    "plus": GROW.replace("BODY", "{% set n.s = n.s + n.s %}"),
    "tilde": GROW.replace("BODY", "{% set n.s = n.s ~ n.s %}"),
    "blocks": GROW.replace("BODY", "{% set t %}{{ n.s }}{{ n.s }}{% endset %}{% set n.s = t %}"),
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "center": "{{ 'a' | center(10**10) }}",
    "indent": "{{ 'a\nb' | indent(10**10) }}",
    "percent": "{{ '%10000000000d' % 1 }}",
    "format": "{{ '{:>10000000000}'.format(1) }}",
    "replace": "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
    "join": "{{ ('y' * 1000000).join(range(99999) | map('string')) }}",
    "json": "{{ [1] | tojson(indent=10**9) }}",
}
FAILS = {
    "class": "{{ ''.__class__.__mro__ }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "change": "{{ messages.append(1) }}",
    "file": "{% include '/etc/passwd' %}",
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "undefined": "{{ messages[9].content.strip() }}",
}


@pytest.mark.parametrize("name", STOPPED)
def test_a_template_without_end_is_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sandbox, "MOST_OPERATIONS", 20_000)
    start = time.monotonic()
    with pytest.raises(UnsupportedError, match="the chat template was stopped") as error:
        Compiled(STOPPED[name]).render(messages=TURNS)
    assert "\n" not in error.value.message and time.monotonic() - start < 5


@pytest.mark.parametrize("name", FAILS)
def test_a_template_reaches_nothing_outside(name: str) -> None:
    with pytest.raises(DataError, match="cannot write this conversation") as error:
        Compiled(FAILS[name]).render(messages=TURNS)
    assert "\n" not in error.value.message


def test_private_names_are_nothing() -> None:
    for source in ("{{ range.__globals__ }}", "{{ self.__init__ }}", "{{ {} | attr('__class__') }}"):
        assert Compiled(source).render(messages=TURNS)[0] == ""
    with pytest.raises(UnsupportedError):
        Compiled("{% set n = namespace(_x=1) %}").render(messages=TURNS)


def test_what_cannot_be_read_says_where() -> None:
    with pytest.raises(UnsupportedError, match=r"cannot be read \(line 2\)"):
        Compiled("a\n{% if %}")
    with pytest.raises(UnsupportedError, match="cannot be read"):
        Compiled("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}")
    with pytest.raises(UnsupportedError, match="at most"):
        Compiled("x" * (_sandbox.MOST_SOURCE + 1))


def test_a_template_may_refuse() -> None:
    with pytest.raises(Refused, match="no system"):
        Compiled("{{ raise_exception('no system') }}").render(messages=TURNS)


def test_the_conventions_are_those_of_transformers() -> None:
    source = (
        "{%- for m in messages %}\n    {% if loop.index0 > 5 %}{% break %}{% endif %}\n"
        "    {% generation %}\n{{ {'é': '<b>'} | tojson }}{% endgeneration %}\n"
        "{% endfor %}{{ strftime_now('%Y')[:2] }}{{ dict(a=1).a }}{{ '%s-%02d' % ('a', 3) }}"
        "{{ '{}'.format(1) }}"
    )
    text, blocks = Compiled(source).render(messages=TURNS)
    assert text == '{"é": "<b>"}201a-031' and blocks == [(0, 12)]
    # The same template again: nothing of the first rendering stays.
    template = _sandbox.compiled("{{ messages | length ~ '!' }}")
    assert [template.render(messages=TURNS)[0] for _ in range(2)] == ["1!", "1!"]
