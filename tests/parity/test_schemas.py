"""What is written at random under a JSON Schema validates with `jsonschema`; what cannot be enforced is refused."""

from __future__ import annotations

import datetime
import json
import random
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from nano import require
from schemas import ENFORCED, REFUSED
from tinygpt.core.errors import ConfigError
from tinygpt.infer.constrain import schema
from walks import BYTES, walk

pytestmark = pytest.mark.parity
jsonschema = require("jsonschema")
require("llguidance")

WALKS = 6
DURATION = re.compile(r"P(?!$)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?)")
HOST = re.compile(
    r"(?=.{1,253}$)[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
)
formats = jsonschema.FormatChecker(("date", "email", "ipv4", "ipv6", "uuid"))


@formats.checks("date-time", raises=ValueError)
def _moment(text: Any) -> bool:
    return not isinstance(text, str) or bool(datetime.datetime.fromisoformat(_second(text).upper()))


@formats.checks("time", raises=ValueError)
def _time(text: Any) -> bool:
    return not isinstance(text, str) or bool(datetime.time.fromisoformat(_second(text).upper()))


def _second(text: str) -> str:
    """RFC 3339 knows leap seconds and any number of digits; Python's datetime does not."""
    return re.sub(r"\.\d+", "", text.replace(":60", ":59"))


@formats.checks("duration")
def _duration(text: Any) -> bool:
    return not isinstance(text, str) or bool(DURATION.fullmatch(text))


@formats.checks("hostname")
def _hostname(text: Any) -> bool:
    return not isinstance(text, str) or bool(HOST.fullmatch(text))


@formats.checks("uri", raises=ValueError)
def _uri(text: Any) -> bool:
    return not isinstance(text, str) or bool(urlsplit(text).scheme)


def test_what_is_written_validates() -> None:
    wrong: list[str] = []
    ended = begun = 0
    for name, schemas in ENFORCED.items():
        for number, one in enumerate(schemas):
            checker = jsonschema.validators.validator_for(one, jsonschema.Draft202012Validator)
            checker.check_schema(one)
            valid = checker(one, format_checker=formats)
            texts = []
            for seed in range(WALKS):
                try:
                    constraint = schema.compile(one, BYTES)
                except ConfigError as error:
                    wrong.append(f"{name} {number}: {one}: {error}")
                    break
                ids = walk(constraint, random.Random(f"{name} {number} {seed}"))
                begun += 1
                if ids is not None:
                    texts.append(bytes(ids).decode())
            ended += len(texts)
            if not texts:
                wrong.append(f"{name} {number}: no walk ended: {one}")
            for text in texts:
                error = next(valid.iter_errors(json.loads(text)), None)
                if error is not None:
                    wrong.append(f"{name} {number}: {text} under {one}: {error.message}")
    assert not wrong, "\n".join(wrong)
    assert ended >= 0.95 * begun, f"only {ended} of {begun} walks ended"


def test_there_are_enough() -> None:
    enforced = [one for schemas in ENFORCED.values() for one in schemas]
    everything = [json.dumps(one) for one in [*enforced, *(one for one, _ in REFUSED)]]
    assert len(set(everything)) >= 300
    assert len(enforced) >= 250


@pytest.mark.parametrize("one,names", REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_enforced_is_refused(one: Any, names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        schema.compile(one, BYTES)
    assert names in str(caught.value), str(caught.value)
