"""The server's OpenAPI document is one."""

from __future__ import annotations

import pytest

import nano
from asgi import FakeDesk, fake_registry
from tinygpt.serve.app import make_app, surfaces
from tinygpt.serve.limits import Settings


@pytest.mark.parity
def test_the_document_is_valid() -> None:
    validator = nano.require("openapi_spec_validator")
    found = make_app(FakeDesk(), fake_registry(), Settings(log=False), surfaces()).api.openapi()
    validator.validate(found)
    with pytest.raises(validator.validation.exceptions.OpenAPIValidationError):
        validator.validate(found | {"paths": {"/": {"get": {"responses": {"200": {}}}}}})
