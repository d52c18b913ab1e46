"""Who is asked, and with which key: providers, addresses, key files, and settings that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripted_cloud import ScriptedCloud, said
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, MemorySink
from tinygpt.runs import _cloud
from tinygpt.runs._cloud import ANTHROPIC_MODEL, OPENAI_MODEL, Target, open_cloud

KEY = "the-key-of-this-test-4711"
USER = {"role": "user", "content": "Why?"}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


def test_providers_have_their_address_model_and_key() -> None:
    found = [open_cloud(Target(provider=name), Events()) for name in ("openai", "anthropic")]
    assert [(one.host, one.model, one.key) for one in found] == [
        ("api.openai.com", OPENAI_MODEL, "OPENAI_API_KEY"),
        ("api.anthropic.com", ANTHROPIC_MODEL, "ANTHROPIC_API_KEY"),
    ]
    assert all(one.encrypted and one.leaves for one in found)
    assert open_cloud(Target(provider="openai", model="x"), Events()).model == "x"
    plain = open_cloud(Target(provider="http://10.1.2.3:80/v1"), Events())
    assert not plain.encrypted and open_cloud(Target(provider="http://localhost:1"), Events()).encrypted
    for url, speaks in (("https://api.anthropic.com/v1", "anthropic"), ("https://xanthropic.com", "openai")):
        assert Target(provider=url).speaks == speaks
    assert found[0]._most == "max_completion_tokens"  # type: ignore[attr-defined]


def test_a_provider_needs_its_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="no key for openai: OPENAI_API_KEY is not set") as found:
        open_cloud(Target(provider="openai"), Events())
    assert "--key-file" in found.value.hint
    assert open_cloud(Target(provider="http://127.0.0.1:1"), Events()).key == ""
    with pytest.raises(ConfigError, match="cannot be read"):
        open_cloud(Target(provider="openai", key_file=tmp_path / "none"), Events())


def test_a_key_from_a_file(tmp_path: Path) -> None:
    path, sink = tmp_path / "key", MemorySink()
    path.write_text("from-a-file-1234567\n")
    path.chmod(0o644)
    with ScriptedCloud(said("yes")) as server:
        given = Target(provider=server.url, key_file=path, model="m")
        open_cloud(given, Events(sink)).ask([USER])
        assert server.headers[0]["authorization"] == "Bearer from-a-file-1234567"
    (note,) = sink.events
    assert "others of this machine can read the key" in str(note) and "1234567" not in str(note)
    path.chmod(0o600)
    open_cloud(Target(provider="openai", key_file=path), Events(sink))
    assert len(sink.events) == 1
    for wrong in ("", "  \n", "two words", "a\r\nX-Evil: 1", "k\u00e9y"):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match="is empty|is no key") as found:
            open_cloud(Target(provider="openai", key_file=path), Events())
        assert not wrong.strip() or wrong.strip() not in str(found.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"provider": "opnai"}, "Did you mean 'openai'"),
        ({"provider": "http://user:secret@host/v1"}, "before the @"),
        ({"provider": "openai", "api": "anthropic"}, "speaks its own"),
        ({"provider": "openai", "timeout": 0}, "--timeout must be positive"),
        ({"provider": "openai", "max_wait": -1}, "--max-wait must not be negative"),
        ({"provider": ".", "model": "x"}, "says nothing to a model of this machine"),
        ({"provider": ".", "timeout": 3.0}, "--timeout says nothing to a model of this machine"),
        ({"provider": ".", "retries": 0}, "--retries says nothing to a model of this machine"),
        ({"provider": ".", "backoff": 0.5}, "--backoff says nothing to a model of this machine"),
        ({"provider": ".", "max_wait": 0.0}, "--max-wait says nothing to a model of this machine"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        Target(**given)
    assert "secret" not in str(found.value)


def test_keys_are_in_no_representation() -> None:
    cloud = open_cloud(Target(provider="openai"), Events())
    assert KEY not in repr(cloud) and KEY not in repr(Target(provider="openai"))
    assert _cloud.KEYS.keys() == _cloud.URLS.keys() == _cloud.MODELS.keys()
