"""What every built-in tool promises: a whole schema, known effects, paths that stay inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tinygpt.agent import toolbox
from tinygpt.agent.builtin._job import Place
from tinygpt.agent.tool import EFFECTS, Refusal, Tool
from tinygpt.agent.tools.builtin import BUILTIN
from tinygpt.agent.workspace import Workspace
from tinygpt.data.tokenizer import byte
from tinygpt.infer.constrain import tools as constrain


def built(name: str, folder: Path) -> Tool:
    place = Place(workspace=Workspace(folder), test_command=("true",))
    return toolbox.load(f"builtin:{name}", place).tools[0]


@pytest.mark.parametrize("name", BUILTIN.names())
def test_a_tool_says_what_it_takes_and_does(name: str, tmp_path: Path) -> None:
    tool = built(name, tmp_path)
    schema: Any = tool.parameters
    assert tool.name == name and tool.source == "builtin" and tool.description.endswith(".")
    assert schema["additionalProperties"] is False and set(schema["required"]) <= set(schema["properties"])
    assert all(one.get("type") and one.get("description") for one in schema["properties"].values())
    assert tool.effects and tool.effects <= set(EFFECTS)


@pytest.mark.parametrize("name", BUILTIN.names())
def test_a_model_can_be_held_to_its_schema(name: str, tmp_path: Path) -> None:
    """A strict tool whose schema cannot be enforced is an error, so this one can."""
    entry = built(name, tmp_path).entry
    entry["function"]["strict"] = True
    config = constrain.Config(tools=[entry], choice="required", template="<tool_call>")
    assert constrain.compile(config, byte.load()) is not None


@pytest.mark.parametrize("name", BUILTIN.names())
def test_every_path_is_looked_at_before_anybody_is_asked(name: str, tmp_path: Path) -> None:
    tool = built(name, tmp_path)
    assert tool.check is not None
    (tmp_path / "l").symlink_to("/")
    for argument, schema in tool.parameters["properties"].items():
        if argument in ("path", "files"):
            for path, rule in (
                ("../x", "path-outside"),
                ("l/etc/passwd", "path-link"),
                (".env", "path-hidden"),
            ):
                with pytest.raises(Refusal) as caught:
                    tool.check({argument: [path] if schema["type"] == "array" else path})
                assert caught.value.rule == rule
