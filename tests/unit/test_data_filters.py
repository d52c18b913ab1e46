"""Rows through filters: what goes, why, and what of a row is looked at."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence

import pytest

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import language, repetition, scrub
from tinygpt.data.filters import Filters
from tinygpt.data.where import Condition

WORDS = " ".join(f"word{i}" for i in range(120))
MAIL = "jo@mail.org"


def test_every_text_of_a_row_is_scrubbed_but_what_names_it() -> None:
    row = {
        "id": "4155552671",
        "n": 3,
        "text": f"see https://a.org/p/4111111111111111 or {MAIL}",
        "calls": [{"arguments": '{"to": "jo@mail.org", "n": 1}'}, {"arguments": '{ "n": 1 }'}],
        "ssn": "536221234",
        "api_key": "aB3dE5gH7jK9mN1pQ3sT5vW7",
    }
    changed, found = scrub.Scrubber(scrub.named(["auto"])).row(row)
    assert changed == {
        "id": "4155552671",
        "n": 3,
        "text": "see https://a.org/p/4111111111111111 or [EMAIL]",
        "calls": [{"arguments": '{"to": "[EMAIL]", "n": 1}'}, {"arguments": '{ "n": 1 }'}],
        "ssn": "[SSN]",
        "api_key": "[SECRET]",
    }
    where = {one.field: (one.recogniser, one.start, one.end) for one in found}
    assert where["calls[0].arguments>to"] == ("email", 0, len(MAIL)) and where["ssn"] == ("ssn", 0, 9)
    assert row["text"][where["text"][1] : where["text"][2]] == MAIL


def nested(text: str, levels: int) -> object:
    value: object = text
    for n in range(levels):
        value = {"a": value} if n % 2 else [value]
    return value


def test_nothing_hides_in_depth_names_and_numbers() -> None:
    scrubber = scrub.Scrubber(scrub.named(["auto"]))
    for row in (
        nested(MAIL, 60),
        {"args": json.dumps(nested(MAIL, 60))},
        {"args": json.dumps({"a": json.dumps([MAIL])})},
        {MAIL: 1},
        {"user_id": MAIL},
        {"ids": [MAIL]},
        {"args": f'{{"to": "{MAIL}", "to": "x"}}'},  # a reader keeps the last of two
    ):
        changed, found = scrubber.row(row)
        said = json.dumps([changed, [one.field for one in found]])
        assert MAIL not in said and "[EMAIL]" in said and len(found) == 1, row
    for deep in (nested(MAIL, 65), {"args": json.dumps(nested(MAIL, 65))}, {"args": "[" * 9999 + "]" * 9999}):
        with pytest.raises(DataError, match="more than 64 levels"):
            scrubber.row(deep)
        assert "64 levels" in Filters(pii=("email",)).row(deep).reason
    changed, found = scrubber.row({"a@b.org": 1, "c@d.org": 2, "card": 4111111111111111, "n": 4111111})
    assert (
        changed == {"[EMAIL]": 1, "[EMAIL] 2": 2, "card": "[CREDIT_CARD]", "n": 4111111} and len(found) == 3
    )
    changed, _ = scrubber.row({"args": '{"phones": [4155552671], "id": 4155552671, "ok": true}'})
    assert changed == {"args": '{"phones": ["[PHONE]"], "id": 4155552671, "ok": true}'}


def test_of_two_that_overlap_the_surer_one_is_believed() -> None:
    scrubber = scrub.Scrubber(scrub.named(["all"]))
    assert [name for *_, name in scrubber.find("postgres://app:s3cr3tpw@db.acme.io/x")] == ["secret:password"]
    assert pickle.loads(pickle.dumps(scrubber)).find(MAIL) == scrubber.find(MAIL)


def test_recognisers_by_name() -> None:
    assert scrub.named(["credit-card", "email"]) == ("email", "credit_card")
    assert "name" not in scrub.named(["auto"]) and "name" in scrub.named(["auto", "name"])
    assert scrub.named(["none"]) == ()
    assert set(scrub.ORDER) == set(scrub.PII.names())
    with pytest.raises(ConfigError, match="'email'"):
        scrub.named(["emial"])
    with pytest.raises(ConfigError, match="alone"):
        scrub.named(["none", "email"])


@pytest.mark.parametrize(
    ("said", "meets"),
    [
        ("score>=0.5", True),
        ("score<0.5", False),
        ("meta.lang=en", True),
        ("meta.lang!=en", False),
        ("none!=x", True),
        ("none=x", False),
        ("ok=true", True),
        ("text~w.rd", True),
        ("text~^d", False),
        ("ok>0", False),
        ("text>1", False),
    ],
)
def test_conditions(said: str, meets: bool) -> None:
    assert (
        Condition(said).holds({"score": 0.5, "meta": {"lang": "en"}, "ok": True, "text": "a word"}) is meets
    )


@pytest.mark.parametrize("said", ["score", "=x", "score>high", "text~("])
def test_what_is_no_condition(said: str) -> None:
    with pytest.raises(ConfigError, match="--where"):
        Condition(said)


def test_shares_of_what_repeats() -> None:
    assert repetition.duplicated(["ab", "cd", "ab", "ab"]) == (0.5, 0.5)
    assert repetition.commonest(list("ababc"), 2) == 4  # "a b" twice, two letters each time
    assert repetition.covered(list("abcdefabcde"), 5) == 5
    assert repetition.covered(list("abc"), 5) == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (WORDS, ""),
        ("yes " * 40, ""),
        ("spam " * 60, "repeated runs of 2 words"),
        (
            "\n".join([f"line {i} of the text" for i in range(20)] + ["the same line again"] * 15),
            "repeated lines",
        ),
        (WORDS + " " + " ".join(f"word{i}" for i in range(40)), "repeated runs of 5 words"),
    ],
)
def test_texts_that_repeat(text: str, why: str) -> None:
    assert repetition.reason(text) == why


@pytest.mark.wide
def test_languages() -> None:
    assert language.of("Das Wetter ist heute schön, und morgen wird es regnen.")[0] == "de"
    assert language.of("The weather is fine today, and tomorrow it will rain.")[0] == "en"
    assert language.of("ok") == ("", 0.0)
    with pytest.raises(ConfigError, match="unknown language"):
        language.checked(["english"])


class Longer:
    """A scorer that finds long texts bad."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def score(self, texts: Sequence[str]) -> list[float]:
        self.asked.append(len(texts))
        return [min(1.0, len(text) / 100) for text in texts]


