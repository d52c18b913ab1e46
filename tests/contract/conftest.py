"""Each contract test notes which technique of which family it looks at; tests/seen.py counts them."""

from collections.abc import Callable

import pytest


@pytest.fixture(autouse=True)
def _technique(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    parameters = getattr(request.node, "callspec", None)
    if parameters is None:
        return
    if "slot" in parameters.params:
        kind, pick = parameters.params["slot"]
        record_property("technique", (kind.removeprefix("embedding_").removeprefix("second_"), pick.name))
    elif isinstance(name := parameters.params.get("name"), str):
        record_property("technique", (request.node.path.stem.removeprefix("test_"), name))
