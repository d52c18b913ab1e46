"""What every test gets: its own home, no network, the nano model, a byte tokenizer, memory events."""

from __future__ import annotations

import ipaddress
import itertools
import os
import socket
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from seen import Seen

# Before any peer is imported: no hub look-ups, no telemetry, no progress bars between test dots.
# Test processes run side by side: BLAS threads that wait for a busy core would slow all of them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1")
os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_DISABLE_TELEMETRY="1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seen", choices=["write", "check"], help="what the contract tests saw (tests/seen.py)")


def pytest_configure(config: pytest.Config) -> None:
    if (how := config.getoption("--seen")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Seen(how))


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for each test's home; mktemp would look through all earlier ones each time."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(n) for n in itertools.count())


@pytest.fixture(autouse=True)
def _own_home(_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    home = next(_homes)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TINYGPT_CACHE", str(home / "cache"))


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """What is drawn without a key is the same in every run of a test."""
    if (mlx := sys.modules.get("mlx.core")) is not None:
        mlx.random.seed(0)


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Generator[None]:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _loopback(str(address[0])):
            raise AssertionError(f"a test tried to reach {address[0]}: tests have no network")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(params=["llama", "gpt2"])
def shape(request: pytest.FixtureRequest) -> str:
    """Both shapes a model of ours can have, one after the other."""
    return request.param


@pytest.fixture
def nano_model(shape: str) -> Any:
    """The nano model in each shape."""
    import nano

    return nano.model(shape)


@pytest.fixture
def byte_tokenizer() -> Any:
    """One token a byte."""
    from tinygpt.data.tokenizer import byte

    return byte.load(None)


@pytest.fixture
def memory() -> Any:
    """A sink that keeps events in a list."""
    from tinygpt.core.events import MemorySink

    return MemorySink()


@pytest.fixture
def src() -> Path:
    """The package's source folder."""
    return Path(__file__).parent.parent / "src" / "tinygpt"