def test_a_row_goes_for_the_first_reason_or_stays_changed() -> None:
    every = Filters(
        where=(Condition("n>0"),),
        min_chars=3,
        max_chars=90,
        scorer=Longer(),
        most=0.5,
        pii=("email",),
        secrets="redact",
    )
    assert every.row({"n": 0, "text": "a"}).reason == "not n>0"
    assert (gone := every.row({"n": 1, "text": "a"})).reason == "shorter than 3 letters" and gone.figure == 1
    assert every.row({"n": 1, "text": "a" * 91}).reason == "longer than 90 letters"
    assert every.row({"n": 1, "text": "a" * 60}).reason == "toxic"
    assert (kept := every.row({"n": 1, "text": MAIL})).row == {"n": 1, "text": "[EMAIL]"} and not kept.reason
    drop = Filters(pii=("email",), drop_pii=True, secrets="drop")
    assert drop.row({"text": MAIL}).reason == "private data"
    assert drop.row({"text": "hf_" + "aBcDe" * 7}).reason == "a secret"
    assert drop.row("a line").row == "a line"


def test_rows_are_scored_together_and_only_those_that_are_left() -> None:
    rows = [{"text": text} for text in ("a", "a" * 60, MAIL, "b" * 70, "four")]
    filters = Filters(min_chars=3, scorer=Longer(), most=0.5, pii=("email",))
    found = filters.rows(rows)
    assert [o.reason for o in found] == ["shorter than 3 letters", "toxic", "", "toxic", ""]
    assert found[2].row == {"text": "[EMAIL]"} and found[3].figure == 0.7
    assert isinstance(filters.scorer, Longer) and filters.scorer.asked == [4]
    assert filters.rows([]) == [] and filters.rows(rows[:1])[0].reason and filters.scorer.asked == [4]
