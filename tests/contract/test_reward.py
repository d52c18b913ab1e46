"""What every reward dimension promises, alone and in a reward of several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.family import Family
from tinygpt.eval.reward import _composite, _python
from tinygpt.eval.reward._answer import Answer

REWARDS = Family("tinygpt.eval.reward", verb="score")
CALL = '<tool_call>\n{"name": "ls", "arguments": {"path": "a", "all": true}}\n</tool_call>'
OWN = "def vowels(answer):\n    return sum(c in 'aeiou' for c in answer.text)\n"
# By dimension: (settings, answer, what it is worth); a new one adds its own.
WORTH: dict[str, list[tuple[dict[str, Any], Answer, float]]] = {
    "exact": [
        ({}, Answer(text=" a  b\n", expected="a b"), 1.0),
        ({}, Answer(text="A b", expected="a b"), 0.0),
        ({"value": "A B", "ignore_case": True}, Answer(text="a b", expected="other"), 1.0),
    ],
    "contains": [
        ({"values": ["one", "two"]}, Answer(text="one three"), 0.5),
        ({"values": ["one", "two"], "absent": True}, Answer(text="three"), 1.0),
        ({}, Answer(text="it is 4.", expected="4"), 1.0),
    ],
    "regex": [
        ({"pattern": r"<a>.*</a>"}, Answer(text="x<a>\n1</a>y"), 1.0),
        ({"pattern": r"\d+", "whole": True}, Answer(text="12 "), 1.0),
        ({"pattern": r"\d+", "whole": True}, Answer(text="12x"), 0.0),
        ({"pattern": "sorry", "absent": True, "ignore_case": True}, Answer(text="Sorry, no"), 0.0),
    ],
    "json_valid": [
        ({}, Answer(text='```json\n{"a": 1}\n```'), 1.0),
        ({"fenced": False}, Answer(text='```json\n{"a": 1}\n```'), 0.0),
        ({"outer": "list"}, Answer(text='{"a": 1}'), 0.0),
        ({}, Answer(text="[" * 100_000), 0.0),
    ],
    "json_schema": [
        ({"schema": {"required": ["a"]}}, Answer(text='{"a": 1}'), 1.0),
        ({"schema": {"required": ["a"]}}, Answer(text='{"b": 1}'), 0.0),
        ({"schema": {"properties": {"a": {"maximum": 2}}}}, Answer(text='{"a": 3}'), 0.0),
    ],
    "length": [
        ({"most": 3, "slack": 4}, Answer(text="a b c"), 1.0),
        ({"most": 3, "slack": 4}, Answer(text="a b c d"), 0.75),
        ({"least": 5, "unit": "characters", "slack": 10}, Answer(text="abc"), 0.8),
        ({"most": 1, "slack": 2, "unit": "lines"}, Answer(text="a\nb\nc\nd\ne"), 0.0),
    ],
    "tool_call": [
        ({}, Answer(text=CALL, expected=CALL), 1.0),
        ({}, Answer(text=CALL.replace("true", "false"), expected=CALL), 0.75),
        ({"names_only": True}, Answer(text=CALL.replace("true", "false"), expected=CALL), 1.0),
        ({}, Answer(text=CALL + "\n" + CALL, expected=CALL), 0.5),
        ({}, Answer(text="no call", expected="no call"), 1.0),
        ({}, Answer(text=CALL, row={"tool_calls": [{"name": "rm", "arguments": {}}]}), 0.0),
    ],
    "python": [({"function": "own.py:vowels"}, Answer(text="aeb"), 2.0)],
}
CASES = [(name, *case) for name in REWARDS.names() for case in WORTH[name]]


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a function of one's own, in which the test stands."""
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    _python.function.cache_clear()
    return tmp_path


@pytest.mark.parametrize(("name", "settings", "answer", "worth"), CASES, ids=lambda x: str(x)[:30])
def test_what_answers_are_worth(name: str, settings: dict[str, Any], answer: Answer, worth: float) -> None:
    if name == "json_schema":
        nano.require("jsonschema")
    dimension = _composite._dimension({"kind": name, **settings}, "here")
    assert REWARDS.load(name).score(answer, dimension.kind.options) == pytest.approx(worth)
    assert dimension.value(answer) == pytest.approx(min(1.0, worth)), "kept from 0 to 1"
    assert dimension.name == name


def toml(folder: Path, text: str) -> str:
    (folder / "reward.toml").write_text(text, encoding="utf-8")
    return str(folder / "reward.toml")


def test_dimensions_are_scaled_weighted_and_added(own: Path) -> None:
    path = toml(own, (
        '[[dimensions]]\nname = "vowels"\nkind = "python"\nfunction = "own.py:vowels"\nlow = 1\nhigh = 5\n'
        '[[dimensions]]\nname = "bad"\nkind = "contains"\nvalues = ["x"]\nweight = -0.5\n'
    ))  # fmt: skip
    reward = _composite.load(path)
    scored = reward(Answer(text="aeix"))
    assert scored.parts == {"vowels": 0.5, "bad": 1.0} and scored.total == pytest.approx(0.0)
    mean = _composite.load(toml(own, "mean = true\n" + Path(path).read_text()))
    assert mean(Answer(text="aei")).total == pytest.approx(0.5 / 1.5)
    found = _composite.means([scored, reward(Answer(text="aei"))])
    assert found == pytest.approx({"total": 0.25, "vowels": 0.5, "bad": 0.5})
    free = _composite.load(
        toml(own, '[[dimensions]]\nkind = "python"\nfunction = "own.py:vowels"\nclamp = false\n')
    )
    assert free(Answer(text="aeiou")).total == 5
    as_json = own / "reward.json"
    as_json.write_text(json.dumps({"dimensions": [{"kind": "contains", "values": ["a"]}]}), encoding="utf-8")
    assert _composite.load(str(as_json))(Answer(text="a")).total == 1


def test_a_function_is_a_whole_reward(own: Path) -> None:
    more = "\ndef both(answer):\n    return {'a': 1, 'b': len(answer.text)}\n"
    (own / "whole.py").write_text(OWN + more, encoding="utf-8")
    assert _composite.load("whole.py:vowels")(Answer(text="ae")).total == 2
    scored = _composite.load("whole.py:both")(Answer(text="abc"))
    assert scored.total == 4 and scored.parts == {"a": 1.0, "b": 3.0}
    before = _composite.load("whole.py:both").hash
    (own / "whole.py").write_text(OWN + more + "# changed\n", encoding="utf-8")
    assert _composite.load("whole.py:both").hash != before, "another reward is another run"


WRONG = [
    ('[[dimensions]]\nkind = "regx"\n', "regx"),
    ('[[dimensions]]\nkind = "regex"\npattern = "("\n', "regular expression"),
    ('[[dimensions]]\nkind = "regex"\n', "pattern"),
    ('[[dimensions]]\nkind = "length"\nmost = 1\nfoo = 2\n', "foo"),
    ('[[dimensions]]\nkind = "length"\nlow = 2\n', "low must be below high"),
    ('[[dimensions]]\nname = "x"\n', "'kind'"),
    ('[[dimensions]]\nkind = "exact"\n[[dimensions]]\nkind = "exact"\n', "two dimensions"),
    ("dimensions = []\n", "lists no dimensions"),
    ("weights = 1\n", "unknown key 'weights'"),
]


@pytest.mark.parametrize(("text", "says"), WRONG, ids=[says for _, says in WRONG])
def test_a_file_that_says_nothing_is_refused(text: str, says: str, own: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        _composite.load(toml(own, text))


def test_functions_that_cannot_be_used(own: Path) -> None:
    with pytest.raises(ConfigError, match="'vowels'"):
        _composite.load("own.py:vowel")
    for spec, says in (("own.py", "cannot read|names no function"), ("none.py:f", "there is no file")):
        with pytest.raises(ConfigError, match=says):
            _composite.load(spec)
    (own / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        _composite.load("broken.py:f")
    (own / "fails.py").write_text("def f(answer):\n    return answer.nothing\n", encoding="utf-8")
    with pytest.raises(DataError, match="AttributeError"):
        _composite.load("fails.py:f")(Answer(text="a"))
    (own / "nan.py").write_text("def f(answer):\n    return float('nan')\n", encoding="utf-8")
    with pytest.raises(DataError, match="not a finite number"):
        _composite.load("nan.py:f")(Answer(text="a"))
    (own / "ends.py").write_text("def f(answer):\n    raise SystemExit('two\\nlines')\n", encoding="utf-8")
    with pytest.raises(DataError, match="SystemExit: two lines"):
        _composite.load("ends.py:f")(Answer(text="a"))
    model = own / "model"
    model.mkdir()
    (model / "config.json").write_text("{}", encoding="utf-8")
    (model / "own.py").write_text(OWN, encoding="utf-8")
    with pytest.raises(ConfigError, match="never run"):
        _composite.load(f"{model / 'own.py'}:vowels")


def test_nothing_expected_is_said() -> None:
    for name in ("exact", "contains", "tool_call"):
        with pytest.raises(DataError, match="no expected"):
            _composite._dimension({"kind": name}, "here").value(Answer(text="a"))
